"""The same sweep by carsweep and by the hand-written baseline, plain_tune.py, alternating.

    python benchmarks/side_by_side.py retrieval|frozen|finetune [--data FOLDER] [--classes N] [--runs N] [--json FILE]

Both get the same images, split, backbone, search space, trials, epochs, seeds and early stopping, and as many trials at
a time. Both are commands in a process of their own, timed from outside: loading libraries and starting Ray count.
Every run begins with an empty folder, so carsweep's store is cold. carsweep's time includes what the baseline leaves
out: decoding all test images, checkpoints, per-image answers, one reading of the test images, registering the winner.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cars import Cars, lay_out
from commands import Told, plain_tune, sweep
from rows import Row, write_rows

TRIALS = {"retrieval": 24, "frozen": 64, "finetune": 16}
FASTER = {"retrieval": 10.0, "frozen": 30.0}
LATEST = 0.5
LEAST_IMAGES = 1000
POINTS = 0.005


@dataclass(frozen=True, slots=True)
class Contest:
    """What both sides do; the fields are the options."""

    kind: str
    trials: int
    epochs: int
    size: int
    sizes: tuple[int, ...]
    early_stopping: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides of one seed: wall seconds, best validation accuracy, and when which accuracy had been reached."""

    plain: Told
    ours: Told

    @property
    def faster(self) -> float:
        """How many times less wall time we take."""
        return self.plain.seconds / self.ours.seconds

    @property
    def plain_best(self) -> tuple[float, float]:
        """The second at which the baseline had its best accuracy, and that accuracy in [0, 1]."""
        second, accuracy = self.plain.answer["timeline"][-1]
        return second, accuracy

    @property
    def our_best(self) -> float:
        """The best validation accuracy in [0, 1]."""
        return float(self.ours.answer["best"]["metrics"]["val_accuracy"])

    @property
    def our_second(self) -> float:
        """The second at which we had the baseline's best accuracy; infinite if never."""
        _, wanted = self.plain_best
        return next((s for s, best in self.ours.timeline() if best > round(wanted, 3) - 1e-6), float("inf"))

    @property
    def later(self) -> float:
        """Our seconds until the baseline's best accuracy, as a share of its own seconds until then."""
        return self.our_second / self.plain_best[0]


