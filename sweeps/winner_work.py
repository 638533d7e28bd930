"""What is computed for a winner, each in a trial's process (see sweeps.engine_task): arguments and answers travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.stored_models import model_on_disk
from sweeps.winner_comparison import compare_winner
from sweeps.winner_readings import Subject, read_test

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from carcls.stages import StageStore
    from sweeps.record import TrialRecord
    from sweeps.result import Compared, SweepResult, TestReading


def compare(data: Dataset, stages: StageStore, *, result: SweepResult) -> tuple[Compared, ...]:
    """Compare the winner with those that it won against."""
    return compare_winner(result, data, stages)


def evaluate(
    data: Dataset, stages: StageStore, *, record: TrialRecord, refit: bool, folder: Path, files: tuple[str, str]
) -> tuple[TestReading, list[str]]:
    """Return the test score of a complete trial, and what a person should know of its model.

    Args:
        data, stages: of the sweep.
        record: of the trial.
        refit: evaluate another model, its settings trained on the validation images too.
        folder: of the sweep.
        files: names in it of the score and of the answers to the images.

    Raises:
        TrialFailure: the model is gone, or not there yet, and cannot be made.
    """
    subject, notes = _made(data, stages, record, refit)
    return read_test(subject, stages, folder, *files), notes


def export(
    data: Dataset,
    stages: StageStore,
    *,
    record: TrialRecord,
    refit: bool,
    folder: Path,
    details: Mapping[str, Any],
) -> list[str]:
    """Write the trial's model as a folder that ``carcls.export.load_export`` opens; otherwise as ``evaluate``."""
    from carcls.families import export_trial

    subject, notes = _made(data, stages, record, refit)
    export_trial(subject.config, subject.data, stages, subject.model, folder, details)
    return notes


def _made(data: Dataset, stages: StageStore, record: TrialRecord, refit: bool) -> tuple[Subject, list[str]]:
    from carcls.families import refit_trial

    subject, notes = Subject.of(record, data, refit=refit), list[str]()
    if refit:
        model = refit_trial(subject.config, subject.data, stages)
    else:
        model = model_on_disk(stages, data, record, notes.append)
    return replace(subject, model=model), notes
