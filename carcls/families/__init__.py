"""The families: the one way to run a trial of any of them, and what can be said of trials before any runs.

A family is a record in ``carcls.catalog.FAMILIES``, a class with the methods of ``FamilyTrial`` that it names, and a
packaged spec. Importing this package loads no torch; its functions do, where they touch tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from carcls.catalog import BackboneRecord, find_family
from carcls.config import SCRATCH, TrialConfig
from carcls.data.dataset import Dataset
from carcls.errors import InputError
from carcls.evaluation.significance import wilson_interval
from carcls.models.networks import Network, know_network
from carcls.models.weights import LATER, RANDOM
from carcls.outcome import Outcome, Report
from carcls.stages import StageStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from carcls.evaluation.confidence import Confidence
    from carcls.models.classifier import Classifier
    from carcls.neighbours.gallery import Gallery


@dataclass(frozen=True, slots=True)
class TestScore:
    """One test evaluation.

    Attributes:
        metrics: ``test_loss`` in nats, and ``test_accuracy``, ``test_f1``, … in [0, 1].
        interval: 95% Wilson interval of the accuracy.
        images: how many were evaluated.
    """

    __test__ = False  # the name is no test case's

    metrics: Mapping[str, float]
    interval: tuple[float, float]
    images: int


class FamilyTrial(Protocol):
    """What a family's class offers, for one trial; what is alike in all families is done by the functions below."""

    def __init__(self, config: TrialConfig, data: Dataset, stages: StageStore) -> None: ...

    def run(self, report: Report) -> Outcome:
        """Do what ``run_trial`` says."""

    def train(self) -> Path:
        """Return the folder of the model that ``refit_trial`` names."""

    def exported(self, model: str) -> tuple[Classifier, Gallery | None]:
        """Return the model as ``write_export`` takes it."""


def _trial(config: TrialConfig, data: Dataset, stages: StageStore) -> FamilyTrial:
    kind: type[FamilyTrial] = resolve_name(find_family(config.family).trial)
    return kind(config, data, stages)


def known_costs(config: TrialConfig, classes: int) -> dict[str, float]:
    """Return those costs of a trial's answers that are known before it runs: ``parameters``.

    A classifier has a head for its classes; where neighbours answer only the extractor counts, not the gallery.

    Raises:
        InputError: the network cannot be built.
    """
    from carcls.training.measured import count_parameters

    return {"parameters": float(count_parameters(config, 0 if config.has_neighbours else classes))}


def run_trial(config: TrialConfig, data: Dataset, stages: StageStore, report: Report) -> Outcome:
    """Run one trial, or answer it from the store. Each epoch is reported, those of a stored trial as well.

    Raises:
        TrialFailure: the trial cannot go on; says why.
    """
    return _trial(config, data, stages).run(report)


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
    return _trial(config, data, stages).train().relative_to(stages.root).as_posix()


