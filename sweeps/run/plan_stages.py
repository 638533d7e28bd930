"""What the stages of a sweep would cost, for its plan. No torch.

The documented experiments are known; the searched trials are not, so an example of them is drawn from the search space
(always the same one for a seed), and what that sweep would compute is counted, each shared stage once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

from carcls.architecture import architecture_of
from carcls.catalog import BackboneRecord, find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.unfreezing import open_stages
from sweeps.engine.rates import (
    Machine,
    Rates,
    head_seconds,
    packing_seconds,
    rates_of,
    search_seconds,
    whitening_seconds,
)
from sweeps.spec.fields import survival
from sweeps.spec.spec import SweepSpec
from sweeps.study.confirmation import repeats_of

if TYPE_CHECKING:
    from carcls.data.summary import DataSummary

# Where only building a backbone would tell.
_UNKNOWN_STAGES, _UNKNOWN_EMBEDDING = 5, 1024
# Embeddings are kept by every pooling; of each query and distance, so many neighbours with index and distance.
_POOLINGS, _DISTANCES, _LONGEST_K, _NEIGHBOUR_BYTES = 3, 2, 50, 16
# What views depend on, and what neighbours do, besides the extractor.
_AUGMENTATION = ("crop", "crop_scale", "flip", "rotation", "jitter", "augmentation_strength")
_PROJECTION = ("pooling", "l2_normalize", "whitening", "whitening_dim")


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


@dataclass(frozen=True, slots=True, order=True)
class _Cost:
    """Of one stage: how likely the sweep comes to need it, and what computing and keeping it costs."""

    probability: float
    seconds: float
    disk_bytes: int


# What a trial needs of a kind of stage: by what it is shared, what it costs.
_Needs = Mapping[Hashable, _Cost]


@dataclass(frozen=True)
class _PlannedTrial:
    """A trial of the example: what it is made of, and how likely it runs each of its epochs."""

    config: TrialConfig
    alive: tuple[float, ...]
    network: BackboneRecord
    data: DataSummary
    machine: Machine

    @cached_property
    def training(self) -> TrialConfig:
        return self.config.training()

    @property
    def trains(self) -> bool:
        """Whether anything is trained: the embeddings of a frozen extractor do not depend on a head."""
        return not (self.config.family == "retrieval" and self.training.unfreezing == "frozen")

    @property
    def finishes(self) -> float:
        """How likely the trial comes to its end."""
        return self.alive[-1] if self.trains else 1.0

    # What it needs, by kind

    def pack(self) -> _Needs:
        size = self.config.image_size
        return {size: _Cost(1.0, packing_seconds(self.data.images, self.machine), self.data.images * size * size * 3)}

    def plain_features(self) -> _Needs:
        if not self.trains or self.training.unfreezing != "frozen":
            return {}
        images = self.data.validation + (0 if self.training.augments else self.data.train)
        return {self._extractor: self._features(images, 1.0)}

    def views(self) -> _Needs:
        if not self.trains or not self.training.augments:
            return {}
        seen = (*self._extractor, *self._settings(*_AUGMENTATION))
        frozen = (epoch for epoch in range(self.training.epochs) if self._unfrozen(epoch) == 0)
        return {(*seen, epoch): self._features(self.data.train, self.alive[epoch]) for epoch in frozen}

    def trained(self) -> _Needs:
        seconds = sum(chance * self._epoch_seconds(self._unfrozen(epoch)) for epoch, chance in enumerate(self.alive))
        return {self.training.digest: _Cost(1.0, seconds, self._model_bytes)} if self.trains else {}

    def embeddings(self) -> _Needs:
        if self.config.family != "retrieval":
            return {}
        poolings = 1 if self.config.backbone == SCRATCH else _POOLINGS
        return {self._embedded: self._features(self.data.train + self.data.validation, self.finishes, poolings)}

    def neighbours(self) -> _Needs:
        if self.config.family != "retrieval":
            return {}
        train, queries = self.data.train, _DISTANCES * self.data.validation
        longest = min(train, max(_LONGEST_K, 2 * train // max(1, self.data.classes)))
        cost = _Cost(self.finishes, self._search_seconds(queries), queries * longest * _NEIGHBOUR_BYTES)
        return {(*self._embedded, *self._settings(*_PROJECTION)): cost}

    # What that takes

    def answering_seconds(self) -> float:
        """Return how long the test images take, whose neighbours are found among the training images."""
        search = self._search_seconds(self.data.test) if self.config.family == "retrieval" else 0.0
        return self.data.test / rates_of(self.config, self.machine, self.network).infer + search

    def _search_seconds(self, queries: int) -> float:
        """Return how long it takes to fit the projection on the gallery, and to search it."""
        found = search_seconds(queries, self.data.train, self.network.embedding, self.machine)
        if self.config.whitening == "none":
            return found
        return found + whitening_seconds(self.data.train, self.network.embedding, self.machine)

    def _epoch_seconds(self, unfrozen: int) -> float:
        if unfrozen == 0:
            return head_seconds(self.data.train, self.network.embedding, self.data.classes, self.machine)
        # A frozen stage is passed forwards only.
        forward = 1 / self._rates.infer
        training = self.data.train * (forward + (1 / self._rates.train - forward) * unfrozen / self._blocks)
        return training + self.data.validation * forward

    def _features(self, images: int, probability: float, copies: int = 1) -> _Cost:
        return _Cost(probability, images / self._rates.infer, copies * images * self.network.embedding * 4)

    @property
    def _model_bytes(self) -> int:
        trained = 0.0 if self.training.unfreezing == "frozen" else self.network.parameters * 1e6
        # The checkpoint of a trial that was stopped stays, with the optimizer's moments.
        copies = 2 if self.training.optimizer == "sgd" else 3
        return int((trained + self.network.embedding * self.data.classes) * 4 * copies)

    # What it is

    @property
    def _rates(self) -> Rates:
        return rates_of(self.training, self.machine, self.network)

    @property
    def _blocks(self) -> int:
        return len(self.network.stages) or _UNKNOWN_STAGES

    def _unfrozen(self, epoch: int) -> int:
        return open_stages(self.training.unfreezing, epoch, self.training.epochs, self._blocks)

    def _settings(self, *names: str) -> tuple[Hashable, ...]:
        settings = self.config.canonical()
        return tuple(settings[name] for name in names)

    @property
    def _extractor(self) -> tuple[Hashable, ...]:
        return self.training.backbone, self.training.weights, self.training.image_size, self.training.precision

    @property
    def _embedded(self) -> tuple[Hashable, ...]:
        return (self.training.digest,) if self.trains else self._extractor


# In their order: the kind, who shares one, and what a trial needs of it.
_KINDS: tuple[tuple[str, str, Callable[[_PlannedTrial], _Needs]], ...] = (
    ("pack of decoded images", "all trials", _PlannedTrial.pack),
    ("features of plain images", "frozen trials: validation, training unaugmented", _PlannedTrial.plain_features),
    ("features of augmented views", "trials that augment equally, while frozen", _PlannedTrial.views),
    ("training", "trials that train alike, of any family", _PlannedTrial.trained),
    ("embeddings", "trials that differ in what follows the extractor only", _PlannedTrial.embeddings),
    ("neighbours", "trials that differ in k, distance, vote or temperature only", _PlannedTrial.neighbours),
)


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

    def expected(config: TrialConfig, alive: tuple[float, ...] = ()) -> _PlannedTrial:
        return _PlannedTrial(config, alive or (1.0,) * config.epochs, _network_of(config, networks), summary, machine)

    trials = _example(spec, expected)
    trials += [expected(config) for config in _afterwards(spec, trials)]
    stages = [_planned(kind, shared, [need(trial) for trial in trials]) for kind, shared, need in _KINDS]
    slowest = max(trial.answering_seconds() for trial in trials)
    return (*(stage for stage in stages if stage.count), PlannedStage("test score of the winner", 1, 1, "", slowest, 0))


def _network_of(config: TrialConfig, networks: Mapping[str, BackboneRecord]) -> BackboneRecord:
    """Return the figures of a trial's network; a scratch network's follow from its settings."""
    network = networks.get(config.backbone) or find_backbone(config.backbone)
    if config.backbone != SCRATCH:
        return replace(network, embedding=network.embedding or _UNKNOWN_EMBEDDING)
    drawn = architecture_of(config)
    return replace(network, embedding=drawn.embedding(config.image_size), parameters=drawn.weights / 1e6)


def _planned(kind: str, shared: str, needs: Sequence[_Needs]) -> PlannedStage:
    """Return what all trials together need: each stage once, by whoever needs it the likeliest and largest."""
    made: dict[Hashable, _Cost] = {}
    for key, cost in (item for need in needs for item in need.items()):
        made[key] = max(made.get(key, cost), cost)
    count = math.ceil(sum(cost.probability for cost in made.values()))
    seconds = sum(cost.probability * cost.seconds for cost in made.values())
    disk = sum(cost.probability * cost.disk_bytes for cost in made.values())
    return PlannedStage(kind, count, sum(map(bool, needs)), shared, seconds, int(disk))


def _example(spec: SweepSpec, expected: Callable[..., _PlannedTrial]) -> list[_PlannedTrial]:
    documented = [config for _, config in spec.experiment_configs()][: spec.trials]
    random = Random(spec.seed)
    drawn = [
        spec.trial_config({name: domain.draw(random) for name, domain in spec.search.items()})
        for _ in range(spec.trials - len(documented))
    ]
    return [
        *map(expected, documented),
        *(expected(config, survival(spec.early_stopping, config.epochs)) for config in drawn),
    ]


def _afterwards(spec: SweepSpec, trials: Sequence[_PlannedTrial]) -> list[TrialConfig]:
    """Return the trainings that follow the search: of the longest trials, since which are the best is not known."""
    longest = sorted(trials, key=lambda trial: trial.config.epochs * trial.config.image_size**2, reverse=True)
    configs = [
        repeat.config
        for place, trial in enumerate(longest[: spec.extent.top])
        for repeat in repeats_of(place, trial.config, spec.seed, spec.extent.seeds)
    ]
    if spec.refit:
        configs += [repeat.config for repeat in repeats_of(0, longest[0].config, spec.seed + 1, 1)]
    return configs
