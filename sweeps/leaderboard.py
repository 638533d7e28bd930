"""The leaderboard: which trial was best, and by which settings the trials differ. Plain values; others draw it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from carcls.config import TrialConfig
from carcls.evaluation.significance import wilson_interval
from sweeps.goals import ACCURACY_ALONE, Goals
from sweeps.record import TrialRecord, Twin
from sweeps.result import Confirmed, SweepResult

_ORDER = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}
_SAME_FOR_ALL = {"family", "seed"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the leaderboard.

    Attributes:
        rank: from 1 for complete trials, None for the others.
        number, experiment, status, reason, epochs, seconds: as in the trial's record.
        accuracy, top5, f1: on the validation images, in [0, 1]; None when never measured.
        recall_at_5, map_at_r: of retrieval trials, in [0, 1].
        half_width: half of the 95% interval of the accuracy, in [0, 1].
        settings: what this trial does differently from the base, without what cannot matter in it.
        sibling_of: the trial that answered this one on its way.
        confirmed: what fresh seeds made of it; None unless it was repeated.
        failure: kind of the failure of a failed trial.
        predict_ms: milliseconds per image, from pixels to answer; parameters: of the network that answers.
        infeasible: which constraints it breaks, or what of them was not measured; then it has no rank.
        pareto: whether it is on the Pareto front of the sweep's objectives, where there are several.
        twins: trials that were drawn and not run, since they are the same as this one, or nearly.
    """

    rank: int | None
    number: int
    experiment: str | None
    status: str
    reason: str
    accuracy: float | None
    half_width: float | None
    top5: float | None
    f1: float | None
    epochs: int
    seconds: float
    settings: Mapping[str, Any]
    recall_at_5: float | None = None
    map_at_r: float | None = None
    sibling_of: int | None = None
    confirmed: Confirmed | None = None
    failure: str = ""
    predict_ms: float | None = None
    parameters: float | None = None
    infeasible: str = ""
    pareto: bool = False
    twins: tuple[Twin, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Whether it was not run, since what is known before breaks a constraint."""
        return self.status == "pruned" and bool(self.infeasible) and not self.epochs


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows, best first, and the settings in which any two trials differ, in the order of the config."""

    rows: tuple[Row, ...]
    varying: tuple[str, ...]

    @property
    def pareto(self) -> tuple[int, ...]:
        """Numbers of the trials on the Pareto front, ascending; none for a sweep with one objective."""
        return tuple(sorted(row.number for row in self.rows if row.pareto))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rows = [asdict(row) for row in self.rows]
        return {"varying": list(self.varying), "pareto": list(self.pareto), "rows": rows}


def make_leaderboard(
    trials: Iterable[TrialRecord],
    *,
    base: Mapping[str, Any],
    validation_images: int,
    confirmed: Sequence[Confirmed] = (),
    goals: Goals = ACCURACY_ALONE,
) -> Leaderboard:
    """Rank ``trials`` by the first objective: complete ones first, then infeasible, stopped and failed ones.

    Trials that were confirmed with fresh seeds come before all others, by the means of those; the runs with fresh
    seeds have no rows of their own.

    Args:
        trials: in any order.
        base: every setting of a trial of this sweep that changes nothing.
        validation_images: how many images each accuracy was measured on; 0 gives no interval.
        confirmed: what fresh seeds made of some, best first.
        goals: of the sweep.
    """
    places = {one.number: (place, one) for place, one in enumerate(confirmed) if one.mean is not None}
    search = [trial for trial in trials if trial.confirms is None]
    ranked = sorted(search, key=lambda trial: (places.get(trial.number, (len(places),))[0], _rank_key(trial, goals)))
    ranks = {trial.number: place for place, trial in enumerate(_candidates(ranked, goals), start=1)}
    front = pareto_of(ranked, goals)
    rows = tuple(
        replace(
            _row(trial, ranks.get(trial.number), base, validation_images),
            confirmed=places[trial.number][1] if trial.number in places else None,
            infeasible=_infeasible(trial, goals),
            pareto=trial.number in front,
        )
        for trial in ranked
    )
    return Leaderboard(rows, varying_settings(ranked))


def leaderboard_of(result: SweepResult, base: Mapping[str, Any]) -> Leaderboard:
    """Return the leaderboard of a sweep; ``base`` is what its rows tell settings beside."""
    images = result.data.splits.get("validation", 0)
    return make_leaderboard(
        result.trials, base=base, validation_images=images, confirmed=result.confirmed, goals=result.goals
    )


def find_best(trials: Iterable[TrialRecord], goals: Goals = ACCURACY_ALONE) -> TrialRecord | None:
    """Return the complete trial that keeps all constraints and is best in the first objective, or None.

    Ties go to the better accuracy, then to the lower loss, then to the lower number. Runs with fresh seeds are left
    out.
    """
    search = [trial for trial in trials if trial.confirms is None]
    return min(_candidates(search, goals), key=lambda trial: _rank_key(trial, goals), default=None)


def pareto_of(trials: Iterable[TrialRecord], goals: Goals) -> tuple[int, ...]:
    """Return the numbers of the trials on the Pareto front, ascending; none for a sweep with one objective.

    Of trials that are equal in all objectives the one that ranks first is on it.
    """
    if not goals.are_several:
        return ()
    ranked = sorted(
        _complete(trial for trial in trials if trial.confirms is None), key=lambda trial: _rank_key(trial, goals)
    )
    return goals.front({trial.number: trial.metrics for trial in ranked})


def varying_settings(trials: Sequence[TrialRecord]) -> tuple[str, ...]:
    """Return the settings in which any two trials differ and it matters, in the order of the config."""
    matters = [_mattering(trial.config) for trial in trials]
    names = [name for name in TrialConfig.model_fields if name not in _SAME_FOR_ALL]
    return tuple(name for name in names if len({repr(m[name]) for m in matters if name in m}) > 1)


def differing_settings(params: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a trial that differ from ``base`` and matter in it."""
    return {
        name: value
        for name, value in _mattering(params).items()
        if name not in _SAME_FOR_ALL and value != base.get(name)
    }


def _mattering(params: Mapping[str, Any]) -> dict[str, Any]:
    """Drop settings that the canonical config neutralizes, such as the backbone's learning rate when it is frozen."""
    config = TrialConfig.model_validate(dict(params))
    canonical = config.canonical()
    return {name: value for name, value in config.model_dump().items() if canonical.get(name) == value}


def _complete(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    return [trial for trial in trials if trial.status == "complete" and _metric(trial, "val_accuracy") is not None]


def _candidates(trials: Iterable[TrialRecord], goals: Goals) -> list[TrialRecord]:
    """Return the complete trials that may win."""
    return [
        t for t in _complete(trials) if not goals.infeasible(t.metrics) and _metric(t, goals.first.metric) is not None
    ]


def _infeasible(trial: TrialRecord, goals: Goals) -> str:
    return goals.infeasible(trial.metrics) if trial.status == "complete" else goals.broken_by(trial.metrics)


def _rank_key(trial: TrialRecord, goals: Goals) -> tuple[float, ...]:
    first, accuracy, loss = (_metric(trial, name) for name in (goals.first.metric, "val_accuracy", "val_loss"))
    return (
        _ORDER[trial.status],
        bool(_infeasible(trial, goals)),
        math.inf if first is None else (-first if goals.first.direction == "maximize" else first),
        math.inf if accuracy is None else -accuracy,
        math.inf if loss is None else loss,
        trial.number,
    )


def _metric(trial: TrialRecord, name: str) -> float | None:
    value = trial.metrics.get(name)
    return None if value is None or math.isnan(value) else float(value)


def _row(trial: TrialRecord, rank: int | None, base: Mapping[str, Any], images: int) -> Row:
    accuracy = _metric(trial, "val_accuracy")
    ends = None if accuracy is None or images < 1 else wilson_interval(round(accuracy * images), images)
    return Row(
        rank=rank,
        number=trial.number,
        experiment=trial.experiment,
        status=trial.status,
        reason=trial.why,
        accuracy=accuracy,
        half_width=(ends[1] - ends[0]) / 2 if ends else None,
        top5=_metric(trial, "val_top5"),
        f1=_metric(trial, "val_f1"),
        epochs=trial.epochs,
        seconds=round(trial.seconds, 3),
        settings=differing_settings(trial.config, base),
        recall_at_5=_metric(trial, "val_recall_at_5"),
        map_at_r=_metric(trial, "val_map_at_r"),
        sibling_of=trial.sibling_of,
        failure=trial.failure,
        predict_ms=_metric(trial, "predict_ms"),
        parameters=_metric(trial, "parameters"),
        twins=tuple(trial.twins),
    )


def condensed(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows that a person wants to see, with ranks 1, 2, 3, … among them.

    Of a trial and its siblings that is the best one. Any other stays when it is a documented experiment or on the
    Pareto front; a searched trial that was refused does not.
    """
    best: dict[int, int] = {}
    for row in rows:
        best.setdefault(row.number if row.sibling_of is None else row.sibling_of, row.number)
    kept = set(best.values())
    shown = [
        row for row in rows if row.experiment is not None or row.pareto or (row.number in kept and not row.is_refused)
    ]
    ranks = {row.number: place for place, row in enumerate((row for row in shown if row.rank is not None), start=1)}
    return tuple(replace(row, rank=ranks.get(row.number)) for row in shown)