def label_test(folder: Path, data: Dataset, stages: StageStore) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what an exported model, perhaps of other data, says to the test images; the caller counts it.

    As ``carcls.families.testing.label_test``, which loads torch.
    """
    from carcls.families import testing

    return testing.label_test(folder, data, stages)


def evaluate_on_test(
    config: TrialConfig,
    data: Dataset,
    stages: StageStore,
    model: str,
    predictions: Path | None = None,
    folder: Path | None = None,
    details: Mapping[str, Any] | None = None,
    confidence: Confidence | None = None,
) -> TestScore:
    """Evaluate the model of a finished trial once on the test split; the caller counts and records it.

    The model is exported, and what was exported is loaded and answers: what is tested is what is served.

    Args:
        config: a trial that has finished in this store.
        data: with a test split.
        stages: where the trained model is.
        model: the outcome's ``model``; another machine than this one may have trained it.
        predictions: written there as .npz (``rows``, ``labels``, ``predicted``, ``probabilities``) when given.
        folder: gets the export; None where nobody needs it afterwards.
        details: of the export, for whoever opens it.
        confidence: how its answers become probabilities; None where that is not known.
    """
    from carcls.families.testing import answer_test
    from carcls.training.memory import memory_errors_named
    from carcls.training.trained import save_predictions

    rows, labels = data.splits.test, data.labels[data.splits.test]
    with TemporaryDirectory() as passing, memory_errors_named(config):
        place = folder or Path(passing)
        gallery = _export(config, data, stages, model, place, details, confidence, shown=folder is not None)
        predicted, probabilities, metrics = answer_test(place, data, stages, gallery)
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
    confidence: Confidence | None = None,
) -> None:
    """Write the model of a finished trial as a folder that ``carcls.export.load_export`` opens anywhere."""
    _export(config, data, stages, model, folder, details, confidence)


def _export(
    config: TrialConfig,
    data: Dataset,
    stages: StageStore,
    model: str,
    folder: Path,
    details: Mapping[str, Any] | None,
    confidence: Confidence | None,
    shown: bool = True,
) -> Gallery | None:
    """Write the export, with thumbnails of its gallery if people are to be shown them; return the gallery."""
    from carcls.export import write_export
    from carcls.families.thumbnails import make_thumbnail

    classifier, gallery = _trial(config, data, stages).exported(model)
    rows = data.splits.train.tolist() if gallery and shown else []  # the images of every gallery
    write_export(
        folder,
        classifier,
        config,
        classes=data.classes,
        margin=data.margin,
        details=details,
        gallery=gallery,
        confidence=confidence,
        thumbnails=[make_thumbnail(data, stages, row, config.image_size) for row in rows],
    )
    return gallery


def preflight(
    configs: Iterable[TrialConfig], store: Path, *, download: bool = True
) -> tuple[list[str], dict[str, BackboneRecord]]:
    """Check, before anything expensive starts, that what the trials need can be had.

    Args:
        configs: of the trials.
        store: folder of the stages, where it is kept what networks are.
        download: whether weights that can only be downloaded are fetched now.

    Returns:
        Notes for the user, and the figures of each backbone by name.

    Raises:
        WeightsError: pretrained weights cannot be had.
        InputError: a backbone is unknown to timm, does not fit the image size, or cannot pool as the trial asks.
    """
    notes: list[str] = []
    known: dict[TrialConfig, Network] = {}
    for config in {c.digest: c for c in configs}.values():
        if not find_family(config.family).pretrained:
            _require_random(config)
        needed = config.network()
        network = known.get(needed) or know_network(needed, store, download=download)
        known[needed] = network
        _require_pooling(config, network)
        notes += [note for note in _notes_of(config, network) if note not in notes]
    return notes, {config.backbone: network.record for config, network in known.items()}


def _notes_of(config: TrialConfig, network: Network) -> list[str]:
    if network.weights == LATER:
        return [f"The weights of {config.backbone} are not on this machine yet; the sweep downloads them first."]
    if find_family(config.family).pretrained and network.weights == RANDOM:
        return [f"{config.backbone} starts from random weights: nothing is transferred."]
    return []


def _require_pooling(config: TrialConfig, network: Network) -> None:
    if config.pooling not in network.poolings:
        raise InputError(
            f"pooling must be average for {config.backbone}, which has no feature maps to pool, got "
            f"{config.pooling!r}. Use --set pooling=average, or another backbone."
        )


def _require_random(config: TrialConfig) -> None:
    """Refuse weights, which would be loaded for another backbone and ignored by ``scratch``."""
    if config.weights == "random" or (config.backbone == SCRATCH and config.weights == "auto"):
        return
    if config.backbone == SCRATCH:
        raise InputError(
            f"weights must be random for a network that is trained from scratch, got {config.weights!r}. "
            "Leave --weights out."
        )
    raise InputError(
        f"backbone must be {SCRATCH}, or have random weights, in the scratch family, got {config.backbone!r} with "
        f"weights {config.weights!r}. Use --set backbone={SCRATCH} or --weights random; or carsweep run transfer."
    )


FACE = {
    "labels": ("LabelAudit", "audit_labels"),
    "nearest": ("find_nearest",),
    "retrieval": ("RetrievalTrial",),
    "votes": ("kept_answers",),
}
"""What other rooms may import, by module."""
