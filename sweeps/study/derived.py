"""Settings that nobody needs to run, since another trial answers them: derived trials and near-duplicates.

One neighbour search answers every k, distance and vote. What a trial answered besides its own settings is written down
as a list in its end; each becomes a trial for whoever reads the study, and the sampler learns from the best.

A learning rate of 0.00100 and one of 0.00101 train the same network but for luck. What is drawn that close to a
finished trial takes over its result, as equal trials do; what was asked for by name (documented experiments, starts)
never does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from sweeps.spec.space import Domain, Range, fits, parameters_of
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


def find_near_duplicate(
    records: Sequence[TrialRecord], config: TrialConfig, search: Mapping[str, Domain], near: float
) -> int | None:
    """Return the number of the closest finished trial that ``config`` needs not be run beside, or None.

    Args:
        records: all of the sweep; only complete and stopped ones are taken over from.
        config: of the new trial.
        search: domains by setting.
        near: largest difference in a range of numbers, as a share of the range on its own scale; 0 is none.
    """
    matter = parameters_of(config, search)
    numbers = {name: domain for name, domain in search.items() if name in matter and isinstance(domain, Range)}
    ranges = {name: domain for name, domain in numbers.items() if domain.step is None and domain.low < domain.high}
    if not near or not ranges:
        return None
    left_out = {*ranges, "micro_batch"}  # which a trial may have been given when it ran out of memory
    rest = _without(config.canonical(), left_out)
    found = [
        (distance, record.number)
        for record in records
        if record.status in ("complete", "pruned")
        if (distance := _distance(record.config, config, ranges, near)) <= near
        if _without(TrialConfig.model_validate(dict(record.config)).canonical(), left_out) == rest
    ]
    return min(found)[1] if found else None


def _distance(other: Mapping[str, Any], config: TrialConfig, ranges: Mapping[str, Range[float]], near: float) -> float:
    """Return the largest difference in any of the ranges, as a share of the range; infinite outside of one.

    Infinite as well as soon as one is above ``near``: most trials differ in the first range already.
    """
    largest = 0.0
    for name, domain in ranges.items():
        if not fits(domain, other[name]):
            return math.inf
        largest = max(largest, abs(_place(other[name], domain) - _place(getattr(config, name), domain)))
        if largest > near:
            return math.inf
    return largest


def _place(value: float, domain: Range[float]) -> float:
    """Return where in the range a value lies, from 0 to 1, on the range's own scale."""
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)


def _without(settings: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}
