"""What carsweep adds to trials: against raw Ray Tune, in memory, and as trials grow.

    python benchmarks/orchestration.py [--short] [--only tune memory trials] [--json FILE]

tune     no-op trials through the engine, study, journal and MLflow, against Tune with reuse_actors and no logging;
         both in turn, in one Ray session that is started before
memory   the driver's resident memory over trials of 40 reports each
trials   10, 100 and 1,000 no-op trials: the seconds must grow no faster than they do

``--short`` takes a tenth of the trials.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from noop_trials import resident_bytes, time_carsweep, time_tune
from rows import Row, write_rows

REPORTS = 40
# The part of a sweep that is over before its growth is judged: libraries load and the sampler begins to learn.
WARM = 0.2


def main() -> None:
    """Read the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    words = ["--short"] * arguments.short + (["--only", *arguments.only] if len(arguments.only) < len(PARTS) else [])
    command = " ".join(["python benchmarks/orchestration.py", *words])
    rows: list[Row] = []
    for part in arguments.only:
        for row in PARTS[part](0.1 if arguments.short else 1.0, command):
            rows.append(_judged(row, 0.1 if arguments.short else 1.0))
            print(f"{row.what}: {row.value} ({row.target}) {row.reason}", flush=True)
        if arguments.json:
            write_rows(arguments.json, rows)


def against_tune(scale: float, command: str) -> list[Row]:
    """Run both in turn; the ratio is of the medians."""
    trials, ours, tunes = round(1000 * scale), [], []
    with _ray() as place:
        time_carsweep(10, 1, _fresh(place))  # processes start, libraries load
        time_tune(10, 1, _fresh(place), concurrency=2)
        for _ in range(3 if scale < 1 else 2):
            tunes.append(time_tune(trials, 1, _fresh(place), concurrency=2))
            ours.append(time_carsweep(trials, 1, _fresh(place))[0])
    ratio = statistics.median(ours) / statistics.median(tunes)
    what = f"{trials} no-op trials against raw Ray Tune with reuse_actors and no logging, MLflow included"
    mine, its = (1e3 * statistics.median(seconds) / trials for seconds in (ours, tunes))
    value, met = f"{ratio:.2f}× ({mine:.0f} against {its:.0f} ms a trial)", ratio <= 1.2
    reason = "" if met else "the sampler, the journal and MLflow share two cores with the trials' processes"
    return [Row(what, "≤ 1.2× the time", value, met, len(ours), command, reason)]


def memory(scale: float, command: str) -> list[Row]:
    """Watch the driver over trials that report often; its growth is judged after the warm part."""
    trials = round(1000 * scale)
    with _ray() as place:
        before = resident_bytes()
        _, seen = time_carsweep(trials, REPORTS, _fresh(place))
    peak, warm = max(seen.resident), round(WARM * trials)
    each = (seen.resident[-1] - seen.resident[warm]) / (trials - warm) / 2**10
    what = f"driver memory at {trials} trials x {REPORTS} reports"
    print(f"{before / 2**20:.0f} MiB before the first trial", flush=True)
    small, flat = peak < 1.5 * 2**30, each < 64
    grew = f"{each:.0f} KiB a trial"
    return [
        Row(what, "< 1.5 GiB", f"{peak / 2**30:.2f} GiB", small, 1, command, "" if small else "more was needed"),
        Row(f"{what}, growth", "flat (< 64 KiB a trial)", grew, flat, 1, command, "" if flat else "it grows"),
    ]


def trials_growth(scale: float, command: str) -> list[Row]:
    """Time sweeps of three sizes."""
    points: list[tuple[float, float]] = []
    with _ray() as place:
        time_carsweep(10, 1, _fresh(place))
        for trials in (10, 100, round(1000 * scale)) if scale == 1 else (10, 30, 100):
            seconds, _ = time_carsweep(trials, 1, _fresh(place))
            points.append((trials, round(seconds, 2)))
    (few, short), (many, long) = points[-2:]
    ratio = (long / short) / (many / few)
    return [
        Row(
            f"growth with the trials: {few:.0f} to {many:.0f} no-op trials, time over size",
            "linear at most (≤ 1.1×)",
            f"{ratio:.2f}× ({short:.1f} and {long:.1f} s)",
            ratio <= 1.1,
            1,
            command,
            "" if ratio <= 1.1 else "a trial of the larger sweep takes longer",
            {"x": "trials", "y": "seconds", "points": {"no-op trials": points}},
        )
    ]


def _judged(row: Row, scale: float) -> Row:
    """Return the row without a verdict where less was measured than the target asks for."""
    if scale == 1:
        return row
    return replace(row, met=None, reason="; ".join(filter(None, ["not the size that the target is for", row.reason])))


@contextmanager
def _ray() -> Iterator[Path]:
    """Start Ray with room for two trials, and yield a folder."""
    from sweeps.engine.resources import Machine
    from sweeps.engine.session import RaySession

    here = Path(__file__).resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here.parent), str(here.parents[1])])
    with (
        tempfile.TemporaryDirectory(prefix="carsweep-") as name,
        RaySession(machine=Machine(2)) as session,
    ):
        session.connect(Path(name) / "ray.log")
        yield Path(name)


def _fresh(place: Path) -> Path:
    folder = place / f"{time.monotonic_ns()}"
    folder.mkdir()
    return folder


PARTS: dict[str, Callable[[float, str], list[Row]]] = {
    "tune": against_tune,
    "memory": memory,
    "trials": trials_growth,
}


if __name__ == "__main__":
    main()
