"""A sweep as it is asked for: how many trials, of what, searched how. Validated once, when built; no torch, no ray.

packaged YAML  <  --spec FILE  <  --set KEY=VALUE  <  options of the command line        (later ones win)
config  <  documented experiment  <  searched settings  <  fixed                         (one trial's settings)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from carcls.config import DataConfig, TrialConfig, digest_of
from carcls.config import Family as TrialFamily
from carcls.errors import SpecError, nearest, shown
from sweeps.budget import parse_price
from sweeps.confirm import parse_confirm
from sweeps.constraints import parse_constraint
from sweeps.documented import find_experiment
from sweeps.goals import Goals
from sweeps.objectives import ACCURACY, parse_objectives
from sweeps.packaged import SPECS_FOLDER
from sweeps.plan_text import parse_bytes
from sweeps.space import Choice, Domain, FloatDomain, IntDomain
from sweeps.space_conditions import settle
from sweeps.spec_layers import (
    SECTIONS,
    TRIAL_SETTINGS,
    Tree,
    data_path,
    layer_of_file,
    layer_of_overrides,
    layer_of_sets,
    merge,
    names_in,
)
from sweeps.spec_mistakes import (
    first_ones,
    normal_domain,
    normal_value,
    parse_search,
    sentences,
    shortened,
    trial_mistakes,
)
from sweeps.spec_text import read_tree, write_tree

FAMILIES: tuple[str, ...] = get_args(TrialFamily)
# The output folder keeps these beside the sweeps' own folders.
RESERVED_NAMES = ("stages", "data", "artifacts", "mlflow.db")


class EarlyStopping(BaseModel):
    """Successive halving of the searched trials; documented experiments are never stopped.

    The defaults come from benchmarks/early_stopping.md: made-up curves of seven shapes, on other seeds than they were
    chosen with. Trials of 10 epochs led to winners of 82.9% on average (of 88.0%); comparing all with all from a third
    of the epochs on, as before, 81.3%; Tune's ASHA with OptunaSearch 76.8%; TPE without stopping 80.5%. Of 5 and 40
    epochs they are as good as before within the error. Where trials start alike, Tune's are better by about two points.

    Attributes:
        enabled: whether trials are stopped at all.
        min_epochs: every trial runs this long; None is a fifth of its own epochs.
        reduction: of the trials that come to a rung, the best one in this many goes on; rungs are at min_epochs times
            the powers of this.
        within_kind: up to this share of its epochs a trial is compared with those of its own unfreezing schedule only,
            since those that open the backbone start slower. The named schedules have opened all of it by a half.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: Annotated[bool, Field(strict=True)] = True
    min_epochs: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None
    reduction: Annotated[int, Field(strict=True, ge=2, le=10_000)] = 3
    within_kind: Annotated[float, Field(strict=True, ge=0.0, le=1.0)] = 0.5

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs (from 1) after which a trial of ``epochs`` epochs may be stopped.

        >>> EarlyStopping().rungs(10)
        (2, 6)
        """
        rungs = []
        rung = self.min_epochs or max(1, epochs // 5)
        while self.enabled and rung < epochs:
            rungs.append(rung)
            rung *= self.reduction
        return tuple(rungs)

    def plain(self) -> dict[str, Any]:
        """Return what sweeps are told apart by; the later setting where it is not the default."""
        first = self.model_dump(include={"enabled", "min_epochs", "reduction"})
        return first | self.model_dump(include={"within_kind"}, exclude_defaults=True)


class SweepSpec(BaseModel):
    """Everything that says what a sweep does.

    Attributes:
        family: which family of trials.
        name: of the sweep and its folder; None lets the sweep choose one.
        trials: how many, documented experiments included.
        hours: no new trial starts after this long; None is no limit.
        seed: of the search and of every trial.
        concurrency: trials at a time; None lets the machine decide.
        cpus_per_trial, gpus_per_trial: a trial's share; None lets the machine decide. A GPU is shared by 1/n.
        data: which images.
        config: base settings of every trial.
        fixed: settings of every trial, whatever an experiment or the search says.
        experiments: documented experiments, the first trials.
        starts: settings of trials that come next, before the searched ones; they may lie outside of the search space.
        search: domains by setting. A setting that is fixed as well is fixed in the documented experiments only.
        early_stopping: of searched trials.
        confirm: ``NxM``: after the search the N best trials are run again with M fresh seeds each, and the winner is
            chosen by their means; None chooses it by the search. No part of the digest.
        refit: whether the winner is trained once more, on training and validation images. No part of the digest.
        near: a drawn trial takes over the result of one that differs from it in ranges of numbers only, in each by at
            most this share of the range (on its own scale); 0 takes over from equal trials only. Not in the digest.
        epochs_budget: no trial starts once all trials together have trained so many epochs, over the sweep's whole
            life; what comes from the store is free. None is no limit. Like the next three no part of the digest.
        price: what an hour costs, such as ``2.5/gpu-hour``; see ``sweeps.budget.parse_price``.
        max_cost: no trial starts that would, by the forecast, bring the sweep's cost above it.
        disk: room for the stages of all sweeps in the folder of runs, such as ``20GB``; checked as trials end.
        objectives: what trials are optimized for; the first decides the winner. Names are in sweeps.objectives. With
            others than accuracy alone nothing is stopped early. They belong to the digest.
        constraints: limits that a trial must keep to win, such as ``predict_ms <= 5``. They belong to the digest.
        note: what differs from the documented scale, in words.

    Raises:
        SpecError: a setting, an end of a domain, or an experiment does not make a valid TrialConfig.
        pydantic.ValidationError: a field is unknown, missing or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    name: str | None = None
    trials: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 20
    hours: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0
    concurrency: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    cpus_per_trial: Annotated[float, Field(strict=True, gt=0, le=1e4, allow_inf_nan=False)] | None = None
    gpus_per_trial: Annotated[float, Field(strict=True, ge=0, le=1e4, allow_inf_nan=False)] | None = None
    data: DataConfig = DataConfig()
    config: dict[str, Any] = Field(default_factory=dict)
    fixed: dict[str, Any] = Field(default_factory=dict)
    experiments: tuple[str, ...] = ()
    starts: tuple[dict[str, Any], ...] = ()
    search: dict[str, InstanceOf[FloatDomain] | InstanceOf[IntDomain] | InstanceOf[Choice]] = Field(
        default_factory=dict
    )
    early_stopping: EarlyStopping = EarlyStopping()
    confirm: str | None = None
    refit: Annotated[bool, Field(strict=True)] = False
    near: Annotated[float, Field(strict=True, ge=0.0, le=0.5)] = 0.01
    epochs_budget: Annotated[int, Field(strict=True, ge=1, le=10**9)] | None = None
    price: str | None = None
    max_cost: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    disk: str | None = None
    objectives: tuple[str, ...] = (ACCURACY.name,)
    constraints: tuple[str, ...] = ()
    note: str | None = None

    @field_validator("family")
    @classmethod
    def _known_family(cls, family: str) -> str:
        if family not in FAMILIES:
            raise ValueError(f"family must be a known one, got {shown(family)}." + nearest(family, FAMILIES))
        return family

    @field_validator("name")
    @classmethod
    def _usable_as_folder(cls, name: str | None) -> str | None:
        if name is None:
            return None
        letters = all(letter.isascii() and (letter.isalnum() or letter in "-_.") for letter in name)
        if not letters or not name[:1].isalnum() or len(name) > 100:
            raise ValueError(
                "name must be up to 100 letters, digits, '-', '_' and '.', not beginning with a sign, "
                f"got {shown(name)}."
            )
        if name in RESERVED_NAMES:
            raise ValueError(f"name must be none of {', '.join(RESERVED_NAMES)}, which carsweep uses, got {name!r}.")
        return name

    @field_validator("gpus_per_trial")
    @classmethod
    def _fills_gpus(cls, gpus: float | None) -> float | None:
        if gpus is None or gpus == int(gpus):
            return gpus
        shares = round(1 / max(gpus, 1e-4))  # Ray counts no smaller parts
        # 0.33 is meant as a third; three times 0.34 does not fit on a GPU.
        if gpus > 1 or not 0.97 <= shares * gpus <= 1 + 1e-9:
            raise ValueError(
                f"gpus_per_trial must be whole, or 1/n such as 0.5 or 0.25 so that trials fill a GPU, got {gpus!r}."
            )
        return gpus

    @field_validator("confirm")
    @classmethod
    def _is_an_extent(cls, confirm: str | None) -> str | None:
        if confirm is not None:
            parse_confirm(confirm)
        return confirm

    @field_validator("price")
    @classmethod
    def _readable_price(cls, price: str | None) -> str | None:
        if price is not None:
            parse_price(price)
        return price

    @field_validator("max_cost")
    @classmethod
    def _comes_with_a_price(cls, cost: float | None, info: ValidationInfo) -> float | None:
        if cost is not None and info.data.get("price", "") is None:
            raise ValueError(f"max_cost must come with a price, got {cost:g}. Give --price, such as 2.5/gpu-hour.")
        return cost

    @field_validator("disk")
    @classmethod
    def _readable_size(cls, disk: str | None) -> str | None:
        if disk is not None:
            parse_bytes("disk", disk)
        return disk

    @field_validator("config", "fixed")
    @classmethod
    def _as_trials_have_it(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return {name: normal_value(name, value) for name, value in settings.items()}

    @field_validator("search")
    @classmethod
    def _choices_as_trials_have_them(cls, search: dict[str, Domain]) -> dict[str, Domain]:
        return {name: replace(domain, **normal_domain(name, domain)) for name, domain in search.items()}

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return tuple(objective.name for objective in parse_objectives(names, info.data.get("family")))

    @field_validator("constraints")
    @classmethod
    def _readable_constraints(cls, texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(parse_constraint(text, info.data.get("family"))) for text in texts))

    @field_validator("objectives")
    @classmethod
    def _can_be_confirmed(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("confirm") is not None and names[0] != ACCURACY.name:
            raise ValueError(
                f"objectives must begin with accuracy where fresh seeds confirm the winner, got {shown(names[0])}. "
                "Put accuracy first, or leave --confirm out."
            )
        return names

    @model_validator(mode="after")
    def _judges_by_all_objectives(self) -> SweepSpec:
        if not self.goals.stop_early and self.early_stopping.enabled:
            # pydantic's way of changing a frozen model while it is being built
            object.__setattr__(self, "early_stopping", self.early_stopping.model_copy(update={"enabled": False}))
        return self

    @model_validator(mode="after")
    def _makes_trials(self) -> SweepSpec:
        mistakes = first_ones(trial_mistakes(self.config, self.fixed, self.search, self.experiments, self.starts))
        if mistakes:
            raise SpecError(shortened(mistakes))
        return self

    def trial_config(self, settings: Mapping[str, Any], experiment: str | None = None) -> TrialConfig:
        """Return the config of a trial with ``settings``, of a documented experiment when one is named.

        The seed is the sweep's, unless ``settings`` has one, as those of a confirming run have.

        Raises:
            ValueError: the experiment is unknown, or a setting is unknown or out of range (pydantic's error is one).
        """
        documented = dict(find_experiment(experiment).settings) if experiment else {}
        fixed = self.fixed
        if experiment is None:
            fixed = {name: value for name, value in fixed.items() if name not in self.search}
        seeded = {"family": self.family, "seed": settings.get("seed", self.seed)}
        return TrialConfig.model_validate({**self.config, **documented, **settings, **fixed, **seeded})

    def searched_config(self, drawn: Mapping[str, Any]) -> TrialConfig:
        """Return the trial that drawn values make; what is no parameter of it (see ``when``) has its base value."""
        return settle(drawn, self.search, self.trial_config)

    def experiment_configs(self) -> list[tuple[str, TrialConfig]]:
        """Return the documented experiments by name, as this sweep runs them."""
        return [(name, self.trial_config({}, name)) for name in self.experiments]

    def changed_settings(self, experiment: str) -> dict[str, tuple[Any, Any]]:
        """Return what this sweep runs otherwise than documented: setting -> (documented, used).

        Settings that cannot matter, such as the backbone's learning rate while it is frozen, do not count.
        """
        settings = find_experiment(experiment).settings
        documented = TrialConfig.model_validate({**settings, "family": self.family}).canonical()
        used = self.trial_config({}, experiment).canonical()
        return {name: (documented[name], used[name]) for name in settings if documented[name] != used[name]}

    @property
    def confirming_runs(self) -> int:
        """How many runs with fresh seeds come after the search."""
        return parse_confirm(self.confirm).runs if self.confirm else 0

    @property
    def goals(self) -> Goals:
        """What decides the winner and what is searched for."""
        return Goals.parse(self.objectives, self.constraints)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of what determines the trials: not of how many, how long, or on what."""
        return digest_of(
            {
                "family": self.family,
                "seed": self.seed,
                "data": self.data.model_dump(),
                "config": self.config,
                "fixed": self.fixed,
                "experiments": [(name, config.canonical()) for name, config in self.experiment_configs()],
                "starts": list(self.starts),
                "search": {name: domain.plain() for name, domain in self.search.items()},
                "early_stopping": self.early_stopping.plain(),
                **({} if self.goals == Goals() else {"goals": [self.objectives, self.constraints]}),
            }
        )

    def to_yaml(self) -> str:
        """Return the whole spec as YAML, which ``from_yaml`` reads back to an equal spec."""
        lists: dict[str, list[Any]] = {"experiments": list(self.experiments), "starts": list(self.starts)}
        lists |= {"objectives": list(self.objectives), "constraints": list(self.constraints)}
        tree = self.model_dump(exclude={"search"}) | lists
        return write_tree(tree | {"search": {name: domain.plain() for name, domain in self.search.items()}})

    @classmethod
    def from_yaml(cls, text: str, source: str = "spec.yaml") -> SweepSpec:
        """Return the spec that ``to_yaml`` wrote.

        Raises:
            SpecError: all mistakes together, each with its path.
        """
        return _build(read_tree(text, source))


def load_spec(
    family: str,
    *,
    spec_file: Path | None = None,
    sets: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    demo: bool = False,
) -> SweepSpec:
    """Return the spec that the packaged YAML, a file, ``--set`` and the command line's options make together.

    Without a spec file and without a data set of the user's, the demo preset is where it starts.

    Args:
        family: which family of trials.
        spec_file: a user's YAML; may be partial.
        sets: ``KEY=VALUE`` texts; see carcls.config.TrialConfig for the keys that need no path.
        overrides: spec fields or settings of trials by name (``trials``, ``data``, ``weights``, …); None says nothing.
        demo: start from the demo preset whatever else is given.

    Raises:
        SpecError: all mistakes together, each beginning with its path.
    """
    if family not in FAMILIES:
        raise SpecError([f"family: must be a known one, got {shown(family)}." + nearest(family, FAMILIES)])
    file_layer, mistakes = layer_of_file(Path(spec_file) if spec_file else None)
    set_layer, set_mistakes = layer_of_sets(sets)
    option_layer, option_mistakes = layer_of_overrides(overrides or {})
    mistakes += set_mistakes + option_mistakes
    own_data = any(data_path(layer) for layer in (set_layer, option_layer))
    small = demo or not (spec_file or own_data)
    packaged = SPECS_FOLDER / f"{f'demo-{family}' if small else family}.yaml"
    tree = read_tree(packaged.read_text(encoding="utf-8"), packaged.name)
    tree, contradictions = _merge_all(tree, (file_layer, set_layer, option_layer))
    bare = frozenset(names_in(set_layer.get("fixed")) | names_in(option_layer.get("fixed")))
    return _build(tree, bare=bare, mistakes=mistakes + contradictions)


def edit_spec(spec: SweepSpec, sets: Sequence[str], overrides: Mapping[str, Any]) -> SweepSpec:
    """Return the spec with ``--set`` texts and options laid over it.

    Raises:
        SpecError: all mistakes together, each beginning with its path.
    """
    set_layer, mistakes = layer_of_sets(sets)
    option_layer, option_mistakes = layer_of_overrides(overrides)
    tree = read_tree(spec.to_yaml(), "spec.yaml")
    tree, contradictions = _merge_all(tree, (set_layer, option_layer))
    bare = frozenset(names_in(set_layer.get("fixed")))
    return _build(tree, bare=bare, mistakes=mistakes + option_mistakes + contradictions)


def _merge_all(tree: Tree, layers: Sequence[Tree]) -> tuple[Tree, list[str]]:
    """Lay all layers over ``tree``; none may turn the sweep into one of another family."""
    family = tree["family"]
    mistakes: list[str] = []
    for layer in layers:
        tree, contradictions = merge(tree, layer)
        mistakes += contradictions
        if tree["family"] != family:
            mistakes.append(_other_family(family, tree["family"]))
            tree["family"] = family
    return tree, mistakes


def _other_family(family: str, got: Any) -> str:
    remedy = f" For that one say carsweep run {got}." if got in FAMILIES else ""
    return f"family: must be {family}, which is what was asked for, got {shown(got)}.{remedy}"


def _build(tree: Tree, *, bare: frozenset[str] = frozenset(), mistakes: Sequence[str] = ()) -> SweepSpec:
    found = list(mistakes)
    search, search_mistakes = parse_search(_given(tree, "search", {}))
    config, fixed = (_section(tree, name, found) for name in ("config", "fixed"))
    experiments = _list_of(tree, "experiments", str, "names", found)
    starts = _list_of(tree, "starts", Mapping, "mappings from settings to values", found)
    own = {"config": config, "fixed": fixed, "search": search, "experiments": tuple(experiments)}
    own["starts"] = tuple(dict(settings) for settings in starts)
    rest = {key: {} if value is None and key in SECTIONS else value for key, value in tree.items() if key not in own}
    found += first_ones(_field_mistakes(rest))
    found += search_mistakes
    found += first_ones(trial_mistakes(config, fixed, search, experiments, starts, bare=bare))
    if found:
        raise SpecError(shortened(found))
    return SweepSpec.model_validate({**rest, **own})


def _given(tree: Tree, name: str, default: Any) -> Any:
    return default if tree.get(name) is None else tree[name]


def _section(tree: Tree, name: str, mistakes: list[str]) -> dict[str, Any]:
    section = _given(tree, name, {})
    if isinstance(section, Mapping):
        return dict(section)
    mistakes.append(f"{name}: must be a mapping from settings to values, got {shown(section)}.")
    return {}


def _list_of(tree: Tree, name: str, kind: type, of_what: str, mistakes: list[str]) -> list[Any]:
    items = _given(tree, name, [])
    if isinstance(items, list) and all(isinstance(item, kind) for item in items):
        return items
    remedy = f" Put it in brackets: [{shown(items)[1:-1]}]." if kind is str and isinstance(items, str) else ""
    mistakes.append(f"{name}: must be a list of {of_what}, got {shown(items)}.{remedy}")
    return []


def _field_mistakes(fields: Tree) -> Iterator[str]:
    for key in fields:
        if key in TRIAL_SETTINGS:
            yield f"{key}: must be under config, fixed or search, since it is a setting of a trial."
    try:
        SweepSpec.model_validate({key: value for key, value in fields.items() if key not in TRIAL_SETTINGS})
    except ValidationError as error:
        yield from sentences(error, SweepSpec)
