"""What the stages of a sweep would cost, for its plan. No torch.

The documented experiments are known; the searched trials are not, so an example of them is drawn from the search space
(always the same one for a seed), and what that sweep would compute is counted, each shared stage once.
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
# In their order: kinds of stages, and who shares one.
_PACK, _PLAIN, _VIEWS = "pack of decoded images", "features of plain images", "features of augmented views"
_SHARED_BY = {
    _PACK: "all trials",
    _PLAIN: "frozen trials: validation, training unaugmented",
    _VIEWS: "trials that augment equally, while frozen",
    "training": "trials that train alike, of any family",
    "embeddings": "trials that differ in what follows the extractor only",
    "neighbours": "trials that differ in k, distance, vote or temperature only",
}


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A kind of stage that the sweep computes.

    Attributes:
        kind: what it is.
        count: how many different ones; each is computed once.
        trials: how many trials use them.
        shared: who shares one.
        seconds: rough time to compute them all, the whole machine at work.
        disk_bytes: rough space for them all.
    """

    kind: str
    count: int
    trials: int
    shared: str
    seconds: float
    disk_bytes: int


# Of a stage that a trial needs: how likely it comes to need it, the seconds to compute it, and its bytes.
_Cost = tuple[float, float, int]
# A kind of stage, by what the trial shares it, and what it costs.
_Need = tuple[str, Hashable, _Cost]


