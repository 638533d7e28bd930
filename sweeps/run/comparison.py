"""Sweeps side by side, and paired tests between winners that answered the same test images; also those of one job.

``COLUMNS`` is the one list of what a sweep shows beside others, in JSON (docs/json.md) and in tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.data.config import DataSummary
from carcls.errors import InputError
from carcls.evaluation.predictions import StoredPredictions, read_predictions
from carcls.evaluation.significance import LEVEL, NO_DIFFERENCE, PairedComparison, compare_hits, holm
from sweeps.report.page import SideBySide
from sweeps.results.leaderboard import COLUMNS as ROW_COLUMNS
from sweeps.results.leaderboard import Row, half_width, varying_settings
from sweeps.results.result import TEST_PREDICTIONS, SweepResult, read_result
from sweeps.run.status import sweeps_in
from sweeps.tables import Column, json_of, markdown_table, table_of
from sweeps.text import counts_text, duration, percent, points

if TYPE_CHECKING:
    from sweeps.run.command import Command

TOP = 5
# Stored answers must give the accuracy that the result tells, to the last digit that JSON keeps.
_ROUNDING = 1e-9


def _validated(result: SweepResult) -> float | None:
    return result.best.measured("val_accuracy") if result.best else None


def _val_half_width(result: SweepResult) -> float | None:
    return half_width(_validated(result), result.data.splits.get("validation", 0))


def _test_text(result: SweepResult) -> str:
    low, high = result.test.interval if result.test else (0.0, 0.0)
    return percent(result.tested(), (high - low) / 2)


COLUMNS: tuple[Column[SweepResult], ...] = (
    Column("sweep", lambda r: r.sweep, "sweep", is_word=True),
    Column("family", lambda r: r.family, "family", is_word=True),
    Column("status", lambda r: r.status, "status", is_word=True),
    Column("model", lambda r: r.model, "winner", is_word=True),
    Column("val_accuracy", _validated, "val accuracy", cell=lambda r: percent(_validated(r), _val_half_width(r))),
    Column("test_accuracy", SweepResult.tested, "test accuracy", cell=_test_text),
    Column("test_f1", lambda r: r.tested("test_f1"), "test F1", percent),
    Column("trials", lambda r: sum(t.derived_from is None and t.confirms is None for t in r.trials), "trials"),
    Column("seconds", lambda r: r.seconds, "time", duration),
    Column("registered", lambda r: str(r.registered or ""), "registered", is_word=True),
    Column("val_half_width", _val_half_width),
    Column("test_interval", lambda r: r.test.interval if r.test else None),
    Column("evaluations", lambda r: r.test.evaluations if r.test else 0, was="readings"),
    Column("reason", lambda r: next((trial.reason for trial in r.trials if trial.status == "failed"), "")),
)


def columns_of(*keys: str) -> list[Column[SweepResult]]:
    """Return the columns of these keys, in the order of ``COLUMNS``."""
    return [column for column in COLUMNS if column.key in keys]


def sweep_json(result: SweepResult) -> dict[str, Any]:
    """Return what a sweep shows beside others, as its JSON."""
    return json_of(COLUMNS, result)


# Of a job's winners: the columns that every screen has room for, and these with the others.
_NARROW = ("family", "val_accuracy", "test_accuracy", "registered")
NARROW_COLUMNS, WINNER_COLUMNS = columns_of(*_NARROW), columns_of(*_NARROW, "model", "test_f1", "trials", "seconds")


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

    def __str__(self) -> str:
        """Say what the test says, in points."""
        numbers = self.numbers
        low, high = (points(end, digits=2) for end in numbers.interval)
        verdict = f"{self.first} is better" if self.verdict == "better" else self.verdict
        return (
            f"{self.first} – {self.second}: {points(numbers.difference, digits=2)} [{low}, {high}], "
            f"right alone {numbers.first_only} and {numbers.second_only}, p = {self.adjusted:.3g}: {verdict}"
        )


@dataclass(frozen=True, slots=True)
class DataGroup:
    """The sweeps of one data set, best on the test images first, and the pairs of their winners, best first.

    ``varying`` has the settings by which trials of this data set differ.
    """

    data: DataSummary
    sweeps: tuple[SweepResult, ...]
    pairs: tuple[Pair, ...]
    varying: tuple[str, ...]

    def top(self, sweep: SweepResult, most: int = TOP) -> list[Row]:
        """Return the best rows of a sweep, with the settings that vary and are not at their defaults."""
        rows = sweep.board.shown[:most]
        return [replace(r, settings={n: r.settings[n] for n in self.varying if n in r.settings}) for r in rows]

    def as_dict(self, most: int = TOP) -> dict[str, Any]:
        """Return plain JSON values, with so many rows of each leaderboard."""
        sweeps = [
            {**sweep_json(one), "top": [json_of(ROW_COLUMNS, row) for row in self.top(one, most)]}
            for one in self.sweeps
        ]
        return {"data": asdict(self.data), "sweeps": sweeps, "pairs": [asdict(pair) for pair in self.pairs]}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Sweeps compared, those of one data set with one another: groups are never ranked against each other.

    Attributes:
        groups: one for each data set.
        unfinished: names of sweeps without a result: they run, or were ended from outside.
        unreadable: why something could not be read, a sentence each.
    """

    groups: tuple[DataGroup, ...]
    unfinished: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def as_dict(self, most: int = TOP) -> dict[str, Any]:
        """Return plain JSON values, with so many rows of each leaderboard."""
        rest = {"unfinished": list(self.unfinished), "unreadable": list(self.unreadable)}
        return {"groups": [group.as_dict(most) for group in self.groups], **rest}


