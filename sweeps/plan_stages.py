"""What the stages of a sweep would cost, for its plan. No torch.

The documented experiments are known; the searched trials are not, so an example of them is drawn from the search space
(always the same one for a seed), and what that sweep would compute is counted, each shared stage once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from carcls.architecture import architecture_of
from carcls.catalog import BackboneRecord, find_backbone
from carcls.config import SCRATCH, TrialConfig
from carcls.unfreezing import open_stages
from sweeps.confirm import Extent, parse_confirm, repeats_of
from sweeps.rates import Machine, head_seconds, packing_seconds, rates_of, search_seconds, whitening_seconds
from sweeps.spec import SweepSpec
from sweeps.spec_stopping import survival

if TYPE_CHECKING:
    from carcls.data.dataset import DataSummary

# Where only building a backbone would tell.
_UNKNOWN_STAGES, _UNKNOWN_EMBEDDING = 5, 1024
# Embeddings are kept by every pooling; of each query and distance, so many neighbours with index and distance.
_POOLINGS, _DISTANCES, _LONGEST_K, _NEIGHBOUR_BYTES = 3, 2, 50, 16


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


@dataclass(frozen=True, slots=True)
class _Expected:
    """A trial of the example: its config, what its training sees, how likely it runs each epoch, and its network."""

    config: TrialConfig
    training: TrialConfig
    alive: tuple[float, ...]
    network: BackboneRecord

    @property
    def trains(self) -> bool:
        """Whether anything is trained: the embeddings of a frozen extractor do not depend on a head."""
        return not (self.config.family == "retrieval" and self.training.unfreezing == "frozen")

    @property
    def finishes(self) -> float:
        """How likely the trial comes to its end."""
        return self.alive[-1] if self.trains else 1.0


@dataclass(frozen=True, slots=True, order=True)
class _Cost:
    """Of one stage: how likely the sweep comes to need it, and what computing and keeping it costs."""

    probability: float
    seconds: float
    disk_bytes: int


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

    def expected(config: TrialConfig, alive: tuple[float, ...] = ()) -> _Expected:
        network = networks.get(config.backbone) or find_backbone(config.backbone)
        return _Expected(config, config.training(), alive or (1.0,) * config.epochs, network)

    trials = _example(spec, expected)
    trials += [expected(config) for config in _afterwards(spec, trials)]
    makers = (_packs, _plain_features, _views, _trainings, _embeddings, _neighbours, _test)
    stages = (maker(trials, summary, machine) for maker in makers)
    return tuple(stage for stage in stages if stage.count)


def _example(spec: SweepSpec, expected: Callable[..., _Expected]) -> list[_Expected]:
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


def _afterwards(spec: SweepSpec, trials: Sequence[_Expected]) -> list[TrialConfig]:
    """Return the trainings that follow the search: of the longest trials, since which are the best is not known."""
    longest = sorted(trials, key=lambda trial: trial.config.epochs * trial.config.image_size**2, reverse=True)
    extent = parse_confirm(spec.confirm) if spec.confirm else Extent(0, 0)
    configs = [
        repeat.config
        for place, trial in enumerate(longest[: extent.top])
        for repeat in repeats_of(place, trial.config, spec.seed, extent.seeds)
    ]
    if spec.refit:
        configs += [repeat.config for repeat in repeats_of(0, longest[0].config, spec.seed + 1, 1)]
    return configs


def _packs(trials: Sequence[_Expected], summary: DataSummary, machine: Machine) -> PlannedStage:
    sizes = {trial.config.image_size for trial in trials}
    seconds = packing_seconds(summary.images, machine)
    made = {str(size): _Cost(1.0, seconds, summary.images * size * size * 3) for size in sizes}
    return _stage("pack of decoded images", made, len(trials), "all trials")


def _plain_features(trials: Sequence[_Expected], summary: DataSummary, machine: Machine) -> PlannedStage:
    cached = [trial for trial in trials if trial.trains and trial.training.unfreezing == "frozen"]
    made: dict[str, _Cost] = {}
    for trial in cached:
        images = summary.validation + (0 if trial.training.augments else summary.train)
        _note(made, [_extractor(trial.training)], _features(trial, images, 1.0, machine))
    return _stage("features of plain images", made, len(cached), "frozen trials: validation, training unaugmented")


def _views(trials: Sequence[_Expected], summary: DataSummary, machine: Machine) -> PlannedStage:
    cached = [t for t in trials if t.trains and t.training.augments and _closed_epochs(t)]
    made: dict[str, _Cost] = {}
    for trial in cached:
        for epoch in _closed_epochs(trial):
            cost = _features(trial, summary.train, trial.alive[epoch], machine)
            _note(made, [_extractor(trial.training), _augmentation(trial.training), epoch], cost)
    return _stage("features of augmented views", made, len(cached), "trials that augment equally, while frozen")


def _trainings(trials: Sequence[_Expected], summary: DataSummary, machine: Machine) -> PlannedStage:
    trained = [trial for trial in trials if trial.trains]
    made: dict[str, _Cost] = {}
    for trial in trained:
        seconds = _training_seconds(trial, summary, machine)
        _note(made, trial.training.digest, _Cost(1.0, seconds, _model_bytes(trial, summary.classes)))
    return _stage("training", made, len(trained), "trials that train alike, of any family")


def _embeddings(trials: Sequence[_Expected], summary: DataSummary, machine: Machine) -> PlannedStage:
    searching = [trial for trial in trials if trial.config.family == "retrieval"]
    made: dict[str, _Cost] = {}
    for trial in searching:
        images = summary.train + summary.validation
        _note(made, _embedded(trial), _features(trial, images, trial.finishes, machine, _poolings(trial)))
    return _stage("embeddings", made, len(searching), "trials that differ in what follows the extractor only")


def _neighbours(trials: Sequence[_Expected], summary: DataSummary, machine: Machine) -> PlannedStage:
    searching = [trial for trial in trials if trial.config.family == "retrieval"]
    longest = min(summary.train, max(_LONGEST_K, 2 * summary.train // max(1, summary.classes)))
    made: dict[str, _Cost] = {}
    for trial in searching:
        seconds = _search_seconds(trial, _DISTANCES * summary.validation, summary, machine)
        disk = _DISTANCES * summary.validation * longest * _NEIGHBOUR_BYTES
        _note(made, [_embedded(trial), _projection(trial.config)], _Cost(trial.finishes, seconds, disk))
    return _stage("neighbours", made, len(searching), "trials that differ in k, distance, vote or temperature only")


def _test(trials: Sequence[_Expected], summary: DataSummary, machine: Machine) -> PlannedStage:
    slowest = max(_answering_seconds(trial, summary, machine) for trial in trials)
    return PlannedStage("test score of the winner", 1, 1, "", slowest, 0)


def _answering_seconds(trial: _Expected, summary: DataSummary, machine: Machine) -> float:
    """Return how long the test images take, whose neighbours are found among the training images."""
    search = _search_seconds(trial, summary.test, summary, machine) if trial.config.family == "retrieval" else 0.0
    return summary.test / rates_of(trial.config, machine, trial.network).infer + search


def _search_seconds(trial: _Expected, queries: int, summary: DataSummary, machine: Machine) -> float:
    """Return how long it takes to fit the projection on the gallery, and to search it."""
    found = search_seconds(queries, summary.train, _embedding(trial), machine)
    if trial.config.whitening == "none":
        return found
    return found + whitening_seconds(summary.train, _embedding(trial), machine)


def _note(made: dict[str, _Cost], key: Any, cost: _Cost) -> None:
    """Keep the likeliest, largest need of a stage: whoever needs it most has it computed."""
    name = json.dumps(key)
    made[name] = max(made.get(name, cost), cost)


def _stage(kind: str, made: Mapping[str, _Cost], trials: int, shared: str) -> PlannedStage:
    costs = made.values()
    seconds = sum(cost.probability * cost.seconds for cost in costs)
    disk = sum(cost.probability * cost.disk_bytes for cost in costs)
    return PlannedStage(kind, math.ceil(sum(cost.probability for cost in costs)), trials, shared, seconds, int(disk))


def _training_seconds(trial: _Expected, summary: DataSummary, machine: Machine) -> float:
    config, rates = trial.training, rates_of(trial.training, machine, trial.network)
    stages = len(trial.network.stages) or _UNKNOWN_STAGES
    total = 0.0
    for epoch, probability in enumerate(trial.alive):
        opened = open_stages(config.unfreezing, epoch, config.epochs, stages)
        if opened == 0:
            total += probability * head_seconds(summary.train, _embedding(trial), summary.classes, machine)
            continue
        # A closed stage is passed forwards only.
        forward = 1 / rates.infer
        training = summary.train * (forward + (1 / rates.train - forward) * opened / stages)
        total += probability * (training + summary.validation * forward)
    return total


def _features(trial: _Expected, images: int, probability: float, machine: Machine, copies: int = 1) -> _Cost:
    seconds = images / rates_of(trial.training, machine, trial.network).infer
    return _Cost(probability, seconds, copies * images * _embedding(trial) * 4)


def _closed_epochs(trial: _Expected) -> list[int]:
    config, stages = trial.training, len(trial.network.stages) or _UNKNOWN_STAGES
    return [e for e in range(config.epochs) if open_stages(config.unfreezing, e, config.epochs, stages) == 0]


def _extractor(config: TrialConfig) -> list[Any]:
    return [config.backbone, config.weights, config.image_size, config.precision]


def _embedded(trial: _Expected) -> list[Any]:
    return [trial.training.digest] if trial.trains else _extractor(trial.config)


def _poolings(trial: _Expected) -> int:
    return 1 if trial.config.backbone == SCRATCH else _POOLINGS


def _projection(config: TrialConfig) -> list[Any]:
    settings = config.canonical()
    return [settings[name] for name in ("pooling", "l2_normalize", "whitening", "whitening_dim")]


def _augmentation(config: TrialConfig) -> list[Any]:
    settings = config.canonical()
    names = ("crop", "crop_scale", "flip", "rotation", "jitter", "augmentation_strength")
    return [settings[name] for name in names]


def _embedding(trial: _Expected) -> int:
    if trial.config.backbone == SCRATCH:
        return architecture_of(trial.config).embedding(trial.config.image_size)
    return trial.network.embedding or _UNKNOWN_EMBEDDING


def _model_bytes(trial: _Expected, classes: int) -> int:
    config, head = trial.training, _embedding(trial) * classes
    trained = 0.0 if config.unfreezing == "frozen" else _parameters(trial)
    # The checkpoint of a trial that was stopped stays, with the optimizer's moments.
    copies = 2 if config.optimizer == "sgd" else 3
    return int((trained + head) * 4 * copies)


def _parameters(trial: _Expected) -> float:
    if trial.config.backbone == SCRATCH:
        return architecture_of(trial.config).weights
    return trial.network.parameters * 1e6
