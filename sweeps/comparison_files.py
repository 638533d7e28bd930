"""What the sweeps under a folder of runs have left, for a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carcls.errors import InputError, nearest
from carcls.evaluation.predictions import StoredPredictions, read_predictions
from sweeps.result import SweepResult
from sweeps.sweep_file import sweeps_of
from sweeps.winner import TEST_PREDICTIONS


@dataclass(frozen=True, slots=True)
class SweepFiles:
    """The sweeps of a folder.

    Attributes:
        results: of those that have one, by name.
        predictions: name -> the winner's answers to the test images, where they can be read.
        unfinished: names of sweeps without a result: they run, or were ended from outside.
        unreadable: why something could not be read, a sentence each.
    """

    results: tuple[SweepResult, ...]
    predictions: Mapping[str, StoredPredictions]
    unfinished: tuple[str, ...]
    unreadable: tuple[str, ...]


def read_sweeps(out: Path, names: Sequence[str]) -> SweepFiles:
    """Read the results and test predictions of sweeps.

    Args:
        out: folder of runs.
        names: of sweeps; none means all of them.

    Raises:
        InputError: a name is of no sweep, or there is none at all.
    """
    known = [folder.name for folder in sweeps_of(out)]
    if not known:
        raise InputError(f"--out must be a folder with sweeps, got {str(out)!r}. Run one first, or name its --out.")
    for name in names:
        if name not in known:
            raise InputError(
                f"SWEEP must be the name of a sweep under {str(out)!r}, got {name!r}." + nearest(name, known)
            )
    results: list[SweepResult] = []
    predictions: dict[str, StoredPredictions] = {}
    unfinished, unreadable = [], []
    for name in dict.fromkeys(names or known):
        if not (out / name / "result.json").is_file():
            unfinished.append(name)
            continue
        try:
            results.append(_read_result(out / name))
            if (out / name / TEST_PREDICTIONS).is_file():
                predictions[name] = read_predictions(out / name / TEST_PREDICTIONS)
        except InputError as error:
            unreadable.append(f"{name}: {error}")
    return SweepFiles(tuple(results), predictions, tuple(unfinished), tuple(unreadable))


def _read_result(folder: Path) -> SweepResult:
    try:
        # A folder may have been renamed since.
        return replace(SweepResult.load(folder / "result.json"), sweep=folder.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"result.json must be one that this carsweep wrote, got {type(error).__name__}: {said}. "
            f"Move it away and run the sweep with --name {folder.name}: nothing is computed twice."
        ) from error