@dataclass(frozen=True)
class _PlannedTrial:
    """A trial of the example: what it is made of, and how likely it runs each of its epochs."""

    config: TrialConfig
    alive: tuple[float, ...]
    network: BackboneRecord
    data: DataSummary
    machine: Machine

    def needs(self) -> Iterator[_Need]:
        """Yield the stages that the trial needs."""
        size, images = self.config.image_size, self.data.images
        yield _PACK, size, (1.0, images / (_PACKED * self.machine.cores), images * size * size * 3)
        if self.trains:
            yield from self._of_training()
        if self.config.family == "retrieval":
            yield from self._of_neighbours()

    @cached_property
    def training(self) -> TrialConfig:
        return self.config.training()

    @cached_property
    def trains(self) -> bool:
        """Whether anything is trained: the embeddings of a frozen extractor do not depend on a head."""
        return not (self.config.family == "retrieval" and self.training.unfreezing == "frozen")

    def _of_training(self) -> Iterator[_Need]:
        training, data = self.training, self.data
        blocks = len(self.network.stages) or _UNKNOWN_STAGES
        unfrozen = [open_stages(training.unfreezing, n, training.epochs, blocks) for n in range(training.epochs)]
        if training.unfreezing == "frozen":
            plain = data.validation + (0 if training.augments else data.train)
            yield _PLAIN, self._extractor, self._features(plain, 1.0)
        if training.augments:
            seen = self._extractor + self._settings(*_AUGMENTATION)
            for epoch in (epoch for epoch, blocks_open in enumerate(unfrozen) if not blocks_open):
                yield _VIEWS, (*seen, epoch), self._features(data.train, self.alive[epoch])
        seconds = sum(
            chance * self._epoch_seconds(share / blocks) for share, chance in zip(unfrozen, self.alive, strict=True)
        )
        weights = 0.0 if training.unfreezing == "frozen" else self.network.parameters * 1e6
        # The checkpoint of a trial that was stopped stays, with the optimizer's moments.
        copies = 2 if training.optimizer == "sgd" else 3
        size = int((weights + self.network.embedding * data.classes) * 4 * copies)
        yield "training", training.digest, (1.0, seconds, size)

    def _epoch_seconds(self, unfrozen: float) -> float:
        """Return how long an epoch takes with this share of the backbone unfrozen."""
        data = self.data
        if not unfrozen:
            return data.train * self.network.embedding * data.classes / (_HEAD_MACS * self.machine.cores)
        # A frozen stage is passed forwards only.
        forward = 1 / self._rates.infer
        return data.train * (forward + (1 / self._rates.train - forward) * unfrozen) + data.validation * forward

    def _of_neighbours(self) -> Iterator[_Need]:
        train, validation = self.data.train, self.data.validation
        finishes = self.alive[-1] if self.trains else 1.0
        embedded = (self.training.digest,) if self.trains else self._extractor
        poolings = 1 if self.config.backbone == SCRATCH else _POOLINGS
        yield "embeddings", embedded, self._features(train + validation, finishes, poolings)
        queries = _DISTANCES * validation
        longest = min(train, max(_LONGEST_K, 2 * train // max(1, self.data.classes)))
        cost = finishes, self._search_seconds(queries), queries * longest * _NEIGHBOUR_BYTES
        yield "neighbours", embedded + self._settings(*_PROJECTION), cost

    def answering_seconds(self) -> float:
        """Return how long the test images take, whose neighbours are found among the training images."""
        search = self._search_seconds(self.data.test) if self.config.family == "retrieval" else 0.0
        return self.data.test / rates_of(self.config, self.machine, self.network).infer + search

    def _search_seconds(self, queries: int) -> float:
        """Return how long it takes to search the gallery; fitting PCA or LDA on it takes about as long."""
        found = queries * self.data.train * self.network.embedding / (_SEARCH_MACS * self.machine.cores)
        return found if self.config.whitening == "none" else 2 * found

    def _features(self, images: int, chance: float, copies: int = 1) -> _Cost:
        return chance, images / self._rates.infer, copies * images * self.network.embedding * 4

    @cached_property
    def _rates(self) -> Rates:
        return rates_of(self.training, self.machine, self.network)

    def _settings(self, *names: str) -> tuple[Hashable, ...]:
        settings = self.config.canonical()
        return tuple(settings[name] for name in names)

    @property
    def _extractor(self) -> tuple[Hashable, ...]:
        return self.training.backbone, self.training.weights, self.training.image_size, self.training.precision


def planned_stages(
    spec: SweepSpec, summary: DataSummary, machine: Machine, networks: Mapping[str, BackboneRecord]
) -> tuple[PlannedStage, ...]:
    """Return the stages that ``spec`` would compute on the data set, in their order.

    Args:
        spec: the sweep.
        summary: the data set's numbers.
        machine: what the trials run on.
        networks: figures of backbones by name; the catalog has those of others.
    """
    trials = [_PlannedTrial(c, alive, _network_of(c, networks), summary, machine) for c, alive in _example(spec)]
    # Of each kind every stage once, by whoever needs it the likeliest and largest.
    made: dict[str, dict[Hashable, _Cost]] = {kind: {} for kind in _SHARED_BY}
    users = dict.fromkeys(_SHARED_BY, 0)
    for needs in ([*trial.needs()] for trial in trials):
        for kind, key, cost in needs:
            made[kind][key] = max(made[kind].get(key, cost), cost)
        for kind in {kind for kind, _, _ in needs}:
            users[kind] += 1
    stages = []
    for kind, costs in made.items():
        count = math.ceil(sum(chance for chance, _, _ in costs.values()))
        seconds = sum(chance * seconds for chance, seconds, _ in costs.values())
        disk = sum(chance * disk_bytes for chance, _, disk_bytes in costs.values())
        stages.append(PlannedStage(kind, count, users[kind], _SHARED_BY[kind], seconds, int(disk)))
    slowest = max(trial.answering_seconds() for trial in trials)
    return (*(stage for stage in stages if stage.count), PlannedStage("test score of the winner", 1, 1, "", slowest, 0))


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
    more = []
    for config in longest[: spec.extent.top]:
        more += repeats_of(0, config, spec.seed, spec.extent.seeds)
    if spec.refit:
        more += repeats_of(0, longest[0], spec.seed + 1, 1)
    return [*trials, *((repeat.config, (1.0,) * repeat.config.epochs) for repeat in more)]