def compare_sweeps(out: Path, names: Sequence[str] = ()) -> Comparison:
    """Compare what sweeps have left.

    Args:
        out: folder of runs.
        names: of sweeps, or of jobs, whose sweeps are meant; none means all sweeps.

    Raises:
        InputError: a name is of neither, or there is no sweep at all.
    """
    wanted = [sweep for name in names for sweep in sweeps_in(out, name)] if names else sorted(sweeps_in(out))
    if not wanted:
        raise InputError(f"--out must be a folder with sweeps, got {str(out)!r}. Run one first, or name its --out.")
    results: list[SweepResult] = []
    answers: dict[str, StoredPredictions] = {}
    unfinished, unreadable = [], []
    for name in dict.fromkeys(wanted):
        try:
            result = read_result(out / name)
            if result is None:
                unfinished.append(name)
                continue
            results.append(result)
            if (out / name / TEST_PREDICTIONS).is_file():
                answers[name] = read_predictions(out / name / TEST_PREDICTIONS)
        except InputError as error:
            unreadable.append(f"{name}: {error}")
    return Comparison(compare(results, answers), tuple(unfinished), tuple(unreadable))


def compare(results: Iterable[SweepResult], answers: Mapping[str, StoredPredictions]) -> tuple[DataGroup, ...]:
    """Compare sweeps, those of one data set with one another.

    Args:
        results: of sweeps with different names, finished or not.
        answers: name of a sweep -> its winner's stored answers to the test images; sweeps that are missing here, or
            whose answers do not give the result's test accuracy, are in no pair.
    """
    by_data: dict[str, list[SweepResult]] = {}
    for result in results:
        by_data.setdefault(result.data.digest, []).append(result)
    groups = []
    for members in by_data.values():
        ranked = sorted(members, key=_order)
        own = {r.sweep: answers[r.sweep] for r in ranked if r.sweep in answers and _belongs(answers[r.sweep], r)}
        varying = varying_settings(result.board for result in ranked)
        groups.append(DataGroup(ranked[0].data, tuple(ranked), _pairs(own), varying))
    return tuple(groups)


def _order(result: SweepResult) -> tuple[float, float, str]:
    test, val = result.tested(), _validated(result)
    return (math.inf if test is None else -test, math.inf if val is None else -val, result.sweep)


def _belongs(answers: StoredPredictions, result: SweepResult) -> bool:
    """Tell whether stored answers are those that the result was read from; an older winner's may still lie there."""
    told = result.tested()
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


def side_by_side(out: Path, names: Sequence[str]) -> list[SideBySide]:
    """Return sweeps beside each other as a report shows them, those of one data set together; errors as above."""
    columns = [column for column in COLUMNS if column.title]
    return [
        SideBySide(f"{group.data.name}, side by side", table_of(columns, group.sweeps), tuple(map(str, group.pairs)))
        for group in compare_sweeps(out, names).groups
    ]


@dataclass(frozen=True, slots=True)
class Together:
    """What a job of all families leaves: the sweeps' results by family, and their winners side by side.

    ``pairs`` are the winners two by two on the same test images; ``seconds`` are of this session.
    """

    name: str
    seconds: float
    results: Mapping[str, SweepResult]
    pairs: tuple[Pair, ...] = ()

    @property
    def interrupted(self) -> bool:
        """Whether one of its sweeps was; those after it did not begin."""
        return any(result.interrupted for result in self.results.values())

    @property
    def is_whole(self) -> bool:
        """Whether every family has a registered model."""
        return all(result.registered for result in self.results.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "comparison": [json_of(COLUMNS, result) for result in self.results.values()],
            "pairs": [asdict(pair) for pair in self.pairs],
            "families": {family: result.as_dict() for family, result in self.results.items()},
        }

    def markdown(self) -> str:
        """Return the comparison as a Markdown table."""
        data, lines = next(iter(self.results.values())).data, "\n".join(f"- {pair}" for pair in self.pairs)
        pairs = f"\nOn the same test images, in points (exact McNemar test, p by Holm):\n\n{lines}\n" if lines else ""
        return (
            f"# {self.name}\n\n{data.name}: {data.classes} classes, images: {counts_text(data.splits)}. Each winner "
            "was chosen on the validation images and evaluated once on the test images.\n\n"
            f"{markdown_table(table_of(WINNER_COLUMNS, self.results.values()))}\n{pairs}"
        )


def compare_winners(command: Command, results: Sequence[SweepResult], seconds: float) -> Together:
    """Compare the winners of a job's sweeps by their stored answers to the test images, which are not evaluated again.

    A job that was interrupted has no pairs yet.
    """
    pairs: tuple[Pair, ...] = ()
    if not results[-1].interrupted:
        groups = compare_sweeps(command.root, [result.sweep for result in results]).groups
        pairs = tuple(pair for group in groups for pair in group.pairs)
    return Together(command.name, seconds, {result.family: result for result in results}, pairs)
