"""What a sweep would compute, roughly, for its plan. No torch.

The documented experiments are known; the searched trials are not, so an example of them is drawn from the search space
(always the same one for a seed), and what that sweep would compute is counted, each shared result once. The search for
neighbours is left out: it takes a small part of what its embeddings take.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from carcls.architecture import architecture_of
from carcls.catalog import BackboneRecord, find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.unfreezing import unfrozen_stages
from sweeps.engine.resources import Machine, rates_of
from sweeps.spec.fields import survival
from sweeps.spec.spec import SweepSpec
from sweeps.study.confirmation import repeats_of

if TYPE_CHECKING:
    from carcls.data.config import DataSummary

# Images decoded and resized in a second, and multiply-accumulates of a head, by one core.
_PACKED, _HEAD_MACS = 135.0, 2.5e10
# Where only building a backbone would tell.
_UNKNOWN_STAGES, _UNKNOWN_EMBEDDING = 5, 1024
_POOLINGS = 3  # by each of which embeddings are kept
# What views depend on besides the extractor.
_AUGMENTATION = ("crop", "crop_scale", "flip", "rotation", "jitter", "augmentation_strength")


@dataclass(frozen=True, order=True, slots=True)
class Workload:
    """Something that a trial needs computed, weighted by how likely it comes to need it; or all of a kind together.

    Attributes:
        kind: as the store calls it, or ``test`` for the winner's test evaluation.
        count: how many; for one trial the likelihood, in [0, 1].
        seconds: rough time, the whole machine at work.
        disk_bytes: rough space.
    """

    kind: str
    count: float
    seconds: float
    disk_bytes: float = 0


# What the trials have in common that share some work, and the work.
_Need = tuple[Hashable, Workload]


def estimate(
    spec: SweepSpec, data: DataSummary, machine: Machine, networks: Mapping[str, BackboneRecord]
) -> tuple[Workload, ...]:
    """Return what ``spec`` would compute on the data set, a row for each kind.

    Args:
        spec: the sweep.
        data: the data set's numbers.
        machine: what the trials run on.
        networks: figures of backbones by name; the catalog has those of others.
    """
    # By kind everything once, as whoever needs it the likeliest needs it.
    needed: dict[str, dict[Hashable, Workload]] = {}
    test = 0.0
    for config, alive in _example(spec):
        network = _network_of(config, networks)
        for key, work in _needs(config, alive, network, data, machine):
            own = needed.setdefault(work.kind, {})
            own[key] = max(own.get(key, work), work)
        test = max(test, data.test / rates_of(config, machine, network).infer)
    found = []
    for kind, works in needed.items():
        count, seconds, size = (sum(getattr(w, n) for w in works.values()) for n in ("count", "seconds", "disk_bytes"))
        found.append(Workload(kind, math.ceil(count), seconds, int(size)))
    return *found, Workload("test", 1, test)


def _needs(
    config: TrialConfig, alive: Sequence[float], network: BackboneRecord, data: DataSummary, machine: Machine
) -> Iterator[_Need]:
    """Yield what a trial needs that others may share; ``alive`` has the chance that it trains each of its epochs."""
    training, settings = config.training(), config.canonical()
    rates, width, cores = rates_of(training, machine, network), network.embedding, machine.cores
    extractor: tuple[Hashable, ...] = (training.backbone, training.weights, training.image_size, training.precision)

    def embedded(kind: str, images: int, chance: float = 1.0, copies: int = 1) -> Workload:
        return Workload(kind, chance, chance * images / rates.infer, chance * copies * images * width * 4)

    def epoch_seconds(unfrozen: float) -> float:
        if not unfrozen:
            return data.train * width * data.classes / (_HEAD_MACS * cores)
        forward = 1 / rates.infer  # a frozen stage is passed forwards only
        return data.train * (forward + (1 / rates.train - forward) * unfrozen) + data.validation * forward

    side, is_frozen = config.image_size, training.unfreezing == "frozen"
    yield side, Workload("pack", 1.0, data.images / (_PACKED * cores), data.images * side * side * 3)
    source, finishes = extractor, 1.0
    if not is_frozen or not config.has_neighbours:  # a frozen extractor's embeddings do not depend on a head
        source, finishes = (training.digest,), alive[-1]
        blocks = len(network.stages) or _UNKNOWN_STAGES
        opened = [unfrozen_stages(training.unfreezing, n, training.epochs, blocks) for n in range(training.epochs)]
        if is_frozen:
            yield extractor, embedded("features", data.validation + (0 if training.augments else data.train))
        for epoch in (n for n, count in enumerate(opened) if training.augments and not count):
            views = (*extractor, epoch, *(settings[name] for name in _AUGMENTATION))
            yield views, embedded("features", data.train, alive[epoch])
        seconds = sum(chance * epoch_seconds(count / blocks) for count, chance in zip(opened, alive, strict=True))
        parameters = (0.0 if is_frozen else network.parameters * 1e6) + width * data.classes
        # The checkpoint of a trial that was stopped stays, with the optimizer's moments.
        copies = 2 if training.optimizer == "sgd" else 3
        yield training.digest, Workload("training", 1.0, seconds, parameters * 4 * copies)
    if config.has_neighbours:
        poolings = 1 if config.backbone == SCRATCH else _POOLINGS
        yield source, embedded("embeddings", data.train + data.validation, finishes, poolings)


def _network_of(config: TrialConfig, networks: Mapping[str, BackboneRecord]) -> BackboneRecord:
    """Return the figures of a trial's network; a scratch network's follow from its settings."""
    network = networks.get(config.backbone) or find_backbone(config.backbone)
    if config.backbone != SCRATCH:
        return replace(network, embedding=network.embedding or _UNKNOWN_EMBEDDING)
    drawn = architecture_of(config)
    return replace(network, embedding=drawn.embedding(config.image_size), parameters=drawn.weights / 1e6)


def _example(spec: SweepSpec) -> list[tuple[TrialConfig, tuple[float, ...]]]:
    """Return trials that the sweep might run, each with how likely it runs each of its epochs.

    What confirms and refits the best repeats the longest ones, since which are the best is not known.
    """
    configs, random = [config for _, config in spec.experiment_configs()][: spec.trials], Random(spec.seed)
    trials = [(config, (1.0,) * config.epochs) for config in configs]
    for _ in range(spec.trials - len(configs)):
        config = spec.trial_config({name: domain.draw(random) for name, domain in spec.search.items()})
        trials.append((config, tuple(survival(spec.early_stopping, config.epochs))))
    longest = sorted((c for c, _ in trials), key=lambda c: c.epochs * c.image_size**2, reverse=True)
    repeats = [repeat for c in longest[: spec.extent.top] for repeat in repeats_of(0, c, spec.seed, spec.extent.seeds)]
    if spec.refit:
        repeats += repeats_of(0, longest[0], spec.seed + 1, 1)
    return [*trials, *((repeat.config, (1.0,) * repeat.config.epochs) for repeat in repeats)]
