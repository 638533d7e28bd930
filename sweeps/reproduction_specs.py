"""Which documented experiments are reproduced, and the sweeps that run exactly them. No torch, no ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from carcls.errors import InputError, SpecError
from sweeps.documented import EXPERIMENTS, DocumentedExperiment, find_experiment
from sweeps.spec import FAMILIES, SweepSpec
from sweeps.spec_families import overrides_for, settings_for
from sweeps.spec_fields import RESERVED_NAMES
from sweeps.spec_loading import load_spec
from sweeps.spec_stopping import EarlyStopping

# A reproduction runs the documented trials and no others, so these would be asked for in vain.
_SEARCH_ONLY = ("family", "name", "trials", "experiments", "starts", "search", "config", "early_stopping")


def chosen_experiments(names: Sequence[str], family: str | None) -> tuple[DocumentedExperiment, ...]:
    """Return the experiments that are asked for, all of them when none is, in the documented order.

    Raises:
        InputError: a name is unknown, or of another family than ``family``.
    """
    try:
        wanted = {find_experiment(name).name for name in names}
    except ValueError as error:
        raise InputError(str(error)) from None
    strangers = [name for name in names if family not in (None, find_experiment(name).family)]
    if strangers:
        raise InputError(
            f"experiment must be of the family {family}, got {', '.join(map(repr, strangers))}. Leave --family out."
        )
    return tuple(
        experiment
        for experiment in EXPERIMENTS
        if family in (None, experiment.family) and (not wanted or experiment.name in wanted)
    )


def reproduction_specs(
    experiments: Sequence[DocumentedExperiment],
    *,
    name: str,
    sets: Sequence[str],
    overrides: Mapping[str, Any],
    demo_scale: bool,
) -> tuple[SweepSpec, ...]:
    """Return one spec a family, of exactly these experiments and no search.

    Without a data set of the user's they run at the scale of the demo presets.

    Args:
        experiments: to be run.
        name: of the reproduction; the sweeps are called ``<name>-<family>``.
        sets: ``KEY=VALUE`` texts; each reaches the families that it means something in.
        overrides: options of the command line, as ``load_spec`` takes them.
        demo_scale: whether to scale down as the demo presets do.

    Raises:
        InputError: the name is one that carsweep uses.
        SpecError: a setting is wrong, or would change nothing.
    """
    if name in RESERVED_NAMES:
        raise InputError(
            f"--name must be none of {', '.join(RESERVED_NAMES)}, which carsweep uses, got {name!r}. Give another."
        )
    families = [family for family in FAMILIES if any(experiment.family == family for experiment in experiments)]
    mistakes = [mistake for text in sets for mistake in _vain(text, families)]
    if mistakes:
        raise SpecError(mistakes)
    specs = []
    for family in families:
        given = {**overrides_for(family, overrides), "name": f"{name}-{family}"}
        spec = load_spec(family, sets=settings_for(family, sets), overrides=given, demo=demo_scale)
        names = tuple(experiment.name for experiment in experiments if experiment.family == family)
        only: dict[str, Any] = {"experiments": names, "trials": len(names), "search": {}, "starts": (), "config": {}}
        only["early_stopping"] = EarlyStopping(enabled=False)
        specs.append(SweepSpec.model_validate({**dict(spec), **only}))
    return tuple(specs)


def _vain(text: str, families: Sequence[str]) -> list[str]:
    """Return what is wrong with a ``--set`` that no experiment would notice."""
    key = text.partition("=")[0].strip()
    if key.partition(".")[0] in _SEARCH_ONLY:
        return [f"--set {key}: must be a setting that experiments run with, got {text!r}. There is no search here."]
    if not any(settings_for(family, [text]) for family in families):
        return [f"--set {key}: must mean something in {' or '.join(families)}, got {text!r}. Leave it out."]
    return []
