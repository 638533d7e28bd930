"""What a sweep would compute, roughly, for its plan. No torch.

The documented experiments are known; the searched trials are not, so an example of them is drawn from the search space
(always the same one for a seed), and what that sweep would compute is counted, each shared result once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

from carcls.architecture import architecture_of
from carcls.catalog import BackboneRecord, find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.unfreezing import open_stages
from sweeps.engine.resources import Machine, Rates, rates_of
from sweeps.spec.fields import survival
from sweeps.spec.spec import SweepSpec
from sweeps.study.confirmation import repeats_of

if TYPE_CHECKING:
    from carcls.data.config import DataSummary

# Images decoded and resized in a second, and multiply-accumulates of a head and of a neighbour search, by one core.
_PACKED, _HEAD_MACS, _SEARCH_MACS = 135.0, 2.5e10, 4.5e9
# Where only building a backbone would tell.
_UNKNOWN_STAGES, _UNKNOWN_EMBEDDING = 5, 1024
# Embeddings are kept by every pooling; of each query and distance, so many neighbours with index and distance.
_POOLINGS, _DISTANCES, _LONGEST_K, _NEIGHBOUR_BYTES = 3, 2, 50, 16
# What views depend on, and what neighbours do, besides the extractor.
_AUGMENTATION = ("crop", "crop_scale", "flip", "rotation", "jitter", "augmentation_strength")
_PROJECTION = ("pooling", "l2_normalize", "whitening", "whitening_dim")


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
    disk_bytes: float = 0.0


# What the trials have in common that share some work, and the work.
_Need = tuple[Hashable, Workload]


@dataclass(frozen=True)
class _ExampleTrial:
    """A trial of the example: what it is made of, and how likely it runs each of its epochs."""

    config: TrialConfig
    alive: tuple[float, ...]
    network: BackboneRecord
    data: DataSummary
    machine: Machine

    @cached_property
    def training(self) -> TrialConfig:
        return self.config.training()

    @cached_property
    def rates(self) -> Rates:
        return rates_of(self.training, self.machine, self.network)

    def needs(self) -> Iterator[_Need]:
        """Yield what the trial needs that others may share."""
        size, images = self.config.image_size, self.data.images
        yield size, Workload("pack", 1.0, images / (_PACKED * self.machine.cores), images * size * size * 3)
        is_retrieval = self.config.family == "retrieval"
        # The embeddings of a frozen extractor do not depend on a head.
        trains = not (is_retrieval and self.training.unfreezing == "frozen")
        if trains:
            yield from self._training()
        if is_retrieval:
            yield from self._retrieval(self.alive[-1] if trains else 1.0, trains=trains)

    def _training(self) -> Iterator[_Need]:
        training, data, network = self.training, self.data, self.network
        blocks, is_frozen = len(network.stages) or _UNKNOWN_STAGES, training.unfreezing == "frozen"
        unfrozen = [open_stages(training.unfreezing, n, training.epochs, blocks) for n in range(training.epochs)]
        if is_frozen:
            plain = data.validation + (0 if training.augments else data.train)
            yield self._extractor, self._pass("features", plain, 1.0)
        if training.augments:
            views = self._extractor + self._settings(*_AUGMENTATION)
            for epoch in (epoch for epoch, blocks_open in enumerate(unfrozen) if not blocks_open):
                yield (*views, epoch), self._pass("features", data.train, self.alive[epoch])
        seconds = sum(c * self._epoch_seconds(opened / blocks) for opened, c in zip(unfrozen, self.alive, strict=True))
        parameters = (0.0 if is_frozen else network.parameters * 1e6) + network.embedding * data.classes
        # The checkpoint of a trial that was stopped stays, with the optimizer's moments.
        copies = 2 if training.optimizer == "sgd" else 3
        yield training.digest, Workload("training", 1.0, seconds, parameters * 4 * copies)

    def _epoch_seconds(self, unfrozen: float) -> float:
        """Return how long an epoch takes with this share of the backbone unfrozen."""
        data = self.data
        if not unfrozen:
            return data.train * self.network.embedding * data.classes / (_HEAD_MACS * self.machine.cores)
        # A frozen stage is passed forwards only.
        forward = 1 / self.rates.infer
        return data.train * (forward + (1 / self.rates.train - forward) * unfrozen) + data.validation * forward

    def _retrieval(self, chance: float, *, trains: bool) -> Iterator[_Need]:
        data, embedded = self.data, (self.training.digest,) if trains else self._extractor
        poolings = 1 if self.config.backbone == SCRATCH else _POOLINGS
        yield embedded, self._pass("embeddings", data.train + data.validation, chance, poolings)
        queries = _DISTANCES * data.validation
        longest = min(data.train, max(_LONGEST_K, 2 * data.train // max(1, data.classes)))
        size = queries * longest * _NEIGHBOUR_BYTES
        seconds = chance * self._search_seconds(queries)
        yield embedded + self._settings(*_PROJECTION), Workload("neighbours", chance, seconds, chance * size)

    def _pass(self, kind: str, images: int, chance: float, copies: int = 1) -> Workload:
        """Return the work of embedding images once."""
        size = copies * images * self.network.embedding * 4
        return Workload(kind, chance, chance * images / self.rates.infer, chance * size)

    def _search_seconds(self, queries: int) -> float:
        """Return how long it takes to search the gallery; fitting PCA or LDA on it takes about as long."""
        found = queries * self.data.train * self.network.embedding / (_SEARCH_MACS * self.machine.cores)
        return found if self.config.whitening == "none" else 2 * found

    def test_seconds(self) -> float:
        """Return how long the test images take, whose neighbours are found among the training images."""
        search = self._search_seconds(self.data.test) if self.config.family == "retrieval" else 0.0
        return self.data.test / rates_of(self.config, self.machine, self.network).infer + search

    def _settings(self, *names: str) -> tuple[Hashable, ...]:
        settings = self.config.canonical()
        return tuple(settings[name] for name in names)

    @property
    def _extractor(self) -> tuple[Hashable, ...]:
        return self.training.backbone, self.training.weights, self.training.image_size, self.training.precision


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
    trials = [_ExampleTrial(c, alive, _network_of(c, networks), data, machine) for c, alive in _example(spec)]
    # By kind everything once, as whoever needs it the likeliest needs it.
    needed: dict[str, dict[Hashable, Workload]] = {}
    for key, work in (need for trial in trials for need in trial.needs()):
        own = needed.setdefault(work.kind, {})
        own[key] = max(own.get(key, work), work)
    found = []
    for kind, works in needed.items():
        count, seconds, size = (sum(getattr(w, n) for w in works.values()) for n in ("count", "seconds", "disk_bytes"))
        found.append(Workload(kind, math.ceil(count), seconds, int(size)))
    return *found, Workload("test", 1, max(trial.test_seconds() for trial in trials))


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
