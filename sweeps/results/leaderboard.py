"""The leaderboard: which trial wins, in which order the others follow, and by which settings they differ.

All of it follows from the trials' records and what the sweep is after. ``COLUMNS`` is the one list of what a row has,
in ``leaderboard.json`` (docs/json.md) and on a screen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from carcls.config import TrialConfig
from sweeps.spec.objectives import ACCURACY_ALONE, Goals, find_quantity
from sweeps.study.confirmation import Confirmed, confirmed_of, typical_run
from sweeps.tables import Column, json_of
from sweeps.text import duration, percent
from sweeps.trial import TrialRecord

STAR, CROSS = "★", "✗"
_ORDER = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}
_SAME_FOR_ALL = {"family", "seed"}


@dataclass(frozen=True, slots=True)
class Row:
    """A trial and its place among the others.

    Attributes:
        trial: its record.
        rank: from 1 for complete trials that may win, None for the others.
        settings: what it does differently from the base, without what cannot matter in it.
        half_width: half of the 95% interval of its accuracy, in [0, 1]; None where it is not known.
        confirmed: what fresh seeds made of it; None unless a run with one is complete.
        infeasible: which constraints it breaks, or what of them was not measured; then it has no rank.
        pareto: whether it is on the Pareto front of the sweep's objectives, where there are several.
    """

    trial: TrialRecord
    rank: int | None
    settings: Mapping[str, Any]
    half_width: float | None = None
    confirmed: Confirmed | None = None
    infeasible: str = ""
    pareto: bool = False

    @property
    def place(self) -> str:
        """What the column of ranks shows: a star beside those on the front, a cross for the infeasible."""
        if self.infeasible and (self.trial.status == "complete" or self.trial.refused):
            return CROSS
        if self.trial.status == "running":
            return "unfinished"
        return f"{STAR} {self.rank}" if self.pareto else str(self.rank or self.trial.status)

    @property
    def accuracy_text(self) -> str:
        """The accuracy with its interval; of a confirmed trial the mean of fresh seeds with their deviation."""
        if self.confirmed is not None:
            return percent(self.confirmed.mean, self.confirmed.spread)
        return percent(self.trial.measured("val_accuracy"), self.half_width)


def _metric(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.trial.measured(name)


# Where there is room: "wide" ones on a wide screen, "measure" ones there too unless there are costs to be shown, "cost"
# ones where the sweep is about them. Those that have no title are in JSON only.
COLUMNS: list[Column[Row]] = [
    Column("rank", lambda row: row.rank, "rank", cell=lambda row: row.place),
    Column("number", lambda row: row.trial.number, "trial"),
    Column("experiment", lambda row: row.trial.experiment, "experiment", cell=lambda row: row.trial.name, is_word=True),
    Column("accuracy", _metric("val_accuracy"), "val accuracy", cell=lambda row: row.accuracy_text),
    Column("predict_ms", _metric("predict_ms"), "predict time", find_quantity("predict_time").write, room="cost"),
    Column("parameters", _metric("parameters"), "parameters", find_quantity("parameters").write, room="cost"),
    Column("top5", _metric("val_top5"), "top-5", percent, room="measure"),
    Column("recall_at_5", _metric("val_recall_at_5"), "recall@5", percent, room="measure"),
    Column("map_at_r", _metric("val_map_at_r"), "mAP@R", percent, room="measure"),
    Column("f1", _metric("val_f1"), "f1", percent, room="wide"),
    Column("epochs", lambda row: row.trial.epochs, "epochs", room="wide"),
    Column("seconds", lambda row: round(row.trial.seconds, 3), "time", duration),
    Column("status", lambda row: row.trial.status),
    Column("reason", lambda row: row.trial.reason),
    Column("failure", lambda row: row.trial.failure),
    Column("half_width", lambda row: row.half_width),
    Column("settings", lambda row: dict(row.settings)),
    Column("derived_from", lambda row: row.trial.derived_from, was="sibling_of"),
    Column("confirmed", lambda row: asdict(row.confirmed) if row.confirmed else None),
    Column("infeasible", lambda row: row.infeasible),
    Column("pareto", lambda row: row.pareto),
    Column("duplicates", lambda row: [asdict(one) for one in row.trial.duplicates], was="twins"),
]


def shown_columns(rows: Sequence[Row], *, wide: bool, goals: Goals) -> list[Column[Row]]:
    """Return the columns that a screen has room for, with the costs that the sweep is about."""
    asked = {quantity.metric for quantity in (*goals.objectives, *(limit.quantity for limit in goals.constraints))}
    costs = {column.key for column in COLUMNS if column.room == "cost" and column.key in asked}

    def fits(column: Column[Row]) -> bool:
        if column.room == "cost":
            return column.key in costs
        if column.room == "measure":
            return wide and not costs and any(column.value(row) is not None for row in rows)
        return bool(column.title) and (wide or column.room != "wide")

    return [column for column in COLUMNS if fits(column)]


@dataclass(frozen=True)
class Leaderboard:
    """The trials of a sweep in their order; each question is answered once.

    Attributes:
        trials: all of them, in any order.
        base: every setting of a trial of this sweep that changes nothing.
        images: how many images each accuracy was measured on; 0 gives no interval.
        goals: of the sweep.
        by_seeds: whether fresh seeds decide where there are any; they do not once ``confirm`` was taken back.
    """

    trials: tuple[TrialRecord, ...]
    base: Mapping[str, Any] = field(default_factory=dict)
    images: int = 0
    goals: Goals = ACCURACY_ALONE
    by_seeds: bool = field(default=True, compare=False)

    @cached_property
    def confirmed(self) -> tuple[Confirmed, ...]:
        """What fresh seeds made of the trials that were repeated, best first."""
        return confirmed_of(self.trials) if self.by_seeds else ()

    @property
    def best_confirmed(self) -> Confirmed | None:
        """The winner by the means of fresh seeds; None when no run with a fresh seed is complete."""
        return next((one for one in self.confirmed if one.mean is not None), None)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The trial whose model is registered: by the means of fresh seeds where there are any."""
        winner = self.best_confirmed
        return find_best(self.trials, self.goals) if winner is None else typical_run(winner, self.trials)

    @cached_property
    def pareto(self) -> tuple[int, ...]:
        """Numbers of the trials on the Pareto front, ascending; none for a sweep with one objective.

        Of trials that are equal in all objectives the one that ranks first is on it.
        """
        if not self.goals.are_several:
            return ()
        complete = [trial for trial in self._ranked if trial.status == "complete"]
        return self.goals.front({t.number: t.metrics for t in complete if t.measured("val_accuracy") is not None})

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """All trials of the search, best first: complete ones, then infeasible, stopped and failed ones.

        Trials that were confirmed with fresh seeds come before all others, by the means of those; the runs with fresh
        seeds have no rows of their own.
        """
        fresh = {one.number: one for one in self.confirmed if one.mean is not None}
        ranked, ranks, rows = {trial.number: trial for trial in self._ranked}, itertools.count(1), []
        for number in dict.fromkeys((*fresh, *ranked)):
            trial, own = ranked[number], self.mattering[number]
            rank = next(ranks) if _may_win(trial, self.goals) else None
            settings = {name: value for name, value in own.items() if value != self.base.get(name)}
            half, infeasible = half_width(trial.measured("val_accuracy"), self.images), _infeasible(trial, self.goals)
            rows.append(Row(trial, rank, settings, half, fresh.get(number), infeasible, number in self.pareto))
        return tuple(rows)

    @cached_property
    def _ranked(self) -> list[TrialRecord]:
        return _ranked(self.trials, self.goals)

    @cached_property
    def mattering(self) -> dict[int, dict[str, Any]]:
        """The settings that matter in each trial of the search, by number."""
        return {trial.number: _mattering(trial.config) for trial in self._ranked}

    @property
    def networks(self) -> tuple[Row, ...]:
        """The best ranked row of each network: a trial and the combinations that it answered on its way share one."""
        found: dict[int, Row] = {}
        for row in self.rows:
            if row.rank is not None:
                found.setdefault(row.trial.network, row)
        return tuple(found.values())

    @cached_property
    def shown(self) -> tuple[Row, ...]:
        """The rows that a person wants to see, with ranks 1, 2, 3, … among them.

        Of a trial and those derived from it that is the best one. Any other stays when it is a documented experiment or
        on the Pareto front; a searched trial that was refused does not.
        """
        rows, ranks, networks = [], itertools.count(1), set[int]()
        for row in self.rows:
            is_best = row.trial.network not in networks and not row.trial.refused
            networks.add(row.trial.network)
            if is_best or row.trial.experiment is not None or row.pareto:
                rows.append(row if row.rank is None else replace(row, rank=next(ranks)))
        return tuple(rows)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rows = [json_of(COLUMNS, row) for row in self.rows]
        return {"varying": list(varying_settings([self])), "pareto": list(self.pareto), "rows": rows}


