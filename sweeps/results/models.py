"""The models of trials: which are kept, made again where they are gone, compared, evaluated on the test set, exported.

The test images are evaluated once for a model. ``test.json`` is of the winner, ``test-NNNN.json`` of a documented
experiment. Each counts its evaluations and names the models; one is counted before it happens, so that one whose score
was lost with its process counts too, and one that failed without a score does not.

``compare_winner``, ``evaluate`` and ``export`` are computed in a trial's process (see sweeps.engine.task): arguments
and answers travel, and only there are arrays and networks imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.errors import InputError, TrialFailure
from carcls.stages import write_json
from sweeps.results.result import Compared, TestEvaluation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from carcls.config import TrialConfig
    from carcls.data.dataset import Dataset
    from carcls.evaluation.confidence import Confidence
    from carcls.evaluation.predictions import StoredPredictions
    from carcls.outcome import Outcome
    from carcls.stages import StageStore
    from sweeps.results.result import SweepResult
    from sweeps.trial import TrialRecord


def ranked_models(records: Iterable[TrialRecord]) -> list[str]:
    """Return the models of complete trials, the best by validation accuracy first, each once."""
    ranked = sorted(records, key=lambda record: (-record.metrics.get("val_accuracy", -1.0), record.number))
    return list(dict.fromkeys(record.model for record in ranked if record.status == "complete" and record.model))


def wanted_models(records: Sequence[TrialRecord], keep: int) -> set[str]:
    """Return the models that a sweep keeps: the best ``keep``, documented experiments, and what confirms the best."""
    special = {r.model for r in records if (r.experiment is not None or r.confirms is not None) and r.model}
    return set(ranked_models(records)[:keep]) | special


def parts_of(stages: Path, model: str) -> list[str]:
    """Return the stages that a model consists of: embeddings name the training that they come from."""
    try:
        source = json.loads((stages / model / "source.json").read_text(encoding="utf-8"))
        return [model, source["training"]] if source["training"] else [model]
    except (OSError, ValueError, KeyError, TypeError):
        return [model]


def model_on_disk(
    stages: StageStore,
    dataset: Dataset,
    record: TrialRecord,
    tell: Callable[[str], None],
    micro_batch: int | None = None,
) -> str:
    """Return the path of a complete trial's model, relative to the store; made again where it is gone or damaged.

    Then it trains in parts of ``micro_batch`` images, where given.

    Raises:
        TrialFailure: it cannot be made again.
    """
    parts = parts_of(stages.root, record.model)
    if not all((stages.root / part / "key.json").is_file() for part in parts):
        tell(f"The model of trial {record.number} is not on disk any more; it is made again.")
    elif not any([stages.find_damage(part) for part in parts]):  # noqa: C419 - all of them are to be found
        return record.model
    return _run_again(stages, dataset, record, micro_batch).model


def answers_on_disk(stages: StageStore, dataset: Dataset, record: TrialRecord) -> str:
    """Return the file with a trial's validation answers, relative to the store; made again where it is damaged.

    Those of a derived trial are made now, from the embeddings and neighbours of its trial.

    Raises:
        TrialFailure: they cannot be made.
    """
    stage = Path(record.predictions).parent.as_posix() if record.predictions else record.model
    if stages.find_damage(stage):
        return _run_again(stages, dataset, record).predictions
    if record.predictions:
        return record.predictions
    from carcls.families.retrieval import RetrievalTrial

    return RetrievalTrial(record.trial_config, dataset, stages).answer_validation(stages.root / record.model)


def _run_again(stages: StageStore, dataset: Dataset, record: TrialRecord, micro_batch: int | None = None) -> Outcome:
    from carcls.families import run_trial

    config = _in_parts(record, micro_batch)
    return run_trial(config, dataset, stages, lambda _: None)  # stages that are whole are used


def _in_parts(record: TrialRecord, micro_batch: int | None) -> TrialConfig:
    config = record.trial_config
    return config.model_copy(update={"micro_batch": micro_batch}) if micro_batch else config


def compare_winner(
    data: Dataset, stages: StageStore, *, result: SweepResult, answers: Path | None = None
) -> tuple[Compared, ...]:
    """Compare the winner with those that it won against: is a difference shown at all?

    After ``--confirm`` all fresh seeds of each side speak, and Holm's correction is made for the number of others.
    Without it, one run stands beside the runner-up's; both were chosen by their scores on these very images, so that
    even a difference that is shown is flattered.

    Args:
        data: what the trials were validated on.
        stages: where their answers are. Those that are missing or of other images are left out.
        result: with a winner, whose trials are the journal's own records.
        answers: gets what the winner says to the validation images, as .npz: ``rows``, ``labels`` and ``predicted``,
            int64 [n], of the run that the search chose, ``confirmed``, int64 [m, n], of its m fresh seeds (0 without
            ``--confirm``), and the names of the ``classes``. It is removed where that is not known.
    """
    from carcls.evaluation.significance import compare_hits, holm

    trials = {record.number: record for record in result.trials}
    if answers is not None:
        confirmed = result.board.best_confirmed
        number, runs = (confirmed.number, confirmed.runs) if confirmed else (result.winner, ())
        _write_answers(answers, data, _read([trials[run] for run in (number, *runs) if run is not None], data, stages))
    if result.board.best_confirmed:
        sides = {one.number: one.runs for one in result.board.confirmed if one.runs}
    else:  # combinations of one network are no rivals: of each the best
        sides = {row.trial.number: (row.trial.number,) for row in result.board.networks[:2]}
    hits = {number: _hits(_read([trials[run] for run in runs], data, stages)) for number, runs in sides.items()}
    winner = hits.pop(next(iter(sides)))
    if winner is None:
        return ()
    found = {number: compare_hits(winner, other) for number, other in hits.items() if other is not None}
    adjusted = holm([pair.p_value for pair in found.values()])
    return tuple(
        Compared(number, pair.difference, pair.interval, p, pair.shows(p))
        for (number, pair), p in zip(found.items(), adjusted, strict=True)
    )


def _read(runs: Sequence[TrialRecord], data: Dataset, stages: StageStore) -> list[StoredPredictions]:
    """Return what the runs say to the validation images; nothing when it is not known of each."""
    import numpy as np

    from carcls.evaluation.predictions import read_predictions

    try:
        read = [read_predictions(stages.root / answers_on_disk(stages, data, run)) for run in runs]
    except (InputError, TrialFailure, OSError):
        return []
    rows = data.splits.validation
    whole = all(np.array_equal(answers.rows, rows) for answers in read)
    return read if whole and len(rows) else []


def _hits(read: Sequence[StoredPredictions]) -> NDArray[np.bool_] | None:
    """Return what m runs have right, bool [m, n]; None of none."""
    import numpy as np

    return np.stack([answers.hits for answers in read]) if read else None


def _write_answers(path: Path, data: Dataset, read: Sequence[StoredPredictions]) -> None:
    import numpy as np

    path.unlink(missing_ok=True)
    if read:
        first, *confirmed = read
        np.savez_compressed(
            path,
            rows=first.rows,
            labels=first.labels,
            predicted=first.predicted,
            confirmed=np.array([answers.predicted for answers in confirmed], np.int64),
            classes=np.array(data.classes),
        )


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
        return refit_trial(_in_parts(record, micro_batch), trained_on, stages), trained_on, []
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
