"""The families, and the one way to run a trial of any of them.

Importing this package loads no torch; the functions do, where they touch tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from carcls.config import SCRATCH, Family, TrialConfig
from carcls.data.dataset import Dataset
from carcls.families.checks import preflight
from carcls.outcome import Outcome, Report
from carcls.stages import StageStore

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


class FamilyModule(Protocol):
    """What a module of a family offers."""

    run: Callable[[TrialConfig, Dataset, StageStore, Report], Outcome]
    refit: Callable[[TrialConfig, Dataset, StageStore], str]
    evaluate_on_test: Callable[[TrialConfig, Dataset, StageStore, str, Path | None], TestScore]
    export: Callable[[TrialConfig, Dataset, StageStore, str, Path, Mapping[str, Any]], None]


_MODULES: Mapping[Family, str] = {
    "transfer": "carcls.families.classifying",
    "retrieval": "carcls.families.retrieval",
    "scratch": "carcls.families.classifying",
}


def _module(family: Family) -> FamilyModule:
    return cast(FamilyModule, import_module(_MODULES[family]))


def known_costs(config: TrialConfig, classes: int) -> dict[str, float]:
    """Return those costs of a trial's answers that are known before it runs: ``parameters``.

    A classifier has a head for its classes; in retrieval only the extractor counts, not the gallery.

    Raises:
        InputError: the network cannot be built.
    """
    from carcls.training.measured import count_parameters

    return {"parameters": float(count_parameters(config, 0 if config.family == "retrieval" else classes))}


def run_trial(config: TrialConfig, data: Dataset, stages: StageStore, report: Report) -> Outcome:
    """Run one trial, or answer it from the store. Each epoch is reported, those of a stored trial as well.

    Raises:
        TrialFailure: the trial cannot go on; says why.
    """
    return _module(config.family).run(config, data, stages, report)


def load_libraries(config: TrialConfig) -> None:
    """Load what answering images with a trial's model takes, for seconds, so that it is there when it is needed."""
    _module(config.family)
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
    return _module(config.family).refit(config, data, stages)


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
    return _module(config.family).evaluate_on_test(config, data, stages, model, predictions)


def export_trial(
    config: TrialConfig,
    data: Dataset,
    stages: StageStore,
    model: str,
    folder: Path,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write the model of a finished trial as a folder that ``carcls.export.load_export`` opens anywhere."""
    _module(config.family).export(config, data, stages, model, folder, details or {})
