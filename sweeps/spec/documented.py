"""What belongs to a family: the settings that mean something in it, and its documented experiments.

The experiments are read from ``experiments.yaml``, and are the first trials of every sweep of their family. They run
with exactly the settings they were described with, and are never stopped early.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from carcls.catalog import find_family
from carcls.config import NEIGHBOUR_SETTINGS, Part, settings_of
from carcls.errors import nearest, shown
from sweeps.spec.yaml_text import read_packaged

# The mark of every number that was measured on images whose like had been trained on.
LEAK_MARK = "†"


def applies_to(family: str, setting: str) -> bool:
    """Tell whether a setting of trials means anything in a family; what is no setting of trials does.

    >>> applies_to("scratch", "backbone"), applies_to("retrieval", "k"), applies_to("transfer", "epochs")
    (False, True, True)
    """
    record = find_family(family)
    foreign = settings_of(Part.ARCHITECTURE if record.pretrained else Part.PRETRAINED)
    return setting not in (*foreign, *(() if record.neighbours else NEIGHBOUR_SETTINGS))


def settings_for(family: str, sets: Sequence[str]) -> tuple[str, ...]:
    """Return those ``KEY=VALUE`` texts that mean something in a family; what cannot be read is left for its reader.

    >>> settings_for("scratch", ["backbone=resnet50", "search.k=[1]", "epochs=5", "config.width=16"])
    ('epochs=5', 'config.width=16')
    """
    return tuple(text for text in sets if applies_to(family, setting_of(text)))


def setting_of(text: str) -> str:
    """Return the setting that a ``KEY=VALUE`` text is about, or the first part of its path.

    >>> [setting_of(text) for text in ("epochs=5", "search.k=[1]", "data.margin=0.1")]
    ['epochs', 'k', 'data.margin']
    """
    key = text.partition("=")[0].strip()
    section, _, rest = key.partition(".")
    return rest.partition(".")[0] if section in ("config", "fixed", "search") and rest else key


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
            settings = {**inherited, **said["settings"], **own.pop("settings", {})}
            documented, note = MappingProxyType(own.pop("reported")), own.pop("note", said["note"])
            yield DocumentedExperiment(f"{family}/{name}", family, MappingProxyType(settings), documented, note, **own)


EXPERIMENTS: tuple[DocumentedExperiment, ...] = tuple(_read_experiments())


def experiments_of(family: str) -> tuple[DocumentedExperiment, ...]:
    """Return the experiments of ``family`` in their documented order; none for a family that has none."""
    return tuple(experiment for experiment in EXPERIMENTS if experiment.family == family)


def find_experiment(name: str) -> DocumentedExperiment:
    """Return the experiment called ``name``.

    Raises:
        ValueError: there is none; the message lists the known names and the nearest.
    """
    known = {experiment.name: experiment for experiment in EXPERIMENTS}
    if name not in known:
        raise ValueError(f"must be a documented one, got {shown(name)}." + nearest(name, known))
    return known[name]


# The name of one, as a spec has it.
Experiment = Annotated[
    str,
    AfterValidator(lambda name: find_experiment(name).name),
    Field(json_schema_extra={"enum": [experiment.name for experiment in EXPERIMENTS]}),
]
