"""What is to be run, and where: one sweep, or the sweeps of a job. No torch, no ray.

A job has the sweeps of all families, or those of documented experiments.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carcls.catalog import FAMILIES
from carcls.errors import InputError, SpecError
from sweeps.spec.documented import (
    EXPERIMENTS,
    DocumentedExperiment,
    applies_to,
    find_experiment,
    setting_of,
    settings_for,
)
from sweeps.spec.fields import EarlyStopping, usable_as_folder
from sweeps.spec.loading import edit_spec, load_spec
from sweeps.spec.mistakes import Mistakes
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import Kind

# A reproduction runs the documented trials and no others, so these would be asked for in vain.
_SEARCH_ONLY = (
    "family",
    "name",
    "trials",
    "experiments",
    "starts",
    "search",
    "sampler",
    "config",
    "early_stopping",
    "model_name",
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command that runs sweeps, or goes on with them.

    Attributes:
        kind: ``sweep``, or the job ``all`` or ``reproduce``.
        name: of the sweep or the job.
        specs: of its sweeps in their order, each with its name.
        tracking_uri: MLflow's, as it was given; None is a database under ``out``.
        changes: of the specs since trials were asked last, in words; None, where nothing goes on by ``resume``, allows
            no change of a search.
        out: folder of all sweeps, as it was given. On a cluster every machine must see it under this path.
        address: of a running Ray cluster; None runs the trials on this machine.
        notify: an address on the web that hears of the end. A secret: it is not written down.
        runs_trials: whether trials that are owed are run; otherwise the best of those that ended is registered.
    """

    kind: Kind
    name: str
    specs: tuple[SweepSpec, ...]
    tracking_uri: str | None = None
    changes: tuple[str, ...] | None = None
    out: Path = Path("runs")
    address: str | None = None
    notify: str | None = field(default=None, repr=False)
    runs_trials: bool = True

    @property
    def is_job(self) -> bool:
        """Whether it runs several sweeps, or could."""
        return self.kind != "sweep"

    @property
    def root(self) -> Path:
        """The folder of all sweeps, absolute."""
        return self.out.expanduser().absolute()


def default_name(what: str) -> str:
    """Return the name of a sweep or job that was given none: what it is, and when it began."""
    return f"{what}-{time.strftime('%Y%m%d-%H%M%S')}"


def specs_of_all(
    *, name: str, sets: Sequence[str], overrides: Mapping[str, Any], trials: int | None
) -> tuple[SweepSpec, ...]:
    """Return the sweeps of all families, called ``<name>-<family>``.

    A setting reaches the families that it means something in, an experiment its own. ``trials`` are for all together:
    each family gets its documented experiments, and an equal share of the rest.

    Raises:
        SpecError: a setting is wrong, or there are fewer trials than documented experiments.
    """
    if any(setting_of(text) == "trials" for text in sets):
        raise SpecError(["trials: must be given as --trials, which is for all families together."])
    specs = _load_specs([*FAMILIES], name, sets, overrides)
    for place, spec in enumerate(specs):
        own = tuple(name for name in spec.experiments if find_experiment(name).family == spec.family)
        specs[place] = spec.model_copy(update={"experiments": own})
    if trials is None:
        return tuple(specs)
    least = [max(1, len(spec.experiments)) for spec in specs]
    if trials < sum(least):
        raise SpecError(
            [
                f"--trials: must be at least {sum(least)}, for the documented experiments of each family and one trial "
                f"at the least, got {trials}."
            ]
        )
    rest = divided(trials - sum(least), len(specs))
    counts = [own + more for own, more in zip(least, rest, strict=True)]
    return tuple(spec.model_copy(update={"trials": count}) for spec, count in zip(specs, counts, strict=True))