def half_width(accuracy: float | None, images: int) -> float | None:
    """Return half of Wilson's 95% interval of an accuracy that was measured on so many images; None without them."""
    from carcls.evaluation.significance import wilson_interval

    if accuracy is None or images < 1:
        return None
    low, high = wilson_interval(round(accuracy * images), images)
    return (high - low) / 2


def find_best(trials: Iterable[TrialRecord], goals: Goals = ACCURACY_ALONE) -> TrialRecord | None:
    """Return the complete trial of the search that keeps all constraints and is best in the first objective, or None.

    Ties go to the better accuracy, then to the lower loss, then to the lower number.
    """
    return next((trial for trial in _ranked(trials, goals) if _may_win(trial, goals)), None)


def varying_settings(boards: Iterable[Leaderboard]) -> tuple[str, ...]:
    """Return the settings in which any two trials differ and it matters, in the order of the config."""
    settings = [mattering for board in boards for mattering in board.mattering.values()]
    return tuple(n for n in TrialConfig.model_fields if len({repr(own[n]) for own in settings if n in own}) > 1)


def differing_settings(params: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a trial that differ from ``base`` and matter in it."""
    return {name: value for name, value in _mattering(params).items() if value != base.get(name)}


def _mattering(params: Mapping[str, Any]) -> dict[str, Any]:
    """Drop settings that are the same for all, or that the canonical config neutralizes.

    Such as the backbone's learning rate when it is frozen.
    """
    config = TrialConfig.model_validate(dict(params))
    canonical = {name: value for name, value in config.canonical().items() if name not in _SAME_FOR_ALL}
    return {name: value for name, value in config.model_dump().items() if canonical.get(name) == value}


def _ranked(trials: Iterable[TrialRecord], goals: Goals) -> list[TrialRecord]:
    """Return the trials of the search, best first; runs with fresh seeds are none of it."""

    def order(trial: TrialRecord) -> tuple[float, ...]:
        is_infeasible = bool(_infeasible(trial, goals))
        return _ORDER[trial.status], is_infeasible, *goals.order(trial.number, trial.metrics)

    return sorted((trial for trial in trials if trial.confirms is None), key=order)


def _may_win(trial: TrialRecord, goals: Goals) -> bool:
    return trial.status == "complete" and goals.may_win(trial.metrics)


def _infeasible(trial: TrialRecord, goals: Goals) -> str:
    return goals.infeasible(trial.metrics) if trial.status == "complete" else goals.broken_by(trial.metrics)
