"""The families, and the one way to run a trial of any of them.

A family is a class with the methods of ``FamilyTrial`` in a module of its own, named by ``FAMILIES``, and a packaged
spec. Importing this package loads no torch; the functions do, where they touch tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from carcls.config import SCRATCH, Family, TrialConfig
from carcls.data.dataset import Dataset
from carcls.evaluation.significance import wilson_interval
from carcls.families.checks import preflight
from carcls.outcome import Outcome, Report
from carcls.stages import StageStore

if TYPE_CHECKING:
    from carcls.models.classifier import Classifier
    from carcls.neighbours.gallery import Gallery

__all__ = [
    "TestScore",
    "evaluate_on_test",
    "export_trial",
    "known_costs",
    "load_libraries",
    "preflight",
    "refit_trial",
    "run_trial",
]


@dataclass(frozen=True, slots=True)
class TestScore:
    """One reading of the test split.

    Attributes:
        metrics: ``test_loss`` in nats, and ``test_accuracy``, ``test_f1``, … in [0, 1].
        interval: 95% Wilson interval of the accuracy.
        images: how many were read.
    """

    __test__ = False  # the name is no test case's

    metrics: Mapping[str, float]
    interval: tuple[float, float]
    images: int


class FamilyTrial(Protocol):
    """What a family's class offers, for one trial; what is alike in all families is done by the functions below."""

    has_head: ClassVar[bool]
    """Whether a head with a weight for each class belongs to what answers."""

    def __init__(self, config: TrialConfig, data: Dataset, stages: StageStore) -> None: ...

    def run(self, report: Report) -> Outcome:
        """Do what ``run_trial`` says."""

    def train(self) -> Path:
        """Return the folder of the model that ``refit_trial`` names."""

    def answer_test(self, model: str) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, float]]:
        """Return the classes int64 [n], probabilities float32 [n, c] and measures of the test images."""

    def exported(self, model: str) -> tuple[Classifier, Gallery | None]:
        """Return the model as ``write_export`` takes it."""


# The module and the class of each family. Modules load PyTorch, so each is imported when it is needed.
FAMILIES: Mapping[Family, tuple[str, str]] = {
    "transfer": ("carcls.families.classifying", "ClassifyingTrial"),
    "retrieval": ("carcls.families.retrieval", "RetrievalTrial"),
    "scratch": ("carcls.families.classifying", "ClassifyingTrial"),
}


def _family(config: TrialConfig) -> type[FamilyTrial]:
    module, name = FAMILIES[config.family]
    return cast("type[FamilyTrial]", getattr(import_module(module), name))


def known_costs(config: TrialConfig, classes: int) -> dict[str, float]:
    """Return those costs of a trial's answers that are known before it runs: ``parameters``.

    A classifier has a head for its classes; in retrieval only the extractor counts, not the gallery.

    Raises:
        InputError: the network cannot be built.
    """
    from carcls.training.measured import count_parameters

    return {"parameters": float(count_parameters(config, classes if _family(config).has_head else 0))}


def run_trial(config: TrialConfig, data: Dataset, stages: StageStore, report: Report) -> Outcome:
    """Run one trial, or answer it from the store. Each epoch is reported, those of a stored trial as well.

    Raises:
        TrialFailure: the trial cannot go on; says why.
    """
    return _family(config)(config, data, stages).run(report)


def load_libraries(config: TrialConfig) -> None:
    """Load what answering images with a trial's model takes, for seconds, so that it is there when it is needed."""
    _family(config)
    if config.backbone != SCRATCH:
        import_module("timm")


def refit_trial(config: TrialConfig, data: Dataset, stages: StageStore) -> str:
    """Train a trial once more on training and validation images, for its own number of epochs, or find it trained.

    What was trained before it was interrupted is not trained again. There is no score of it but the test split's.

    Args:
        config: of a trial that has finished.
        data: from ``Dataset.refitted``.
        stages: where the model is put.

    Returns:
        The folder of the model relative to the store, as ``Outcome.model``.

    Raises:
        TrialFailure: training cannot go on.
    """
    return _family(config)(config, data, stages).train().relative_to(stages.root).as_posix()


def evaluate_on_test(
    config: TrialConfig, data: Dataset, stages: StageStore, model: str, predictions: Path | None = None
) -> TestScore:
    """Read the test split once with the model of a finished trial; the caller counts and records the reading.

    Args:
        config: a trial that has finished in this store.
        data: with a test split.
        stages: where the trained model is.
        model: the outcome's ``model``; another machine than this one may have trained it.
        predictions: written there as .npz (``rows``, ``labels``, ``predicted``, ``probabilities``) when given.
    """
    from carcls.training.trained import save_predictions

    rows, labels = data.splits.test, data.labels[data.splits.test]
    predicted, probabilities, metrics = _family(config)(config, data, stages).answer_test(model)
    if predictions is not None:
        save_predictions(predictions, rows, labels, predicted, probabilities)
    return TestScore(metrics, wilson_interval(int((predicted == labels).sum()), len(rows)), len(rows))


def export_trial(
    config: TrialConfig,
    data: Dataset,
    stages: StageStore,
    model: str,
    folder: Path,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write the model of a finished trial as a folder that ``carcls.export.load_export`` opens anywhere."""
    from carcls.export import write_export

    classifier, gallery = _family(config)(config, data, stages).exported(model)
    write_export(folder, classifier, config, classes=data.classes, margin=data.margin, details=details, gallery=gallery)
