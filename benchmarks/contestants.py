"""Who competes in ``early_stopping.py``: carsweep's study as it is, and others, all asked and told in the same way.

What is emulated of Ray Tune is its controller, since thousands of trials in processes would take days. The objects that
decide are Tune's own: ``OptunaSearch`` chooses, ``ASHAScheduler`` stops. They are called in the controller's order (see
``ray/tune/execution/tune_controller.py``): the scheduler hears each result first; a result that stops a trial is not
passed on to the searcher as one on the way, but as the trial's end: ``on_trial_complete`` of the scheduler, then of the
searcher, with the early score as its result. OptunaSearch tells that to Optuna as a COMPLETE trial.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from curves import SPACE, Settings
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from ray.tune.result import TRAINING_ITERATION
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from carcls.outcome import Measurement
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.spec import SweepSpec
from sweeps.study.sampling import to_distribution
from sweeps.study.study import Study

METRIC = "val_accuracy"
EXPERIMENTS = ("transfer/frozen", "transfer/finetuned")
ENDLESS = 10_000


class Contestant(Protocol):
    """Chooses trials, and stops them."""

    def ask(self) -> tuple[int, Settings]:
        """Return the next trial: a number and its settings."""

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        """Hear of an epoch before the last; return True to stop the trial, which then has ended."""

    def finish(self, number: int, epoch: int, accuracy: float) -> None:
        """Hear of the last epoch."""


@dataclass(frozen=True)
class Terms:
    """What all contestants of one run are given.

    Attributes:
        epochs: of a trial that is not stopped.
        seed: of the contestant's own chance.
        starts: the first trials; the documented experiments.
    """

    epochs: int
    seed: int
    starts: tuple[Settings, ...]


Maker = Callable[[Terms], Contestant]


def starts_of(epochs: int) -> tuple[Settings, ...]:
    """Return the documented experiments as settings of the space."""
    spec = _spec(epochs, 0, None)
    return tuple({name: getattr(config, name) for name in SPACE} for _, config in spec.experiment_configs())


def _spec(epochs: int, seed: int, stopping: EarlyStopping | None) -> SweepSpec:
    return SweepSpec(
        family="transfer",
        trials=ENDLESS,
        seed=seed,
        fixed={"epochs": epochs},
        experiments=EXPERIMENTS,
        search=SPACE,
        early_stopping=stopping or EarlyStopping(),
    )


class Carsweep:
    """The real study with its journal; documented experiments are its first trials and never stopped."""

    def __init__(self, terms: Terms, stopping: EarlyStopping | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._study = Study.open(Path(self._folder.name), _spec(terms.epochs, terms.seed, stopping))

    def ask(self) -> tuple[int, Settings]:
        """Ask the study."""
        asked = self._study.ask()
        assert asked is not None
        return asked.number, {name: getattr(asked.config, name) for name in SPACE}

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        """Report to the study; a trial that it stops is told as pruned."""
        stop = self._study.report(number, Measurement(epoch, {METRIC: accuracy}))
        if stop:
            self._study.tell_pruned(number)
        return stop

    def finish(self, number: int, epoch: int, accuracy: float) -> None:
        """Tell the study that the trial is complete."""
        self._study.report(number, Measurement(epoch, {METRIC: accuracy}))
        self._study.tell_complete(number, {"metrics": {METRIC: accuracy}, "epochs": epoch, "seconds": 0.0})


@dataclass(frozen=True)
class _TuneTrial:
    """What schedulers see of a trial of Tune."""

    trial_id: str


class Tune:
    """Tune's ASHAScheduler with a searcher, driven as its controller would."""

    def __init__(self, terms: Terms, sampler: BaseSampler | None = None) -> None:
        self._search = OptunaSearch(
            {name: to_distribution(domain) for name, domain in SPACE.items()},
            metric=METRIC,
            mode="max",
            points_to_evaluate=[dict(start) for start in terms.starts],
            **({"seed": terms.seed} if sampler is None else {"sampler": sampler}),
        )
        self._scheduler = ASHAScheduler(metric=METRIC, mode="max", max_t=terms.epochs)
        self._count = 0

    def ask(self) -> tuple[int, Settings]:
        """Let the searcher suggest, and the scheduler know."""
        number, self._count = self._count, self._count + 1
        settings = self._search.suggest(str(number))
        self._scheduler.on_trial_add(None, _TuneTrial(str(number)))
        return number, settings

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        """Pass a result on in the controller's order."""
        result = {METRIC: accuracy, TRAINING_ITERATION: epoch}
        if self._scheduler.on_trial_result(None, _TuneTrial(str(number)), result) == TrialScheduler.STOP:
            self._end(number, result)
            return True
        self._search.on_trial_result(str(number), result)
        return False

    def finish(self, number: int, epoch: int, accuracy: float) -> None:
        """Pass the last result on; ``max_t`` makes it the end."""
        assert self.report(number, epoch, accuracy)

    def _end(self, number: int, result: dict[str, Any]) -> None:
        self._scheduler.on_trial_complete(None, _TuneTrial(str(number)), result)
        self._search.on_trial_complete(str(number), result)


class Optuna:
    """A sampler and a pruner of Optuna; stopped trials are told as pruned."""

    def __init__(self, terms: Terms, sampler: BaseSampler, pruner: BasePruner) -> None:
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._space = {name: to_distribution(domain) for name, domain in SPACE.items()}
        self._trials: dict[int, optuna.Trial] = {}
        for start in terms.starts:
            self._study.enqueue_trial(dict(start))

    def ask(self) -> tuple[int, Settings]:
        """Ask the study."""
        trial = self._study.ask(self._space)
        self._trials[trial.number] = trial
        return trial.number, trial.params

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        """Report, and ask the pruner."""
        trial = self._trials[number]
        trial.report(accuracy, epoch)
        if not trial.should_prune():
            return False
        self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return True

    def finish(self, number: int, epoch: int, accuracy: float) -> None:
        """Tell the result."""
        self._trials[number].report(accuracy, epoch)
        self._study.tell(self._trials[number], accuracy)


CONTESTANTS: dict[str, Maker] = {
    "carsweep, as shipped": Carsweep,
    "carsweep, all compared": lambda terms: Carsweep(
        terms,
        # What was shipped before: the third of the epochs that transfer's ten made 3, and no allowance for slow starts.
        EarlyStopping(min_epochs=max(1, terms.epochs // 3), reduction=3, within_kind=0.0),
    ),
    "Tune: ASHA + OptunaSearch": Tune,
    "Tune: ASHA + random": lambda terms: Tune(terms, RandomSampler(terms.seed)),
    "Optuna: median + TPE": lambda terms: Optuna(terms, TPESampler(seed=terms.seed), MedianPruner()),
    "TPE, full length": lambda terms: Optuna(terms, TPESampler(seed=terms.seed), NopPruner()),
    "random, full length": lambda terms: Optuna(terms, RandomSampler(terms.seed), NopPruner()),
}
