"""What the benchmarks measured, as one JSON file and one Markdown page, with the machine and the versions."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from drawing import draw
from rows import check_rows

LIBRARIES = ("ray", "optuna", "mlflow", "torch", "torchvision", "scikit-learn", "timm", "numpy")
SETS = {"full": "The full set", "short": "The short set"}
_HEAD = """# Benchmarks

Written by `python benchmarks/run.py`; [docs/benchmarks.md](../docs/benchmarks.md) says what is compared, and how to run
it. Seconds are medians; a ratio is the median of the runs' ratios. What is not judged was measured on less than its
target asks for, or has no target.
"""


def machine() -> str:
    """Return the processor, cores, memory and GPUs of this machine, in words."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{cores} cores of {name}, {memory:.0f} GiB, {_gpus()}, {platform.system()}"


def versions() -> dict[str, str]:
    """Return the versions of Python, carsweep and the libraries that the time goes into."""
    found = {"python": platform.python_version()}
    for name in ("carsweep", *LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _gpus() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "no GPU"
    asked = [program, "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return " + ".join(filter(None, answer.splitlines())) or "no GPU"


def gather(into: Path, benchmark: str, which: str, rows: Sequence[dict[str, Any]]) -> None:
    """Put the rows of one benchmark into ``results.json`` in place of its earlier ones; write ``RESULTS.md`` anew.

    Args:
        into: folder of both files.
        benchmark: the rows' benchmark.
        which: ``short`` or ``full``; each keeps its own rows.
        rows: as ``rows.FIELDS`` says, perhaps with ``lines``, which are drawn.

    Raises:
        ValueError: a row lacks what it must have.
    """
    check_rows(rows)
    told = {"benchmark": benchmark, "set": which, "date": datetime.date.today().isoformat(), "machine": machine()}
    kept = [row for row in _known(into) if (row["benchmark"], row["set"]) != (benchmark, which)]
    document = {
        "machine": told["machine"],
        "versions": versions(),
        "date": told["date"],
        "rows": [*kept, *({**row, **told} for row in rows)],
    }
    into.mkdir(parents=True, exist_ok=True)
    file, draft = into / "results.json", into / "results.json.draft"
    draft.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(file)
    (into / "RESULTS.md").write_text(page(document, into), encoding="utf-8")


def _known(into: Path) -> list[dict[str, Any]]:
    file = into / "results.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.exists() else []
    return rows


def page(document: dict[str, Any], into: Path) -> str:
    """Return the Markdown page; growth lines are drawn as SVG files in ``into``."""
    parts = [_HEAD]
    for which, title in SETS.items():
        rows = [row for row in document["rows"] if row["set"] == which]
        if rows:
            parts += [_section(title, rows), *_drawings(rows, into)]
    library = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return "\n".join([*parts, f"Versions on {document['date']}: {library}.\n"])


def _section(title: str, rows: Sequence[dict[str, Any]]) -> str:
    verdicts = [row["met"] for row in rows]
    counts = f"{verdicts.count(True)} met, {verdicts.count(False)} missed, {verdicts.count(None)} not judged"
    machines = "; ".join(dict.fromkeys(f"{row['machine']}, {row['date']}" for row in rows))
    lines = [
        f"## {title}\n",
        f"{counts}. {machines}.\n",
        "| what | target | value | met | runs |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(row['what'])} | {row['target']} | {_cell(row['value'])} | {_met(row)} | {row['runs']} |"
        for row in rows
    ]
    reasons = [f"- {row['what']}: {row['reason']}." for row in rows if row["reason"]]
    commands = dict.fromkeys(row["command"] for row in rows)
    lines += ["", "Why not:\n", *reasons] if reasons else []
    lines += ["", "The commands:\n", *(f"    {command}" for command in commands), ""]
    return "\n".join(lines)


def _met(row: dict[str, Any]) -> str:
    return {True: "yes", False: "**missed**", None: "not judged"}[row["met"]]


def _cell(value: Any) -> str:
    return (f"{value:.3g}" if isinstance(value, float) else str(value)).replace("|", "\\|")


def _drawings(rows: Sequence[dict[str, Any]], into: Path) -> list[str]:
    parts = []
    for row in rows:
        if row.get("lines"):
            file = f"growth-{row['benchmark']}-{row['set']}-{len(parts)}.svg"
            (into / file).write_text(draw(row["what"].partition(":")[0], row["lines"]), encoding="utf-8")
            parts.append(f"![{row['what']}]({file})\n")
    return parts
