"""The leaderboard: which trial was best, and by which settings the trials differ. Plain values; others draw it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from carcls.config import TrialConfig
from carcls.evaluation.significance import wilson_interval
from sweeps.result import Confirmed, TrialSummary

_ORDER = {"complete": 0, "pruned": 1, "running": 2, "failed": 3}
_SAME_FOR_ALL = {"family", "seed"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the leaderboard.

    Attributes:
        rank: from 1 for complete trials, None for the others.
        number, experiment, status, reason, epochs, seconds: as in the trial's summary.
        accuracy, top5, f1: on the validation images, in [0, 1]; None when never measured.
        recall_at_5, map_at_r: of retrieval trials, in [0, 1].
        half_width: half of the 95% interval of the accuracy, in [0, 1].
        settings: what this trial does differently from the base, without what cannot matter in it.
        sibling_of: the trial that answered this one on its way.
        confirmed: what fresh seeds made of it; None unless it was repeated.
        failure: kind of the failure of a failed trial.
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


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows, best first, and the settings in which any two trials differ, in the order of the config."""

    rows: tuple[Row, ...]
    varying: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"varying": list(self.varying), "rows": [asdict(row) for row in self.rows]}


def make_leaderboard(
    trials: Iterable[TrialSummary],
    *,
    base: Mapping[str, Any],
    validation_images: int,
    confirmed: Sequence[Confirmed] = (),
) -> Leaderboard:
    """Rank ``trials`` by validation accuracy: complete ones first, then stopped ones, then failed ones.

    Trials that were confirmed with fresh seeds come before all others, by the means of those; the runs with fresh
    seeds have no rows of their own.

    Args:
        trials: in any order.
        base: every setting of a trial of this sweep that changes nothing.
        validation_images: how many images each accuracy was measured on; 0 gives no interval.
        confirmed: what fresh seeds made of some, best first.
    """
    places = {one.number: (place, one) for place, one in enumerate(confirmed) if one.mean is not None}
    search = [trial for trial in trials if trial.confirms is None]
    ranked = sorted(search, key=lambda trial: (places.get(trial.number, (len(places),))[0], _rank_key(trial)))
    ranks = {trial.number: place for place, trial in enumerate(_complete(ranked), start=1)}
    rows = tuple(
        replace(
            _row(trial, ranks.get(trial.number), base, validation_images),
            confirmed=places[trial.number][1] if trial.number in places else None,
        )
        for trial in ranked
    )
    return Leaderboard(rows, varying_settings(ranked))


def find_best(trials: Iterable[TrialSummary]) -> TrialSummary | None:
    """Return the complete trial with the best validation accuracy; ties go to the lower loss, then the lower number.

    Runs with fresh seeds are left out.
    """
    complete = _complete(trial for trial in trials if trial.confirms is None)
    return min(complete, key=_rank_key) if complete else None


def varying_settings(trials: Sequence[TrialSummary]) -> tuple[str, ...]:
    """Return the settings in which any two trials differ and it matters, in the order of the config."""
    matters = [_mattering(trial.params) for trial in trials]
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


def _complete(trials: Iterable[TrialSummary]) -> list[TrialSummary]:
    return [trial for trial in trials if trial.status == "complete" and _metric(trial, "val_accuracy") is not None]


def _rank_key(trial: TrialSummary) -> tuple[int, float, float, int]:
    accuracy, loss = _metric(trial, "val_accuracy"), _metric(trial, "val_loss")
    return (
        _ORDER[trial.status],
        math.inf if accuracy is None else -accuracy,
        math.inf if loss is None else loss,
        trial.number,
    )


def _metric(trial: TrialSummary, name: str) -> float | None:
    value = trial.metrics.get(name)
    return None if value is None or math.isnan(value) else float(value)


def _row(trial: TrialSummary, rank: int | None, base: Mapping[str, Any], images: int) -> Row:
    accuracy = _metric(trial, "val_accuracy")
    ends = None if accuracy is None or images < 1 else wilson_interval(round(accuracy * images), images)
    return Row(
        rank=rank,
        number=trial.number,
        experiment=trial.experiment,
        status=trial.status,
        reason=trial.reason,
        accuracy=accuracy,
        half_width=(ends[1] - ends[0]) / 2 if ends else None,
        top5=_metric(trial, "val_top5"),
        f1=_metric(trial, "val_f1"),
        epochs=trial.epochs,
        seconds=trial.seconds,
        settings=differing_settings(trial.params, base),
        recall_at_5=_metric(trial, "val_recall_at_5"),
        map_at_r=_metric(trial, "val_map_at_r"),
        sibling_of=trial.sibling_of,
        failure=trial.failure,
    )


def condensed(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows without those siblings that are not the best of their trial and its siblings.

    A trial that was beaten by a sibling stays when it is a documented experiment.
    """
    best: dict[int, Row] = {}
    for row in rows:
        best.setdefault(row.number if row.sibling_of is None else row.sibling_of, row)
    kept = {row.number for row in best.values()}
    return tuple(row for row in rows if row.number in kept or row.experiment is not None)