def divided(number: int, parts: int) -> list[int]:
    """Return a whole number in so many parts, of which the first ones are larger by 1 where it does not go up.

    >>> divided(7, 3)
    [3, 2, 2]
    """
    return [number // parts + (place < number % parts) for place in range(parts)]


def chosen_experiments(names: Sequence[str], family: str | None) -> tuple[DocumentedExperiment, ...]:
    """Return the experiments that are asked for, all of them when none is, in the documented order.

    Raises:
        InputError: a name is unknown, or of another family than ``family``.
    """
    try:
        wanted = [find_experiment(name) for name in names]
    except ValueError as error:
        raise InputError(f"experiment {error}") from None
    strangers = [experiment.name for experiment in wanted if family not in (None, experiment.family)]
    if strangers:
        raise InputError(
            f"experiment must be of the family {family}, got {', '.join(map(repr, strangers))}. Leave --family out."
        )
    return tuple(e for e in EXPERIMENTS if family in (None, e.family) and (not wanted or e in wanted))


def specs_of_experiments(
    experiments: Sequence[DocumentedExperiment],
    *,
    name: str,
    sets: Sequence[str],
    overrides: Mapping[str, Any],
    demo_scale: bool,
) -> tuple[SweepSpec, ...]:
    """Return one sweep a family, called ``<name>-<family>``, of exactly these experiments and no search.

    Without a data set of the user's they run at the scale of the demo presets.

    Args:
        experiments: to be run.
        name: of the reproduction.
        sets: ``KEY=VALUE`` texts; each reaches the families that it means something in.
        overrides: options of the command line, as ``load_spec`` takes them.
        demo_scale: whether to scale down as the demo presets do.

    Raises:
        SpecError: a setting is wrong, or would change nothing.
    """
    families = [family for family in FAMILIES if any(experiment.family == family for experiment in experiments)]
    mistakes = [mistake for text in sets for mistake in _vain(text, families)]
    if mistakes:
        raise SpecError(mistakes)
    specs = []
    for spec in _load_specs(families, name, sets, overrides, demo=demo_scale):
        names = tuple(experiment.name for experiment in experiments if experiment.family == spec.family)
        only: dict[str, Any] = {"experiments": names, "trials": len(names), "search": {}, "starts": (), "config": {}}
        specs.append(spec.model_copy(update={**only, "early_stopping": EarlyStopping(enabled=False)}))
    return tuple(specs)


def _vain(text: str, families: Sequence[str]) -> list[str]:
    """Return what is wrong with a ``--set`` that no experiment would notice."""
    key = text.partition("=")[0].strip()
    if key.partition(".")[0] in _SEARCH_ONLY:
        return [f"--set {key}: must be a setting that experiments run with, got {text!r}. There is no search here."]
    if not any(settings_for(family, [text]) for family in families):
        return [f"--set {key}: must mean something in {' or '.join(families)}, got {text!r}. Leave it out."]
    return []


def with_model_of_its_own(spec: SweepSpec) -> SweepSpec:
    """Return the spec of one of several families, whose winners would else share the name that the user gave."""
    return edit_spec(spec, [], {"model_name": f"{spec.model_name}-{spec.family}"}) if spec.model_name else spec


def _fitting(family: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what means something in a family, also of the settings in a section such as ``search``."""
    return {
        name: _fitting(family, value) if name in ("config", "fixed", "search") and isinstance(value, Mapping) else value
        for name, value in said.items()
        if applies_to(family, name)
    }


def _load_specs(
    families: Sequence[str], name: str, sets: Sequence[str], overrides: Mapping[str, Any], *, demo: bool = False
) -> list[SweepSpec]:
    """Return a spec for each family, of the settings that mean something in it.

    Raises:
        SpecError: the mistakes of all families, each once.
    """
    specs: list[SweepSpec] = []
    mistakes = Mistakes()
    with mistakes:
        for folder in (name, f"{name}-{max(FAMILIES, key=len)}"):  # of the job, and the longest of its sweeps
            try:
                usable_as_folder(folder)
            except ValueError as error:
                raise SpecError([str(error).replace("name must", "name: must", 1)]) from None
    stem = "" if mistakes.found else f"{name}-"  # a name that cannot be is told once, not in each family
    for family in families:
        named = {**_fitting(family, overrides), "name": f"{stem}{family}"}
        with mistakes:
            spec = load_spec(family, sets=settings_for(family, sets), overrides=named, demo=demo)
            specs.append(with_model_of_its_own(spec))
    mistakes.raise_all()
    return specs
