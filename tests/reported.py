"""Sweeps as their files tell them, with stored answers, for whoever reads reports; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from helpers import study_spec
from numpy.typing import NDArray
from PIL import Image

from carcls.data.config import DataConfig
from carcls.data.dataset import Dataset, prepare_dataset
from carcls.outcome import Measurement
from carcls.stages import StageStore
from sweeps.report.facts import Facts, read_facts
from sweeps.results.models import compare_winner
from sweeps.results.result import RESULT, Registered, SweepResult, TestEvaluation, spent_dict
from sweeps.spec.sweep_file import write_file
from sweeps.study.study import Study
from sweeps.trial import TrialRecord, stage_use

EPOCHS = 4
SEARCH = {
    "dropout": {"low": 0.0, "high": 0.7},
    "head_lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "unfreezing": ["frozen", "full"],
    "optimizer": ["adam", "adamw"],
}
SPEC = {"family": "transfer", "search": SEARCH, "sampler": "random", "config": {"epochs": EPOCHS, "image_size": 32}}


def noisy_cars(root: Path, names: list[str], stages: StageStore, train: int = 12, test: int = 6) -> Dataset:
    """Return a data set of noise, of so many pictures a class, packed."""
    random = np.random.default_rng(0)
    for name in names:
        for number in range(train + test):
            path = root / ("train" if number < train else "test") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    return prepare_dataset(DataConfig(path=str(root), validation_fraction=0.4), stages, 32)


def write_sweep(out: Path, name: str, data: Dataset, trials: int, *, ended: bool = True, **changes: Any) -> Facts:
    """Write the files of a sweep with stored answers; every ninth trial fails. Return what a report reads of them."""
    asked_for = {**SPEC, "name": name, "trials": trials, "data": {"path": str(data.manifest.root)}}
    folder, spec = out / name, study_spec(**{**asked_for, **changes})
    write_file(folder, "sweep", None, [spec])
    data.save(folder / "dataset.json")
    study, random = Study.open(folder, spec), np.random.default_rng(1)
    while (asked := study.ask()) is not None:
        if asked.number % 9 == 8:
            study.tell_failed(asked.number, "loss became NaN", "diverged")
            continue
        rows = data.splits.validation
        right = random.random(len(rows)) < random.uniform(0.2, 0.8)
        path = f"training/trial-{asked.number}/validation.npz"
        answers = write_answers(out / "stages" / path, data, rows, right)
        for epoch in range(1, EPOCHS + 1):
            share = answers["hits"].mean() * epoch / EPOCHS
            metrics = {
                "val_accuracy": float(share),
                "val_loss": 2.0 - float(share),
                "predict_ms": 1.0 + asked.number % 5,
            }
            if study.report(asked.number, Measurement(epoch, metrics)):
                study.tell_pruned(asked.number)
                break
        else:
            outcome = {"metrics": metrics, "epochs": EPOCHS, "model": path.rpartition("/")[0], "predictions": path}
            study.tell_complete(asked.number, {**outcome, "seconds": 2.5})
    facts = read_facts(folder)
    if ended:
        end_sweep(facts, data)
    return read_facts(folder)


def write_answers(path: Path, data: Dataset, rows: NDArray[np.int64], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Write answers with probabilities, right where they should be; return them with their ``hits``."""
    labels, classes = data.labels[rows], len(data.classes)
    predicted = np.where(right, labels, (labels + 1) % classes)
    probabilities = np.full((len(rows), classes), 0.3 / classes, np.float32)
    probabilities[np.arange(len(rows)), predicted] += 0.7
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, rows=rows, labels=labels, predicted=predicted, probabilities=probabilities)
    return {"hits": predicted == labels}


def end_sweep(facts: Facts, data: Dataset) -> SweepResult:
    """Write the result of a sweep that has ended, its winner tested and registered."""
    board, rows, best = facts.board, data.splits.test, facts.board.best
    right = np.random.default_rng(2).random(len(rows)) < 0.5
    hits = write_answers(facts.folder / "test-predictions.npz", data, rows, right)["hits"]
    test = TestEvaluation({"test_accuracy": float(hits.mean())}, (0.4, 0.6), len(rows))
    result = SweepResult(
        sweep=facts.name,
        family="transfer",
        out=str(facts.folder.parent),
        data=data.summary,
        board=board,
        winner=best.number if best else None,
        test=test if best else None,
        registered=Registered("carsweep-transfer", "3", "challenger", "models:/carsweep-transfer@challenger"),
        tracking_uri="",
        seconds=60.0,
        spent=spent_dict(board.trials, facts.spec.prices),
        **stage_use(board.trials),
        environment={"python": "3.11.2", "torch": "2.14.1"},
    )
    if len(board.networks) > 1:
        result = replace(result, comparison=compare_winner(data, facts.stages, result=result))
    result.save(facts.folder / RESULT)
    return result


def complete_trials(facts: Facts) -> list[TrialRecord]:
    """Return the trials that finished."""
    return [trial for trial in facts.board.trials if trial.status == "complete"]
