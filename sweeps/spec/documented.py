"""The documented experiments, read from ``experiments.yaml``: the first trials of every sweep of their family.

They run with exactly the settings they were described with, and are never stopped early.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator

from carcls.errors import nearest, shown
from sweeps.spec.yaml_text import read_packaged

# Stands beside every number that was measured on images whose like had been trained on.
LEAK_MARK = "†"


@dataclass(frozen=True, slots=True)
class DocumentedExperiment:
    """An experiment as it was documented.

    Attributes:
        name: ``<family>/<what it is>``.
        family: which family runs it.
        settings: fields of a TrialConfig; everything that was documented is here, so that nothing else can change it.
        documented: reported ``accuracy``, ``f1``, ``precision`` and ``recall`` in [0, 1], ``loss`` in nats, and for
            retrieval ``fit_seconds`` and ``predict_seconds``; what was not reported is absent.
        note: how the number was really made, for whoever compares with it.
        approximate: the reported numbers were rounded ("about 47%").
        leaked: the reported numbers were measured on images whose like had been trained on; they are not comparable.
    """

    name: str
    family: str
    settings: Mapping[str, Any]
    documented: Mapping[str, float]
    note: str
    approximate: bool = False
    leaked: bool = False


def _read_experiments() -> Iterator[DocumentedExperiment]:
    families = read_packaged(Path(__file__).with_name("experiments.yaml"))
    for family, said in families.items():
        like = families[said["like"]]["settings"] if "like" in said else {}
        inherited = {name: value for name, value in like.items() if name not in said.get("without", ())}
        for name, own in said["experiments"].items():
            settings = {**inherited, **said["settings"], **own.get("settings", {})}
            yield DocumentedExperiment(
                name=f"{family}/{name}",
                family=family,
                settings=MappingProxyType(settings),
                documented=MappingProxyType(own["reported"]),
                note=own.get("note", said["note"]),
                approximate=own.get("approximate", False),
                leaked=own.get("leaked", False),
            )


EXPERIMENTS: tuple[DocumentedExperiment, ...] = tuple(_read_experiments())


def experiments_of(family: str) -> tuple[DocumentedExperiment, ...]:
    """Return the experiments of ``family`` in their documented order; none for a family that has none."""
    return tuple(experiment for experiment in EXPERIMENTS if experiment.family == family)


def find_experiment(name: str) -> DocumentedExperiment:
    """Return the experiment called ``name``.

    Raises:
        ValueError: there is none; the message lists the known names and the nearest.
    """
    for experiment in EXPERIMENTS:
        if experiment.name == name:
            return experiment
    known = [experiment.name for experiment in EXPERIMENTS]
    raise ValueError(f"must be a documented one, got {shown(name)}." + nearest(str(name), known))


# The name of one, as a spec has it.
Experiment = Annotated[str, AfterValidator(lambda name: find_experiment(name).name)]
