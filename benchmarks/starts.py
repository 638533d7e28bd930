"""How long carsweep keeps somebody waiting before there is anything to see, and what it does not do twice.

    python benchmarks/starts.py [--data FOLDER] [--classes N] [--runs N] [--json FILE]

Measures ``--help`` and ``--dry-run``; the first epoch of a sweep whose stages are all there from an earlier one; and
the trainings of a retrieval sweep that follows a transfer sweep with the same training settings, in the same store.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from cars import Cars, lay_out
from commands import carsweep, sweep
from rows import Row, write_rows

HELP_SECONDS, PLAN_SECONDS, BATCH_SECONDS = 0.4, 2.0, 8.0


def main() -> None:
    """Measure everything and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set in any layout; without it the demo cars")
    parser.add_argument("--classes", type=int, help="only so many of its classes")
    parser.add_argument("--runs", type=int, default=5, help="of --help and --dry-run; of sweeps at most 3")
    parser.add_argument("--size", type=int, default=96, help="of the images in pixels")
    parser.add_argument("--json", type=Path, help="where the rows go")
    asked = parser.parse_args()
    words = ["python benchmarks/starts.py", *([f"--data {asked.data.name}"] if asked.data else [])]
    words += [*([f"--classes {asked.classes}"] if asked.classes else []), f"--runs {asked.runs} --size {asked.size}"]
    command = " ".join(words)
    with tempfile.TemporaryDirectory(prefix="carsweep-bench-") as folder:
        place = Path(folder)
        cars = lay_out(asked.data, asked.classes, place)
        rows = [help_row(asked.runs, command), plan_row(cars, place, asked.runs, command)]
        rows += [second_start_row(cars, place, min(3, asked.runs), asked.size, command)]
        rows += [second_family_row(cars, place, asked.size, command)]
    for row in rows:
        print(f"{row.what}: {row.value} ({row.target}) {row.reason}")
    if asked.json:
        write_rows(asked.json, rows)


def help_row(runs: int, command: str) -> Row:
    """Time ``carsweep --help``."""
    seconds = [carsweep("--help").seconds for _ in range(runs)]
    return _seconds_row("carsweep --help", seconds, HELP_SECONDS, command)


def plan_row(cars: Cars, place: Path, runs: int, command: str) -> Row:
    """Time ``carsweep run transfer --dry-run`` on the images."""
    words = ("run", "transfer", "--data", cars.folder, "--out", place / "plan", "--dry-run")
    words += ("--set", "backbone=efficientnet_lite0")
    seconds = [carsweep(*words).seconds for _ in range(runs)]
    return _seconds_row(f"carsweep run transfer --dry-run ({cars})", seconds, PLAN_SECONDS, command)


def second_start_row(cars: Cars, place: Path, runs: int, size: int, command: str) -> Row:
    """Time a sweep until its first epoch, where an earlier one has made the pack and the frozen features.

    Its trials smooth their labels by other amounts, so that they must be trained. The first batch itself prints
    nothing; the first epoch's line comes after it, so the seconds err upwards.
    """
    out = place / "second-start"
    told = [sweep(_frozen(size, 0.01 * run), cars.folder, out, f"sweep-{run}") for run in range(runs + 1)]
    first, *later = (one.first(r"trial \d+ epoch 1/") for one in told)
    row = _seconds_row(
        f"second start with all stages present, until the first epoch has ended ({cars})", later, BATCH_SECONDS, command
    )
    print(f"first start: {first:.1f} s")
    return row


def second_family_row(cars: Cars, place: Path, size: int, command: str) -> Row:
    """Count the trainings that retrieval adds to those of transfer."""
    out = place / "second-family"
    transfer = sweep(_tuned("transfer", size, {}), cars.folder, out, "transfer")
    before = _trainings(out)
    retrieval = sweep(_tuned("retrieval", size, {"k": [1, 5, 10]}), cars.folder, out, "retrieval")
    added = _trainings(out) - before
    seconds = f"transfer with {before} {transfer.seconds:.0f} s, retrieval {retrieval.seconds:.0f} s"
    value = f"{added} trainings more ({seconds})"
    reason = "" if not added else "a training of the same settings was not found in the store"
    what = f"second family after the first, training settings alike: retrieval after transfer ({cars})"
    return Row(what, "no training at all", value, added == 0, 1, command, reason)


def _trainings(out: Path) -> int:
    """Count the trained models in the store."""
    return sum(key.is_file() for key in (out / "stages" / "training").glob("*/key.json"))


def _frozen(size: int, smoothing: float) -> dict[str, Any]:
    return _spec("transfer", {**_training(size, "frozen"), "label_smoothing": smoothing}, {})


def _tuned(family: str, size: int, neighbours: dict[str, Any]) -> dict[str, Any]:
    return _spec(family, _training(size, "full"), neighbours)


def _spec(family: str, config: dict[str, Any], search: dict[str, Any]) -> dict[str, Any]:
    searched = {"dropout": [0.0, 0.5], **search}
    trials = 2 * len(search.get("k", [0]))
    return {
        "family": family,
        "trials": trials,
        "experiments": [],
        "config": config,
        "search": searched,
        "early_stopping": {"enabled": False},
    }


def _training(size: int, unfreezing: str) -> dict[str, Any]:
    settings = {"backbone": "efficientnet_lite0", "image_size": size, "epochs": 2, "batch_size": 32}
    return {**settings, "unfreezing": unfreezing, "crop": "random", "flip": True, "rotation": 15, "jitter": 0.0}


def _seconds_row(what: str, seconds: list[float], most: float, command: str) -> Row:
    middle = statistics.median(seconds)
    each = " ".join(f"{second:.2f}" for second in seconds)
    reason = (
        ""
        if middle <= most
        else f"the runs took {each} s, which loading libraries takes, in the command and in Ray's processes"
    )
    return Row(what, f"< {most:g} s", f"{middle:.2f} s", middle <= most, len(seconds), command, reason)


if __name__ == "__main__":
    main()
