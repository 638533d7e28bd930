"""How the memory of a process that runs trial after trial grows, and what keeping it flat costs.

    python benchmarks/memory.py [--short] [--json FILE] [--data FOLDER] [--classes 40] [--size 128] [--batch 32]

A sweep of fine-tuning, one trial at a time on all cores, so that one process runs them all. The memory of a trial is
the most that its process held of its own during it (RssAnon). Its time is the process's computing time: the clock on
the wall tells more about what else the machine does. One side is a sweep as it is, the other one with as many arenas
(MALLOC_ARENA_MAX) as glibc makes by itself; both run in turns. First trials prepare, so the others are compared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from cars import Cars, lay_out
from rows import Row, write_rows

from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.stages import StageStore
from sweeps.engine.engine import run_trials
from sweeps.engine.session import RaySession
from sweeps.engine.task import Work
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.trial import TrialRecord

VARIABLE = "MALLOC_ARENA_MAX"
FLAT, SLOWER = 1.10, 1.03
_LOOK_SECONDS = 0.2


def main() -> None:
    """Read the arguments, run both sides in turns, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer images, trials and rounds")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--data", type=Path, help="images in any layout; without it the demo cars are drawn")
    parser.add_argument("--classes", type=int, help="of the data set; without it 10, in the short set 5")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    rounds, trials, classes = (1, 3, 5) if arguments.short else (3, 6, 10)
    sides: dict[str, list[Watched]] = {"": [], "0": []}
    with tempfile.TemporaryDirectory() as place:
        cars = lay_out(arguments.data, arguments.classes or classes, Path(place))
        dataset = Path(place) / "dataset.json"
        prepare_dataset(DataConfig(path=str(cars.folder)), StageStore(Path(place) / "stages"), arguments.size).save(
            dataset
        )
        for number in range(rounds):
            for arenas, seen in sides.items():
                spec = spec_of(trials, arguments.size, arguments.batch)
                seen.append(watch_sweep(spec, arenas, dataset, Path(place) / f"sweep-{number}{arenas}"))
                print(f"{'glibc' if arenas else 'ours'}: {seen[-1]}", flush=True)
    command = "python benchmarks/memory.py" + (" --short" if arguments.short else "")
    rows = rows_of(sides[""], sides["0"], cars, command + (f" --data {arguments.data.name}" if arguments.data else ""))
    for row in rows:
        print(f"{row.what}: {row.value} ({row.target}){'' if row.met else ' MISSED'}")
    if arguments.json:
        write_rows(arguments.json, rows)


def spec_of(trials: int, size: int, batch: int) -> SweepSpec:
    """Return a sweep of fine-tuning with so many trials of one epoch."""
    config = {"backbone": "efficientnet_lite0", "unfreezing": "full", "epochs": 1, "warmup_epochs": 0}
    return SweepSpec(
        family="transfer",
        trials=trials,
        concurrency=1,
        gpus_per_trial=0.0,
        config={**config, "image_size": size, "batch_size": batch},
        search={"dropout": Range(0.0, 0.7)},
        near=0.0,
        early_stopping=EarlyStopping(enabled=False),
    )


class Held(NamedTuple):
    """What a process has of its own, in bytes, and the seconds that it has computed."""

    memory: int = 0
    seconds: float = 0.0


@dataclass
class Watched:
    """Hears when a trial ends, and keeps what the process of trials held at most until then, and had computed."""

    most: list[int] = field(default_factory=lambda: [0])
    seconds: list[float] = field(default_factory=lambda: [0.0])

    def look(self) -> None:
        """See what the largest process of trials holds now."""
        held = max(_processes(), default=Held())
        self.most[-1], self.seconds[-1] = max(self.most[-1], held.memory), max(self.seconds[-1], held.seconds)

    def trial_changed(self, record: TrialRecord) -> None:
        """Go on with the next trial."""
        if record.status == "running":
            return
        assert record.status == "complete", record.reason
        self.look()
        self.most.append(0)
        self.seconds.append(0.0)

    @property
    def growth(self) -> float:
        """The most of a later trial over the first one's."""
        return max(self.most[1:-1]) / self.most[0]

    @property
    def later(self) -> float:
        """Seconds that the median of the trials after the first computed."""
        return median(now - before for before, now in zip(self.seconds[:-2], self.seconds[1:-1], strict=True))

    def __str__(self) -> str:
        held = " ".join(f"{most / 2**30:.2f}" for most in self.most[:-1])
        return f"{held} GiB in its trials, each computing {self.later:.1f} s after the first"


def rows_of(ours: list[Watched], glibc: list[Watched], cars: Cars, command: str) -> list[Row]:
    """Compare the sides."""
    growth, theirs = (median(seen.growth for seen in side) for side in (ours, glibc))
    worst = max(seen.growth for seen in ours)
    ratio = median(our.later / their.later for our, their in zip(ours, glibc, strict=True))
    first, held = ours[0].most[0] / 2**30, max(max(seen.most) for seen in ours) / 2**30
    seconds = [median(seen.later for seen in side) for side in (ours, glibc)]
    trials = len(ours[0].most) - 1
    return [
        Row(
            f"memory of a process that fine-tunes {trials} trials, the most of a later one over the first ({cars})",
            f"≤ {FLAT}×",
            f"{growth:.2f}× (median, worst {worst:.2f}×; {first:.2f} GiB, later at most {held:.2f}; {theirs:.2f}× with "
            "glibc's own arenas)",
            growth <= FLAT,
            len(ours),
            command,
            "" if growth <= FLAT else "it grows with the trials",
        ),
        Row(
            f"computing time of these trials against glibc's own arenas ({cars})",
            f"≤ {SLOWER}×",
            f"{ratio:.2f}× ({seconds[0]:.1f} s against {seconds[1]:.1f} s a trial)",
            ratio <= SLOWER,
            len(ours),
            command,
            "" if ratio <= SLOWER else "threads wait for each other's memory",
        ),
    ]


def watch_sweep(spec: SweepSpec, arenas: str, dataset: Path, folder: Path) -> Watched:
    """Run a sweep in ``folder`` and return what was seen; ``arenas`` is empty for what carsweep sets."""
    watched = Watched()
    folder.mkdir()
    with _variable(arenas), _looking(watched), RaySession() as session:
        session.start_in_background(folder / "ray.log", preload=True)
        run_trials(Work(spec, folder / "sweep", dataset, folder / "stages", session), [watched])
    return watched


@contextmanager
def _variable(arenas: str) -> Iterator[None]:
    os.environ.pop(VARIABLE, None)
    if arenas:
        os.environ[VARIABLE] = arenas
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


@contextmanager
def _looking(watched: Watched) -> Iterator[None]:
    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_SECONDS):
            watched.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _processes() -> Iterator[Held]:
    """Yield what each of Ray's processes for trials under this one holds."""
    for process in _under(os.getpid()):
        try:
            lines = (process / "status").read_text().splitlines()
            name, _, numbers = (process / "stat").read_text().rpartition(") ")
        except OSError:
            continue
        if "(ray::" in name:
            kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)
            user, system = numbers.split()[11:13]
            yield Held(kilobytes * 1024, (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"))


def _under(parent: int) -> Iterator[Path]:
    for task in Path(f"/proc/{parent}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            yield Path(f"/proc/{child}")
            yield from _under(child)


if __name__ == "__main__":
    main()