def main() -> None:
    """Read the arguments, run both sides, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=tuple(TRIALS))
    parser.add_argument("--data", type=Path, help="a data set in any layout; without it the demo cars")
    parser.add_argument("--classes", type=int, help="only so many of its classes")
    parser.add_argument("--runs", type=int, default=1, help="of each side, with the seeds 0, 1, …")
    parser.add_argument("--trials", type=int, help="24, 64 and 16 when not given")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--size", type=int, default=128, help="of the images in pixels")
    parser.add_argument("--sizes", type=int, nargs=2, default=(96, 128), help="of retrieval, an extractor each")
    parser.add_argument("--early-stopping", action="store_true", help="of the frozen sweep; finetune always has it")
    parser.add_argument("--json", type=Path, help="where the rows go")
    asked = parser.parse_args()
    contest = Contest(
        kind=asked.kind,
        trials=TRIALS[asked.kind] if asked.kind == "retrieval" else asked.trials or TRIALS[asked.kind],
        epochs=asked.epochs,
        size=asked.size,
        sizes=tuple(asked.sizes),
        early_stopping=asked.kind == "finetune" or asked.early_stopping,
    )
    with tempfile.TemporaryDirectory(prefix="carsweep-bench-") as place:
        cars = lay_out(asked.data, asked.classes, Path(place))
        print(cars, flush=True)
        pairs = [run_pair(contest, cars, seed, Path(place) / f"seed-{seed}") for seed in range(asked.runs)]
    row = row_of(contest, cars, pairs, command_of(asked))
    print(row.value, "met" if row.met else row.reason, sep="\n")
    if asked.json:
        write_rows(asked.json, [row])


def run_pair(contest: Contest, cars: Cars, seed: int, place: Path) -> Pair:
    """Run both sides; with even seeds the baseline goes first, with odd ones we do."""
    told: dict[str, Told] = {}
    for side in ("plain", "ours") if seed % 2 == 0 else ("ours", "plain"):
        told[side] = (
            plain_tune(words_of(contest, cars, seed, place / "plain"))
            if side == "plain"
            else sweep(spec_of(contest, seed), cars.folder, place / "ours")
        )
        print(f"seed {seed} {side}: {told[side].seconds:.1f} s", flush=True)
    splits = told["ours"].answer["data"]["splits"]
    assert (splits["train"], splits["validation"]) == (cars.train, cars.validation), "both sides must have one split"
    pair = Pair(told["plain"], told["ours"])
    print(f"  best {pair.plain_best[1]:.2%} (plain) and {pair.our_best:.2%} (ours)")
    print(f"  of ours {_around(pair.ours)}", flush=True)
    return pair


def words_of(contest: Contest, cars: Cars, seed: int, out: Path) -> list[str | Path]:
    """Return the arguments of plain_tune.py."""
    words: list[str | Path] = ["--data", cars.split, "--kind", contest.kind, "--out", out, "--seed", str(seed)]
    words += ["--trials", str(contest.trials), "--epochs", str(contest.epochs), "--size", str(contest.size)]
    words += ["--sizes", *map(str, contest.sizes)]
    return words if contest.early_stopping else [*words, "--no-early-stopping"]


def spec_of(contest: Contest, seed: int) -> dict[str, Any]:
    """Return the same sweep as a spec of carsweep; the domains are those of plain_tune.py."""
    family, tuned = "retrieval" if contest.kind == "retrieval" else "transfer", contest.kind == "finetune"
    if family == "retrieval":
        search: dict[str, Any] = {"image_size": list(contest.sizes), "k": [1, 5, 10]}
        search |= {"distance": ["euclidean", "cosine"], "vote": ["uniform", "distance"]}
    else:
        search = {"dropout": {"low": 0.0, "high": 0.7}, "head_lr": {"low": 5.0e-4, "high": 1.0e-2, "log": True}}
        search |= {"weight_decay": {"low": 1.0e-6, "high": 1.0e-2, "log": True}, "label_smoothing": [0.0, 0.1]}
        search |= {"backbone_lr": {"low": 1.0e-4, "high": 3.0e-3, "log": True}} if tuned else {}
    training = {"unfreezing": "full" if tuned else "frozen", "epochs": contest.epochs, "batch_size": 32}
    training |= {"optimizer": "adamw", "lr_schedule": "onecycle", "crop": "random", "flip": True, "rotation": 15}
    training |= {"backbone": "efficientnet_lite0", "image_size": contest.size, "jitter": 0.0}
    return {
        "family": family,
        "trials": contest.trials,
        "seed": seed,
        "experiments": [],
        "config": {name: value for name, value in training.items() if name not in search},
        "search": search,
        "early_stopping": {"enabled": contest.early_stopping},
    }


def row_of(contest: Contest, cars: Cars, pairs: list[Pair], command: str) -> Row:
    """Judge the runs; a smaller sweep than the target's is not judged."""
    if contest.kind == "finetune":
        what, target, value, good = _time_to_best(pairs)
    else:
        what, target, value, good = _wall_time(contest, pairs)
    unjudged = _unjudged(contest, cars, len(pairs))
    reason = unjudged or ("" if good else _why(contest, pairs))
    stopping = " with early stopping" if contest.early_stopping and contest.kind == "frozen" else ""
    sizes = contest.sizes if contest.kind == "retrieval" else (contest.size,)
    pixels = " and ".join(map(str, sizes))
    what = f"{what}, {contest.trials} trials{stopping} at {pixels} px ({cars})"
    return Row(what, target, value, None if unjudged else good, len(pairs), command, reason)


