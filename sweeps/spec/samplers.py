"""Which samplers a sweep may name, and what each can take; without Optuna, whose objects ``sweeps.study`` builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from carcls.errors import nearest, shown


@dataclass(frozen=True, slots=True)
class SamplerKind:
    """What a sampler is, and what it can take.

    Attributes:
        about: what it does, in a sentence for help.
        conditions: settings that only some trials have: those with ``when``, or a frozen backbone's learning rate.
        categories: lists of choices, which have no order.
        several_objectives: more than one objective.
    """

    about: str
    conditions: bool = True
    categories: bool = True
    several_objectives: bool = True


# QMC and GP want the same settings in every trial: a setting that some lack is drawn at random, beside the others.
SAMPLERS: dict[str, SamplerKind] = {
    "tpe": SamplerKind("learns which values good trials have (tree-structured Parzen estimator)"),
    "random": SamplerKind("draws without looking at any result"),
    "qmc": SamplerKind("spreads trials evenly over the space (Sobol sequence)", conditions=False),
    "gp": SamplerKind(
        "models the score over the whole space (Gaussian process); for few, costly trials", conditions=False
    ),
}


def _known(name: str) -> str:
    if name not in SAMPLERS:
        raise ValueError(f"must be a known one, got {shown(name)}." + nearest(name, SAMPLERS))
    return name


# The name of one, as a spec has it.
SamplerName = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": [*SAMPLERS]})]
