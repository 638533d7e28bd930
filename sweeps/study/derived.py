"""Derived trials: settings that nobody needs to run, since another trial answers them on its way.

One neighbour search answers every k, distance and vote. What a trial answered besides its own settings is written down
as a list in its end; each becomes a trial for whoever reads the study, and the sampler learns from the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from sweeps.spec.conditions import fits, parameters_of
from sweeps.trial import TrialRecord, what_is_broken

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec


def derived_of(
    config: TrialConfig, answers: Iterable[Mapping[str, Any]], spec: SweepSpec, known: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """Yield the ``digest``, ``settings`` and ``metrics`` of what a trial answered besides.

    Only settings that the sweep searches may differ from the trial's, by values that it could have drawn; what a known
    trial has answered, or a documented experiment will, is left out.

    Args:
        config: of the trial.
        answers: ``settings`` that differ from it, and ``metrics``, of each.
        spec: of the sweep.
        known: digests of all known trials.
    """
    seen = {*known, *(experiment.digest for _, experiment in spec.experiment_configs())}
    for answer in answers:
        if not _is_searched(answer["settings"], config, spec) or what_is_broken(answer["metrics"]):
            continue
        other = config.model_copy(update=answer["settings"])
        if other.digest not in seen:
            seen.add(other.digest)
            settings = parameters_of(other, spec.search)
            yield {"digest": other.digest, "settings": settings, "metrics": dict(answer["metrics"])}


def _is_searched(settings: Mapping[str, Any], config: TrialConfig, spec: SweepSpec) -> bool:
    return all(
        value == getattr(config, name) or (name in spec.search and fits(spec.search[name], value))
        for name, value in settings.items()
    )


def derived_record(parent: TrialRecord, derived: Mapping[str, Any]) -> TrialRecord:
    """Return the record of a trial that ``parent`` answered besides: its own settings with its parent's model.

    Args:
        parent: a complete trial.
        derived: as ``derived_of`` yields it, with its ``number``.
    """
    return TrialRecord(
        number=derived["number"],
        experiment=None,
        settings=derived["settings"],
        config={**parent.config, **derived["settings"]},
        status="complete",
        metrics=derived["metrics"],
        epochs=parent.epochs,
        seconds=0.0,
        reason=f"answered by trial {parent.number}",
        reused=True,
        model=parent.model,
        sibling_of=parent.number,
    )