def _wall_time(contest: Contest, pairs: list[Pair]) -> tuple[str, str, str, bool]:
    faster = statistics.median(pair.faster for pair in pairs)
    apart = statistics.median(pair.our_best - pair.plain_best[1] for pair in pairs)
    plain, ours = (statistics.median(s) for s in zip(*((p.plain.seconds, p.ours.seconds) for p in pairs), strict=True))
    value = f"{faster:.1f}× ({plain:.1f} s against {ours:.1f} s; best accuracy {100 * apart:+.1f} points)"
    alike = abs(apart) <= POINTS if contest.kind == "retrieval" else True
    what = {"retrieval": "retrieval sweep against plain_tune", "frozen": "frozen transfer sweep against plain_tune"}
    target = f"≥ {FASTER[contest.kind]:g}× less wall time"
    target += ", same best accuracy ± 0.5 points" if contest.kind == "retrieval" else ""
    return what[contest.kind], target, value, faster >= FASTER[contest.kind] and alike


def _time_to_best(pairs: list[Pair]) -> tuple[str, str, str, bool]:
    later = statistics.median(pair.later for pair in pairs)
    each = ", ".join(f"{pair.our_second:.0f} s / {pair.plain_best[0]:.0f} s" for pair in pairs)
    what = "fine-tuning sweep, time until plain_tune's best validation accuracy"
    return what, f"≤ {LATEST:g}×", f"{later:.2f}× ({each})".replace("inf s", "never"), later <= LATEST


def _unjudged(contest: Contest, cars: Cars, runs: int) -> str:
    """Return why the runs cannot judge the target; nothing if they can."""
    if contest.kind == "frozen" and contest.early_stopping:
        return "no target is set for it: in the one that is set every trial runs to its end"
    if contest.trials < TRIALS[contest.kind] or (contest.kind == "finetune" and runs < 3):
        seeds = " and 3 seeds" if contest.kind == "finetune" else ""
        return f"not judged: the target is for {TRIALS[contest.kind]} trials{seeds}"
    if contest.kind != "finetune" and cars.train < LEAST_IMAGES:
        return f"not judged: with fewer than {LEAST_IMAGES:,} images starting takes longer than what is compared"
    return ""


def _why(contest: Contest, pairs: list[Pair]) -> str:
    if contest.kind == "finetune":
        wholes = ", ".join(f"{pair.ours.seconds:.0f} s / {pair.plain.seconds:.0f} s" for pair in pairs)
        return f"whole sweeps took {wholes}: the search finds good settings hardly earlier"
    ours = sorted((pair.ours for pair in pairs), key=lambda told: told.seconds)[len(pairs) // 2]
    if statistics.median(pair.faster for pair in pairs) >= FASTER[contest.kind]:
        return "the time is; the best accuracies are a few images apart, and rounding to bf16 moves them on both sides"
    return f"of our {ours.seconds:.0f} s {_around(ours)}"


def _around(ours: Told) -> str:
    before, after = ours.first(r"trial \d+ started"), ours.seconds - ours.last(r"trial \d+ (complete|pruned)")
    return (
        f"{before:.0f} s pass before the first trial starts (loading libraries, reading images, starting Ray) and "
        f"{after:.0f} s after the last has ended (test images, registration)"
    )


def command_of(asked: argparse.Namespace) -> str:
    """Return the command that measures this again; of the data only the folder's name is told."""
    words = [f"python benchmarks/side_by_side.py {asked.kind}"]
    words += [f"--data {asked.data.name}"] if asked.data else []
    words += [f"--classes {asked.classes}"] if asked.classes else []
    words += [f"--trials {asked.trials}"] if asked.trials else []
    words += [f"--runs {asked.runs}", f"--epochs {asked.epochs}", f"--size {asked.size}"]
    words += [f"--sizes {asked.sizes[0]} {asked.sizes[1]}"] if asked.kind == "retrieval" else []
    return " ".join([*words, *(["--early-stopping"] if asked.early_stopping else [])])


if __name__ == "__main__":
    main()
