"""Sweeps side by side: one line each, and paired tests between winners that answered the same test images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from carcls.config import TrialConfig
from carcls.evaluation.predictions import StoredPredictions
from carcls.evaluation.significance import (
    LEVEL,
    NO_DIFFERENCE,
    PairedComparison,
    compare_hits,
    holm,
    wilson_interval,
)
from sweeps.leaderboard import Row, condensed, leaderboard_of, varying_settings
from sweeps.result import DataSummary, SweepResult
from sweeps.text import points

TOP = 5
# Stored answers must give the accuracy that the result tells, to the last digit that JSON keeps.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class SweepLine:
    """One sweep.

    Attributes:
        sweep, family: its name and what it sweeps over.
        status: ``complete``, ``interrupted``, or ``failed`` when no trial completed.
        trials: that were run; combinations answered on the way of another trial are not counted.
        model: name of the documented experiment that won, ``search``, or ``none``.
        val_accuracy, val_half_width: of the winner, and half of its 95% interval, in [0, 1]; None without one.
        test_accuracy, test_f1, test_interval: of the winner on the test images, in [0, 1]; None before they are read.
        readings: how often a test score of this sweep was computed.
        seconds: of all its sittings.
        registered: name and version in the model registry; empty when it has none.
        top: the best rows of its leaderboard; ``settings`` are those by which trials of this data set differ.
        reason: why its first failed trial failed; empty when none did.
    """

    sweep: str
    family: str
    status: str
    trials: int
    model: str
    val_accuracy: float | None
    val_half_width: float | None
    test_accuracy: float | None
    test_f1: float | None
    test_interval: tuple[float, float] | None
    readings: int
    seconds: float
    registered: str
    top: tuple[Row, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two winners on the same test images.

    Attributes:
        first, second: names of the sweeps; the first has at least as many images right.
        numbers: the two compared.
        adjusted: Holm's p-value over all pairs of the data set, in [0, 1].
        verdict: ``better``, which the first is, or ``no difference shown``.
    """

    first: str
    second: str
    numbers: PairedComparison
    adjusted: float
    verdict: str


@dataclass(frozen=True, slots=True)
class DataGroup:
    """The sweeps of one data set, best on the test images first, and the pairs of their winners, best first."""

    data: DataSummary
    sweeps: tuple[SweepLine, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sweeps, one group for each data set: groups are never ranked against each other."""

    groups: tuple[DataGroup, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"groups": [asdict(group) for group in self.groups]}


def compare(
    results: Sequence[SweepResult], predictions: Mapping[str, StoredPredictions], *, top: int = TOP
) -> Comparison:
    """Compare sweeps, those of one data set with one another.

    Args:
        results: of sweeps with different names, finished or not.
        predictions: name of a sweep -> its winner's stored answers to the test images; sweeps that are missing here,
            or whose answers do not give the result's test accuracy, are in no pair.
        top: rows of each leaderboard.
    """
    by_data: dict[str, list[SweepResult]] = {}
    for result in results:
        by_data.setdefault(result.data.digest, []).append(result)
    return Comparison(tuple(_group(members, predictions, top) for members in by_data.values()))


def _group(results: Sequence[SweepResult], predictions: Mapping[str, StoredPredictions], top: int) -> DataGroup:
    varying = varying_settings([trial for result in results for trial in result.trials])
    ranked = sorted(results, key=_rank_key)
    lines = tuple(line_of(result, _top_rows(result, varying, top)) for result in ranked)
    answers = {
        result.sweep: predictions[result.sweep]
        for result in ranked
        if result.sweep in predictions and _belongs(predictions[result.sweep], result)
    }
    return DataGroup(results[0].data, lines, _pairs(answers))


def _rank_key(result: SweepResult) -> tuple[float, float, str]:
    test, val = _metric(result.test, "test_accuracy"), _metric(result.best, "val_accuracy")
    return (math.inf if test is None else -test, math.inf if val is None else -val, result.sweep)


def _metric(holder: Any, name: str) -> float | None:
    """Return a metric of a best trial or a test reading; None without either, or where it is NaN."""
    value = None if holder is None else holder.metrics.get(name)
    return None if value is None or math.isnan(value) else float(value)


def _belongs(answers: StoredPredictions, result: SweepResult) -> bool:
    """Tell whether stored answers are those that the result was read from; an older winner's may still lie there."""
    told = _metric(result.test, "test_accuracy")
    return told is not None and abs(answers.accuracy - told) <= _ROUNDING


def _pairs(answers: Mapping[str, StoredPredictions]) -> tuple[Pair, ...]:
    compared = [
        (one, other, compare_hits(answers[one].hits, answers[other].hits))
        for one, other in itertools.combinations(answers, 2)
        if answers[one].same_images(answers[other])
    ]
    adjusted = holm([numbers.p_value for _, _, numbers in compared])
    return tuple(
        Pair(one, other, numbers, p, "better" if p <= LEVEL else NO_DIFFERENCE)
        for (one, other, numbers), p in zip(compared, adjusted, strict=True)
    )


def line_of(result: SweepResult, top: tuple[Row, ...] = ()) -> SweepLine:
    """Return what one line tells of a sweep; ``top`` are the rows of its leaderboard to be shown with it."""
    accuracy, images = _metric(result.best, "val_accuracy"), result.data.splits.get("validation", 0)
    ends = None if accuracy is None or not images else wilson_interval(round(accuracy * images), images)
    status = "interrupted" if result.interrupted else "complete" if result.best else "failed"
    registered = result.registered
    return SweepLine(
        sweep=result.sweep,
        family=result.family,
        status=status,
        trials=sum(trial.sibling_of is None and trial.confirms is None for trial in result.trials),
        model=_model(result),
        val_accuracy=accuracy,
        val_half_width=(ends[1] - ends[0]) / 2 if ends else None,
        test_accuracy=_metric(result.test, "test_accuracy"),
        test_f1=_metric(result.test, "test_f1"),
        test_interval=result.test.interval if result.test else None,
        readings=result.test.readings if result.test else 0,
        seconds=result.seconds,
        registered=f"{registered.name} {registered.version}" if registered else "",
        top=top,
        reason=next((trial.reason for trial in result.trials if trial.status == "failed"), ""),
    )


def _model(result: SweepResult) -> str:
    """Return which experiment won; of a run with a fresh seed, which one it repeats."""
    best = result.best
    if best is None:
        return "none"
    number = best.number if best.confirms is None else best.confirms
    return next((trial.experiment for trial in result.trials if trial.number == number), None) or "search"


def _top_rows(result: SweepResult, varying: Sequence[str], top: int) -> tuple[Row, ...]:
    """Return the best rows with the settings that vary and are not at their defaults."""
    defaults = TrialConfig.model_validate({"family": result.family}).model_dump()
    rows = condensed(leaderboard_of(result, defaults).rows)[:top]
    return tuple(replace(row, settings={n: row.settings[n] for n in varying if n in row.settings}) for row in rows)


def pair_line(pair: Pair) -> str:
    """Return what a pair's test says, in points."""
    numbers = pair.numbers
    low, high = (points(end, digits=2) for end in numbers.interval)
    verdict = f"{pair.first} is better" if pair.verdict == "better" else pair.verdict
    return (
        f"  {pair.first} – {pair.second}: {points(numbers.difference, digits=2)} [{low}, {high}], "
        f"right alone {numbers.first_only} and {numbers.second_only}, p = {pair.adjusted:.3g}: {verdict}"
    )
