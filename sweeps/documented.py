"""The documented experiments: exactly the settings they were described with, and the scores they were reported with.

They are the first trials of every sweep of their family, and are never stopped early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from carcls.errors import nearest


@dataclass(frozen=True, slots=True)
class DocumentedExperiment:
    """An experiment as it was documented.

    Attributes:
        name: ``<family>/<what it is>``.
        family: which family runs it.
        settings: fields of a TrialConfig; everything that was documented is here, so that nothing else can change it.
        documented: reported ``accuracy``, ``f1``, ``precision`` and ``recall`` in [0, 1], and ``loss`` in nats.
        approximate: the reported numbers were rounded ("about 47%").
        note: how the number was really made, for whoever compares with it.
    """

    name: str
    family: str
    settings: Mapping[str, Any]
    documented: Mapping[str, float]
    note: str
    approximate: bool = field(default=False)

    # A mapping proxy cannot be pickled, and workers may be handed an experiment.
    def __reduce__(self) -> tuple[Any, ...]:
        return (find_experiment, (self.name,))


_TRANSFER: dict[str, Any] = {
    "backbone": "resnet50",
    "weights": "auto",
    "image_size": 224,
    "dropout": 0.0,
    "unfreezing": "frozen",
    "optimizer": "adam",
    "head_lr": 1e-3,
    "backbone_lr": 1e-3,
    "weight_decay": 0.0,
    "lr_schedule": "step",
    "step_epochs": 7,
    "step_gamma": 0.1,
    "label_smoothing": 0.0,
    "clip_norm": 0.0,
    "crop": "none",
    "flip": False,
    "rotation": 0.0,
    "jitter": 0.0,
    "augmentation_strength": 1.0,
    "epochs": 10,
    "batch_size": 32,
}
_AUGMENTED: dict[str, Any] = {"crop": "random", "flip": True, "rotation": 15.0}

_FROZEN_NOTE = (
    "Made on whole pictures, without cutting to the bounding boxes. There a linear head on these features usually "
    "reaches 45–47%; on cut pictures expect more."
)
_FINETUNED_NOTE = (
    "Made on whole pictures, without cutting to the bounding boxes. The run behind the number trained the head alone "
    "for 5 epochs at 1e-3 and then everything for 5 epochs at 1e-4, and was still climbing when it ended. Two thirds "
    "of the test split served as validation data; the score is that of the other 2,681 images (95% interval ±1.7 "
    "points)."
)


def _transfer(
    name: str,
    changes: Mapping[str, Any],
    reported: Mapping[str, float],
    note: str,
    *,
    approximate: bool = False,
) -> DocumentedExperiment:
    settings = MappingProxyType({**_TRANSFER, **changes})
    return DocumentedExperiment(name, "transfer", settings, MappingProxyType(dict(reported)), note, approximate)


EXPERIMENTS: tuple[DocumentedExperiment, ...] = (
    _transfer(
        "transfer/frozen",
        {},
        {"accuracy": 0.4237, "f1": 0.4196, "loss": 2.3724, "precision": 0.4291, "recall": 0.4237},
        _FROZEN_NOTE,
    ),
    _transfer(
        "transfer/frozen-augmented",
        _AUGMENTED,
        {"accuracy": 0.47, "f1": 0.47, "loss": 2.0, "precision": 0.50, "recall": 0.47},
        _FROZEN_NOTE + " The reported numbers are rounded.",
        approximate=True,
    ),
    _transfer(
        "transfer/finetuned",
        {**_AUGMENTED, "unfreezing": "full", "dropout": 0.5},
        {"accuracy": 0.7378, "f1": 0.7363, "loss": 0.9012, "precision": 0.7818, "recall": 0.7378},
        _FINETUNED_NOTE,
    ),
)


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
    raise ValueError(f"experiment must be a documented one, got {name!r}." + nearest(str(name), known))
