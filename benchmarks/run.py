"""All benchmarks, one after the other, gathered into benchmarks/results.json and benchmarks/RESULTS.md.

    python benchmarks/run.py                 # the short set: less than a quarter of an hour on two cores
    python benchmarks/run.py --full --data stanford_cars
    python benchmarks/run.py --full --data stanford_cars --only frozen --only starts
    python benchmarks/run.py --full --data stanford_cars --only frozen -- --runs 1 --classes 20
    python benchmarks/run.py --list

Each benchmark is a script of its own that writes rows; one that fails stops none of the others. Rows are kept until the
same benchmark of the same set has run again, so the full set can be measured in several sessions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gathering import gather
from rows import read_rows

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A script and its arguments.

    Attributes:
        name: what ``--only`` calls it.
        script: its file in this folder.
        short, full: arguments of the two sets; None leaves it out of the short one.
        pictures: whether it takes ``--data`` and ``--classes``.
    """

    name: str
    script: str
    short: tuple[str, ...] | None = ("--short",)
    full: tuple[str, ...] = ()
    pictures: bool = False


BENCHMARKS = (
    Benchmark("starts", "starts.py", ("--runs", "3", "--classes", "10"), ("--classes", "40"), pictures=True),
    Benchmark(
        "retrieval",
        "side_by_side.py retrieval",
        ("--classes", "20", "--sizes", "64", "96"),
        ("--classes", "196", "--runs", "3"),
        pictures=True,
    ),
    Benchmark(
        "retrieval-documented-size",
        "side_by_side.py retrieval",
        None,
        ("--classes", "196", "--sizes", "128", "224"),
        pictures=True,
    ),
    Benchmark(
        "frozen",
        "side_by_side.py frozen",
        ("--classes", "10", "--size", "64", "--epochs", "3", "--trials", "24"),
        ("--classes", "40", "--runs", "3"),
        pictures=True,
    ),
    Benchmark(
        "frozen-early-stopping",
        "side_by_side.py frozen",
        None,
        ("--early-stopping", "--classes", "40", "--runs", "3"),
        pictures=True,
    ),
    Benchmark(
        "finetune",
        "side_by_side.py finetune",
        ("--classes", "10", "--size", "64", "--trials", "8"),
        ("--classes", "40", "--runs", "3"),
        pictures=True,
    ),
    Benchmark("pages", "pages.py", ("--runs", "3")),
    Benchmark("serving", "serving.py", ("--seconds", "30", "--requests", "2000")),
    Benchmark("frozen-trials", "frozen_trials.py", ("--short", "--trials", "8")),
    Benchmark("neighbours", "neighbours.py", ("--short",)),
    Benchmark("input-path", "input_path.py"),
    Benchmark("predicting", "predicting.py"),
    Benchmark("epoch", "epoch.py"),
    Benchmark("memory", "memory.py", pictures=True),
    Benchmark("orchestration", "orchestration.py"),
    Benchmark("growth", "growth.py"),
    Benchmark("leaks", "leaks.py", pictures=True),
)


def main() -> int:
    """Run what is asked for; return 1 when a benchmark failed."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = parser.add_mutually_exclusive_group()
    sets.add_argument("--short", action="store_true", help="the short set (which it is anyway)")
    sets.add_argument("--full", action="store_true", help="the sizes that the targets are set for; hours on two cores")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--data", type=Path, help="a data set in any layout; without it the demo cars")
    parser.add_argument("--into", type=Path, default=HERE, help="folder of results.json and RESULTS.md")
    parser.add_argument("more", nargs="*", help="after --: more arguments of the one that --only names; they win")
    parser.add_argument("--list", action="store_true", help="print the benchmarks' commands and stop")
    asked = parser.parse_args()
    if asked.more and len(asked.only or ()) != 1:
        parser.error("arguments after -- are for one benchmark; name it with --only")
    which = "full" if asked.full else "short"
    chosen = [one for one in BENCHMARKS if one.name in (asked.only or names)]
    failed = []
    for benchmark in chosen:
        words = command_of(benchmark, which, asked.data)
        if words is None:
            print(f"{benchmark.name}: not in this set, or not there")
            continue
        words += asked.more
        print(f"{benchmark.name}: python {' '.join(words)}", flush=True)
        if not asked.list and not run(benchmark.name, which, words, asked.into):
            failed.append(benchmark.name)
    if failed:
        print(f"failed: {', '.join(failed)}; their earlier rows were kept", file=sys.stderr)
    return int(bool(failed))


def command_of(benchmark: Benchmark, which: str, data: Path | None) -> list[str] | None:
    """Return the words after ``python``, or None where the set leaves it out or the script is not there."""
    script, *first = benchmark.script.split()
    arguments = benchmark.full if which == "full" else benchmark.short
    if arguments is None or not (HERE / script).exists():
        return None
    pictures = ["--data", str(data)] if data and benchmark.pictures else []
    return [f"benchmarks/{script}", *first, *pictures, *arguments]


def run(name: str, which: str, words: list[str], into: Path) -> bool:
    """Run one benchmark and gather its rows; return whether it went well."""
    path = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "rows.json"
        start = time.perf_counter()
        command = [sys.executable, str(HERE.parent / words[0]), *words[1:], "--json", str(file)]
        code = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": path}).returncode
        print(f"{name}: exit code {code} after {time.perf_counter() - start:.0f} s", flush=True)
        if code or not file.exists():
            return False
        try:
            gather(into, name, which, read_rows(file))
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
