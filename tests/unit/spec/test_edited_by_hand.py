"""A spec that somebody edited in its file, and images that were moved: taken in aloud, or refused in a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import run_study, study_spec

from sweeps.cli.app import carsweep
from sweeps.cli.exits import DONE, MISTAKE, run_command
from sweeps.run.check import fit_to_data
from sweeps.run.remembered import recall
from sweeps.spec.loading import load_spec
from sweeps.spec.space import Choice
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import JOB, SWEEP, write_file
from sweeps.study.records import read_history
from sweeps.study.study import Study


def spec_of(name: str, data: Path | None = None) -> SweepSpec:
    """Return the spec of a sweep of two trials."""
    return study_spec(name=name, trials=2, data={"path": str(data) if data else None})


def begin(folder: Path, spec: SweepSpec, edits: Sequence[str] | None = None) -> None:
    """Complete the sweep's trials."""
    write_file(folder, "sweep", None, [spec])
    with Study.open(folder, spec, edits=edits) as study:
        run_study(study, lambda asked: {"val_accuracy": asked.config.dropout})


def edit(file: Path, before: str, after: str) -> None:
    """Do what an editor does."""
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))


def resume(out: Path, *words: str) -> int:
    """Say ``carsweep resume mine``; return its exit code."""
    return run_command(carsweep, ["resume", "mine", *words, "--out", str(out)])


@pytest.mark.parametrize(
    ("before", "after"),
    [('"config": {}', '"config": {"epochs": 3}'), ('"high": 0.5', '"high": 0.1'), ('"fixed": {}', '"fixed": {"k": 3}')],
)
def test_other_settings_are_told_and_noted_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], before: str, after: str
) -> None:
    """The command says so before anything starts, status ever after, and the next command has nothing to say."""
    begin(tmp_path / "mine", spec_of("mine"))
    edit(tmp_path / "mine" / SWEEP, before, after)
    assert resume(tmp_path, "--dry-run") == DONE
    assert "changed: sweep.json by hand" in capfd.readouterr().err
    command = recall(tmp_path, "mine")
    begin(tmp_path / "mine", command.specs[0], edits=command.changes)
    (noted,) = read_history(tmp_path / "mine").edits
    assert noted["changes"] == list(command.changes)
    edit(tmp_path / "mine" / SWEEP, '"trials": 2', '"trials": 3')  # more trials are no other trials
    assert recall(tmp_path, "mine").changes == ()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("seed", 0, 7), ("family", "transfer", "scratch"), ("name", "mine", "other")],
)
def test_what_would_make_scores_incomparable_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, before: object, after: object
) -> None:
    """Exit code 2, and one line with the setting, the file and what was there; no other sweep begins."""
    begin(tmp_path / "mine", spec_of("mine"))
    edit(tmp_path / "mine" / SWEEP, f'"{name}": {json.dumps(before)}', f'"{name}": {json.dumps(after)}')
    assert resume(tmp_path) == MISTAKE
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith(f"carsweep: {name} in {tmp_path / 'mine' / SWEEP} must")
    assert str(before) in told
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == ["mine"]


def test_a_job_s_own_file_is_taken_in_aloud(tmp_path: Path) -> None:
    """Its sweeps follow it; where retrieval began is no change."""
    spec = spec_of("job-transfer")
    write_file(tmp_path / "job", "all", None, [spec])
    begin(tmp_path / "job-transfer", spec.model_copy(update={"starts": ({"dropout": 0.25},)}))
    assert recall(tmp_path, "job").changes == ()
    edit(tmp_path / "job" / JOB, '"high": 0.5', '"high": 0.1')
    (change,) = recall(tmp_path, "job").changes
    assert change.startswith("transfer: job.json by hand")


def test_a_job_whose_retrieval_has_few_images_was_edited_by_nobody(tmp_path: Path) -> None:
    """The sweep leaves out choices of k that its gallery does not have; who changes them in the job's file is told."""
    spec = load_spec("retrieval", overrides={"data": str(tmp_path), "name": "job-retrieval", "trials": 4})
    write_file(tmp_path / "job", "all", None, [spec])
    begun, _ = fit_to_data(spec, 32)
    assert begun.digest != spec.digest
    begin(tmp_path / "job-retrieval", begun)
    assert recall(tmp_path, "job").changes == ()
    changed = {**spec.search, "k": Choice((1, 3))}
    write_file(tmp_path / "job", "all", None, [spec.model_copy(update={"search": changed})])
    assert recall(tmp_path, "job").changes != ()


def test_images_that_are_gone_are_asked_for_where_they_were_moved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line with both remedies; the new place is a change like another, and whether it holds them is seen there."""
    here, there = tmp_path / "here", tmp_path / "my there"
    there.mkdir()
    begin(tmp_path / "mine", spec_of("mine", here))
    assert resume(tmp_path) == MISTAKE
    (told,) = capfd.readouterr().err.splitlines()
    assert "carsweep resume mine --data NEW" in told
    assert f"ln -s NEW {here}" in told
    assert resume(tmp_path, "--dry-run", "--data", str(there)) == DONE
    assert f"changed: data.path {here} -> {there}" in capfd.readouterr().err
    assert resume(tmp_path, "--dry-run", "--data", str(there), "--images", str(there)) == DONE
    assert f"changed: data.images none -> {there}" in capfd.readouterr().err
    here.symlink_to(there)
    assert resume(tmp_path, "--dry-run") == DONE
