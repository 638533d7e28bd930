"""What to try next, and what need not be run, since another trial answers it.

Documented experiments come first, then starts, then settings drawn by a sampler that learns, or at random.

One neighbour search answers every k, distance and vote. What a trial answered besides its own settings is written down
as a list in its end; each becomes a trial for whoever reads the study, and the sampler learns from the best.

A learning rate of 0.00100 and one of 0.00101 train the same network but for luck. What is drawn that close to a
finished trial takes over its result, as equal trials do; what was asked for by name (documented experiments, starts)
never does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from carcls.config import TrialConfig
from sweeps.spec.space import Range, fits, parameters_of
from sweeps.study.records import History
from sweeps.study.sampling import Sampler, seed_of
from sweeps.trial import TrialRecord, what_is_broken

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec

# Finds one combination among a hundred that are answered with a probability above 0.9999.
RANDOM_DRAWS = 1000

# Returns what is known of a trial's metrics before it runs.
Costs = Callable[[TrialConfig], Mapping[str, float]]


class Proposals:
    """Says what to ask next, and which trials need not be run."""

    def __init__(self, history: History, spec: SweepSpec, costs: Costs) -> None:
        self._history, self._spec, self._costs = history, spec, costs
        self._sampler = Sampler(spec.search, spec.seed, spec.goals, spec.sampler)

    def next(self) -> tuple[TrialConfig, dict[str, str]]:
        """Return the next config, and the ``experiment`` or ``start`` that it is asked for as, if any."""
        spec, begun = self._spec, self._history.begun
        for name, config in spec.experiment_configs():
            if name not in begun:
                return config, {"experiment": name}
        for place, settings in enumerate(spec.starts):
            if f"starts[{place}]" not in begun:
                return spec.trial_config(settings), {"start": f"starts[{place}]"}
        return spec.searched_config(self._sampler.draw(self._searched(), self._place())), {}

    def at_random(self) -> TrialConfig | None:
        """Return a config that nobody has answered, where the sampler names only what is known; or None."""
        known, spec, dice = self._searched(), self._spec, Random(seed_of(self._spec.seed, self._place()))
        for _ in range(RANDOM_DRAWS):
            config = spec.searched_config({name: domain.draw(dice) for name, domain in spec.search.items()})
            is_answered = config.digest in self._history.digests or self._refusal(config)
            if not is_answered and find_near_duplicate(known, config, spec) is None:
                return config
        return None

    def answer(self, config: TrialConfig, *, is_named: bool) -> dict[str, Any]:
        """Return why a trial is not to be run, as it is noted; empty for one that is.

        It is ``duplicate_of`` another one, perhaps only ``near`` it, which is none of what was asked for by name; or
        ``refused``, since it breaks a limit by these metrics, which are known before it runs.
        """
        same = self._history.digests.get(config.digest)
        if same is not None:
            return {"duplicate_of": same}
        same = None if is_named else find_near_duplicate(self._searched(), config, self._spec)
        if same is not None:
            return {"duplicate_of": same, "near": True}
        return self._refusal(config)

    def _refusal(self, config: TrialConfig) -> dict[str, Any]:
        goals = self._spec.goals
        known = dict(self._costs(config)) if goals.constraints else {}
        return {"refused": known} if goals.broken_by(known) else {}

    def _searched(self) -> list[TrialRecord]:
        return [record for record in self._history.records if record.confirms is None]

    def _place(self) -> int:
        """Return how many trials there are, without confirming runs: the search goes on as without them."""
        return self._history.next_number - self._history.confirming


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


def find_near_duplicate(records: Sequence[TrialRecord], config: TrialConfig, spec: SweepSpec) -> int | None:
    """Return the number of the closest finished trial that ``config`` needs not be run beside, or None.

    Args:
        records: all of the sweep; only complete and stopped ones are taken over from.
        config: of the new trial.
        spec: its ``near`` is the largest difference in a range of numbers, as a share of it on its own scale.
    """
    near, domains = spec.near, {name: spec.search[name] for name in parameters_of(config, spec.search)}
    numbers = {name: domain for name, domain in domains.items() if isinstance(domain, Range)}
    ranges = {name: domain for name, domain in numbers.items() if domain.step is None and domain.low < domain.high}
    if not near or not ranges:
        return None
    # A trial may have been given other micro-batches when it ran out of memory, and other GPUs in another session.
    own, ended = dict(config), [record for record in records if record.status in ("complete", "pruned")]
    apart = {name: own[name] for name in (*ranges, "micro_batch", "processes")}
    found = [
        (distance, record.number)
        for record in ended
        if (distance := _distance(own, record.config, ranges, near)) <= near
        if TrialConfig.model_validate({**record.config, **apart}).digest == config.digest
    ]
    return min(found)[1] if found else None


def _distance(
    one: Mapping[str, Any], other: Mapping[str, Any], ranges: Mapping[str, Range[float]], near: float
) -> float:
    """Return the largest difference in any of the ranges, as a share of the range; infinite outside of one.

    Infinite as well as soon as one is above ``near``: most trials differ in the first range already.
    """
    largest = 0.0
    for name, domain in ranges.items():
        if not fits(domain, other[name]):
            return math.inf
        largest = max(largest, abs(_place(one[name], domain) - _place(other[name], domain)))
        if largest > near:
            return math.inf
    return largest


def _place(value: float, domain: Range[float]) -> float:
    """Return where in the range a value lies, from 0 to 1, on the range's own scale."""
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)
