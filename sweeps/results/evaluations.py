"""Test evaluations: the test images are evaluated once for a model, which is exported as it was evaluated.

``test.json`` is of the winner, ``test-NNNN.json`` of a documented experiment. Each counts its evaluations and names the
models; one is counted before it happens, so that one whose score was lost with its process counts too, and one that
failed without a score does not.

``evaluate`` and ``export`` are computed in a trial's process (see sweeps.engine.task): arguments and answers
travel, and only there are arrays and networks imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.errors import InputError, TrialFailure
from carcls.stages import write_json
from sweeps.results.models import answers_on_disk, in_parts, model_on_disk
from sweeps.results.result import TestEvaluation

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from carcls.evaluation.confidence import Confidence
    from carcls.stages import StageStore
    from sweeps.trial import TrialRecord


def find_evaluation(record: TrialRecord, data: Dataset, path: Path, *, refit: bool) -> TestEvaluation | None:
    """Return the test score in ``path``, if it is of this trial's model on this data, or of its refit."""
    written, key = _written(path), _key(record, data, refit=refit)
    if {name: written.get(name) for name in key} != key:
        return None
    return _evaluation(written, path, refit=refit)


def _evaluation(written: Mapping[str, Any], path: Path, *, refit: bool) -> TestEvaluation:
    (low, high), counted, sure = written["interval"], count_evaluations(path.parent), written.get("confidence", {})
    return TestEvaluation(written["metrics"], (low, high), written["images"], *counted, refit, sure)


def evaluate(
    data: Dataset,
    stages: StageStore,
    *,
    record: TrialRecord,
    refit: bool,
    path: Path,
    predictions: Path,
    folder: Path | None = None,
    details: Mapping[str, Any] | None = None,
    micro_batch: int | None = None,
) -> tuple[TestEvaluation, list[str]]:
    """Return the test score of a complete trial, and what a person should know of its model.

    Args:
        data, stages: of the sweep.
        record: of the trial, whose model has not been evaluated before or whose score was lost.
        refit: evaluate another model, its settings trained on the validation images too.
        path: of the score, in the sweep's folder.
        predictions: gets the answers to the images.
        folder: gets the exported model, which is what answers; None where nobody needs it afterwards.
        details: of the export, for whoever opens it.
        micro_batch: the images that a model which is to be trained sees at a time; None is the trial's own.

    Raises:
        TrialFailure: the model is gone, or not there yet, and cannot be made.
    """
    from carcls.families import evaluate_on_test

    model, trained_on, notes = _made(data, stages, record, micro_batch, refit=refit)
    written, key = _written(path), _key(record, data, refit=refit)
    models = dict.fromkeys([*written["models"], "/".join(key.values())])
    counted = {"readings": written["readings"] + 1, "models": list(models)}
    write_json(path, counted)
    try:
        sure = confidence_of(stages, data, record)
        score = evaluate_on_test(record.trial_config, trained_on, stages, model, predictions, folder, details, sure)
    except Exception:  # whoever fails, as for lack of memory, has seen no score
        write_json(path, written)
        raise
    found = {"metrics": dict(score.metrics), "interval": list(score.interval), "images": score.images}
    found |= {"tensors": _tensors(folder)} if folder is not None else {}
    if sure is not None:
        found["confidence"] = {name: value for name, value in sure.as_dict().items() if name != "curve"}
    write_json(path, {**counted, **key, "number": record.number, "micro_batch": micro_batch, **found})
    return _evaluation(found, path, refit=refit), notes


def export(
    data: Dataset,
    stages: StageStore,
    *,
    record: TrialRecord,
    refit: bool,
    path: Path,
    predictions: Path,
    folder: Path,
    details: Mapping[str, Any],
) -> tuple[TestEvaluation, list[str]]:
    """Write the model that was evaluated as a folder that ``carcls.export.load_export`` opens; else as ``evaluate``.

    It is evaluated again, and counted, where the score is not of these very tensors: what is tested is what is served.
    Scores of older versions were computed otherwise, and a model that was lost is made again, perhaps elsewhere.

    Args:
        data, stages, record, refit: as they were evaluated.
        path: where the score is; a model that had to be trained for it in micro-batches is no other here.
        predictions: of the score, written anew where the model is evaluated again.
        folder: is written.
        details: of the model, for whoever opens it.
    """
    from carcls.families import export_trial

    written = _written(path)
    parts = written.get("micro_batch")
    model, trained_on, notes = _made(data, stages, record, parts, refit=refit)
    export_trial(record.trial_config, trained_on, stages, model, folder, details, confidence_of(stages, data, record))
    if written.get("tensors") == _tensors(folder):
        return _evaluation(written, path, refit=refit), notes
    given: dict[str, Any] = {"path": path, "predictions": predictions, "folder": folder, "details": details}
    test, _ = evaluate(data, stages, record=record, refit=refit, micro_batch=parts, **given)
    return test, [*notes, "The test score was not of the model that is registered: that one is evaluated, too."]


def _tensors(folder: Path) -> dict[str, Any]:
    """Return the checksums of an exported model's tensors."""
    files = json.loads((folder / "model.json").read_text(encoding="utf-8"))["files"]
    return {name: known for name, known in files.items() if name.endswith(".safetensors")}


def confidence_of(stages: StageStore, data: Dataset, record: TrialRecord) -> Confidence | None:
    """Return how the answers of a trial's model become probabilities, fitted on its validation answers.

    None where those are not to be had. A refit has none of its own and takes its trial's.
    """
    from carcls.evaluation.confidence import fit_confidence
    from carcls.evaluation.predictions import read_predictions, read_probabilities

    try:
        path = stages.root / answers_on_disk(stages, data, record)
        stored, shares = read_predictions(path), read_probabilities(path, len(data.classes))
    except (InputError, TrialFailure, OSError):
        return None
    if shares is None:
        return None
    return fit_confidence(shares, stored.labels, stored.hits, votes=record.trial_config.has_neighbours)


def count_evaluations(folder: Path) -> tuple[int, int]:
    """Return how often a test score was computed in a sweep, and for how many of its models."""
    files = [_written(path) for path in sorted(folder.glob("test*.json"))]
    models = {model for file in files for model in file["models"]}
    return sum(file["readings"] for file in files), len(models)


def _made(
    data: Dataset, stages: StageStore, record: TrialRecord, micro_batch: int | None, *, refit: bool
) -> tuple[str, Dataset, list[str]]:
    """Return a model that is on disk, what it was trained on, and what a person should know of it."""
    from carcls.families import refit_trial

    if refit:
        trained_on = data.refitted()
        return refit_trial(in_parts(record, micro_batch), trained_on, stages), trained_on, []
    notes: list[str] = []
    return model_on_disk(stages, data, record, notes.append, micro_batch), data, notes


def _key(record: TrialRecord, data: Dataset, *, refit: bool) -> dict[str, str]:
    """Return what makes it the same evaluation."""
    return {"trial": record.trial_config.digest, "data": (data.refitted() if refit else data).digest}


def _written(path: Path) -> dict[str, Any]:
    """Return what was written of earlier evaluations: ``readings``, ``models``, and perhaps the score of the last.

    A damaged file held one at least; one that names no models may have counted another model each time.
    """
    if not path.is_file():
        return {"readings": 0, "models": []}
    try:
        written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        readings = int(written["readings"])
    except (ValueError, KeyError, TypeError):
        written, readings = {}, 1
    last = [f"{written['trial']}/{written['data']}"] if "trial" in written else []
    unknown = [f"unknown {place}" for place in range(readings - len(last))]
    return {"models": [*unknown, *last], **written, "readings": readings}
