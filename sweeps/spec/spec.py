"""A sweep as it is asked for: how many trials, of what, searched how. Validated once, when built; no torch, no ray.

config  <  documented experiment  <  searched settings  <  fixed                         (one trial's settings)
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from carcls.config import Family as TrialFamily
from carcls.config import TrialConfig, digest_of
from carcls.data.config import DataConfig
from carcls.errors import SpecError, shown
from sweeps.spec.documented import Experiment, find_experiment
from sweeps.spec.fields import (
    Confirmation,
    EarlyStopping,
    Extent,
    FolderName,
    GpuShareOrAuto,
    Hours,
    ModelName,
    Price,
    Prices,
    Size,
    parse_confirm,
    parse_price,
)
from sweeps.spec.mistakes import sentences, shortened
from sweeps.spec.objectives import ACCURACY, Goals, Limit, ObjectiveName, parse_constraint, parse_objectives
from sweeps.spec.samplers import SAMPLERS, SamplerName
from sweeps.spec.space import Choice, Search, parameters_of
from sweeps.spec.values import PartError, Settings
from sweeps.spec.yaml_text import write_tree

# A spec, or a part of it, as YAML says it.
Tree = dict[str, Any]
# The parts that are mappings themselves.
SECTIONS = ("data", "config", "fixed", "search", "early_stopping")
# In YAML: whether it is all that the sweep has, with nothing of the packaged spec under it.
COMPLETE = "complete"
# So many trials are drawn to see which settings some of them lack.
_DRAWS = 200


class SweepSpec(BaseModel):
    """Everything that says what a sweep does; ``digest`` says what of it determines the trials.

    What is said of a setting here is what ``carsweep explain`` tells of it.

    Attributes:
        family: which family of trials.
        name: of the sweep and its folder; None is the family and the time.
        trials: how many are run, documented experiments included.
        hours: no new trial starts after this long; None is no limit.
        seed: of the search and of every trial.
        concurrency: trials at a time; None lets the machine decide.
        cpus_per_trial: CPU cores for each trial; None lets the machine decide.
        gpus_per_trial: GPUs for each trial: 0, 1 or 1/n so that trials fill a GPU, or 2, 3, … to train each trial on
            several; None, said as ``auto``, lets the machine decide.
        data: which images.
        config: base settings of every trial.
        fixed: settings of every trial, whatever an experiment or the search says.
        experiments: documented experiments, the first trials.
        starts: settings of trials that come next, before the searched ones; they may lie outside of the search space.
        search: settings that are searched, each with its domain. A setting that is fixed as well is fixed in the
            documented experiments only.
        sampler: what draws the searched trials.
        early_stopping: of searched trials.
        confirm: ``NxM``: after the search the N best trials are run again with M fresh seeds each, and the winner is
            chosen by their means; None chooses it by the search.
        refit: whether the winner is trained once more, on training and validation images.
        near: a drawn trial takes over the result of one that differs from it in ranges of numbers only, in each by at
            most this share of the range (on its own scale); 0 takes over from equal trials only.
        epochs_budget: no trial starts once all trials together have trained so many epochs, over the sweep's whole
            life; what comes from the store is free. None is no limit.
        price: what an hour costs, of a GPU, of a CPU core or of the whole sweep; several are joined by ``+``.
        max_cost: no trial starts that would, by the forecast, bring the sweep's cost above it.
        disk: room for the stages of all sweeps in the folder of runs, such as ``20GB``; checked as trials end.
        objectives: what trials are optimized for; the first decides the winner. With others than accuracy alone
            nothing is stopped early.
        constraints: limits that a trial must keep to win, such as ``predict_ms <= 5``.
        model_name: what the winner is registered as; None goes by the family and the name of the data.
        note: what differs from the documented scale, in words.

    Raises:
        pydantic.ValidationError: a field is unknown, missing or out of range, or a setting, an end of a domain or an
            experiment does not make a valid TrialConfig.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: TrialFamily
    name: FolderName | None = None
    trials: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 20
    hours: Hours | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    concurrency: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    cpus_per_trial: Annotated[float, Field(strict=True, gt=0, le=1e4, allow_inf_nan=False)] | None = None
    gpus_per_trial: GpuShareOrAuto = None
    data: DataConfig = DataConfig()
    config: Settings = Field(default_factory=dict)
    fixed: Settings = Field(default_factory=dict)
    experiments: tuple[Experiment, ...] = ()
    starts: tuple[Settings, ...] = ()
    search: Search = Field(default_factory=dict)
    sampler: SamplerName = "tpe"
    early_stopping: EarlyStopping = EarlyStopping()
    confirm: Confirmation | None = None
    refit: Annotated[bool, Field(strict=True)] = False
    near: Annotated[float, Field(strict=True, ge=0.0, le=0.5)] = 0.01
    epochs_budget: Annotated[int, Field(strict=True, ge=0, le=10**9)] | None = None
    price: Price | None = None
    max_cost: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    disk: Size | None = None
    objectives: tuple[ObjectiveName, ...] = (ACCURACY.name,)
    constraints: tuple[Limit, ...] = ()
    model_name: ModelName | None = None
    note: str | None = None

    @field_validator("max_cost")
    @classmethod
    def _comes_with_a_price(cls, cost: float | None, info: ValidationInfo) -> float | None:
        if cost is not None and info.data.get("price", "") is None:
            raise ValueError(f"max_cost must come with a price, got {cost:g}. Give --price, such as 2.5/gpu-hour.")
        return cost

    @field_validator("experiments")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"must differ from each other, got {shown(twice[0])} twice.")
        return names

    @field_validator("starts", mode="wrap")
    @classmethod
    def _as_said(cls, starts: Any, read: Callable[[Any], Any]) -> tuple[dict[str, Any], ...]:
        read(starts)  # a 0 stays one where 0.0 is meant: digests of sweeps have it
        return tuple(dict(settings) for settings in starts)

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = tuple(objective.name for objective in parse_objectives(names, info.data.get("family")))
        if info.data.get("confirm") is not None and known[0] != ACCURACY.name:
            raise ValueError(
                f"objectives must begin with accuracy where fresh seeds confirm the winner, got {shown(known[0])}. "
                "Put accuracy first, or leave --confirm out."
            )
        return known

    @field_validator("constraints")
    @classmethod
    def _readable_constraints(cls, texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(parse_constraint(text, info.data.get("family"))) for text in texts))

    @model_validator(mode="after")
    def _judges_by_all_objectives(self) -> SweepSpec:
        if not self.goals.stop_early and self.early_stopping.enabled:
            # pydantic's way of changing a frozen model while it is being built
            object.__setattr__(self, "early_stopping", self.early_stopping.model_copy(update={"enabled": False}))
        return self

    @model_validator(mode="after")
    def _has_a_sampler_that_takes_the_search(self) -> SweepSpec:
        kind, names = SAMPLERS[self.sampler], sorted(self.search)
        objectives = [objective.name for objective in self.goals.objectives]
        refused = {
            "settings that only some trials have": [] if kind.conditions else self._conditional_settings(),
            "choices": [] if kind.categories else [n for n in names if isinstance(self.search[n], Choice)],
            "several objectives": [] if kind.several_objectives or len(objectives) == 1 else objectives,
        }
        mistakes = []
        for what, which in refused.items():
            without = " ".join(f"search.{name}=null" for name in which if name in names) or "'objectives=[accuracy]'"
            rule = f"must take {what} ({', '.join(which)}), got {shown(self.sampler)}"
            if which:
                mistakes.append(f"sampler: {rule}. Say tpe or random, or leave them out: --set {without}.")
        if mistakes:
            raise PartError(mistakes)
        return self

    def _conditional_settings(self) -> list[str]:
        """Return the searched settings that some trials have and others do not, in alphabetical order."""
        random = Random(0)
        drawn = ({name: domain.draw(random) for name, domain in self.search.items()} for _ in range(_DRAWS))
        trials = Counter(name for values in drawn for name in parameters_of(self.trial_config(values), self.search))
        return sorted(name for name, count in trials.items() if count < _DRAWS)

    def trial_config(self, settings: Mapping[str, Any], experiment: str | None = None) -> TrialConfig:
        """Return the config of a trial with ``settings``, of a documented experiment when one is named.

        The seed is the sweep's, unless ``settings`` has one, as those of a confirming run have.

        Raises:
            ValueError: the experiment is unknown, or a setting is unknown or out of range (pydantic's error is one).
        """
        documented = find_experiment(experiment).settings if experiment else {}
        fixed = self.fixed
        if experiment is None:
            fixed = {name: value for name, value in fixed.items() if name not in self.search}
        seeded = {"family": self.family, "seed": settings.get("seed", self.seed)}
        values = {**self.config, **documented, **settings, **fixed, **seeded}
        # The spec's own settings were read when it was built.
        return TrialConfig.model_validate(values) if settings else TrialConfig.model_construct(**values)

    def searched_config(self, drawn: Mapping[str, Any]) -> TrialConfig:
        """Return the trial that drawn values make; what is no parameter of it has its base value (see ``space``)."""
        while True:
            config = self.trial_config(drawn)
            active = parameters_of(config, self.search)
            if active.keys() >= drawn.keys():
                return config
            drawn = {name: value for name, value in drawn.items() if name in active}

    def experiment_configs(self) -> list[tuple[str, TrialConfig]]:
        """Return the documented experiments by name, as this sweep runs them."""
        return [(name, self.trial_config({}, name)) for name in self.experiments]

    def configs_to_check(self, *settings: str) -> list[TrialConfig]:
        """Return trials that together have each combination of what the sweep may take for these settings.

        They are the documented ones, those that it starts with, and, where more are drawn, one for each combination.
        """
        known = [*(config for _, config in self.experiment_configs()), *map(self.trial_config, self.starts)]
        if self.trials <= len(known):
            return known[: self.trials]
        searched = [name for name in settings if name in self.search]
        combinations = itertools.product(*(self.search[name].ends() for name in searched))
        return [*known, *(self.trial_config(dict(zip(searched, values, strict=True))) for values in combinations)]

    def changed_settings(self, experiment: str) -> dict[str, tuple[Any, Any]]:
        """Return what this sweep runs otherwise than documented: setting -> (documented, used).

        Settings that cannot matter, such as the backbone's learning rate while it is frozen, do not count.
        """
        settings = find_experiment(experiment).settings
        documented = TrialConfig.model_construct(**{**settings, "family": self.family}).canonical()
        used = self.trial_config({}, experiment).canonical()
        return {name: (documented[name], used[name]) for name in settings if documented[name] != used[name]}

    @property
    def extent(self) -> Extent:
        """How many trials are run again after the search, with how many fresh seeds each."""
        return parse_confirm(self.confirm) if self.confirm else Extent(0, 0)

    @property
    def prices(self) -> Prices | None:
        """What an hour costs; None where nobody said it."""
        return parse_price(self.price) if self.price else None

    @property
    def goals(self) -> Goals:
        """What decides the winner and what is searched for."""
        return Goals.parse(self.objectives, self.constraints)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of what determines the trials: not of how many, how long, or on what."""
        tree = self.to_tree()
        parts = {name: tree[name] for name in ("family", "seed", "config", "fixed", "starts", "search")}
        parts["data"] = self.data.canonical()
        # What sweeps of older versions had no word for is left out where it has its default.
        goals = {} if self.goals == Goals() else {"goals": [self.objectives, self.constraints]}
        sampler = {} if self.sampler == "tpe" else {"sampler": self.sampler}
        experiments = [(name, config.canonical()) for name, config in self.experiment_configs()]
        return digest_of(
            {**parts, "experiments": experiments, "early_stopping": self.early_stopping.plain(), **goals, **sampler}
        )

    def to_tree(self) -> dict[str, Any]:
        """Return the whole spec as plain values, which ``from_tree`` reads back to an equal spec."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the whole spec as YAML, which ``--spec``, or ``read_tree`` and ``from_tree``, read to an equal one."""
        return write_tree({COMPLETE: True, **self.to_tree()})

    @classmethod
    def from_tree(cls, tree: Tree) -> SweepSpec:
        """Return the spec that plain values say, as YAML says them, all of them checked in one pass.

        Raises:
            SpecError: all mistakes together, each beginning with its path.
        """
        optional = (*SECTIONS, "experiments", "starts")
        told = (item for item in tree.items() if item[0] != COMPLETE)
        said = {name: value for name, value in told if value is not None or name not in optional}
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            raise SpecError(shortened(sentences(error, cls))) from None


SWEEP_SETTINGS = tuple(name for name in SweepSpec.model_fields if name not in SECTIONS)
