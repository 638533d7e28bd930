"""A folder of runs that was copied, then moved away: each copy reads and writes its own files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from helpers import Done, run_carsweep
from tracked import mirrored_sweep

from sweeps.run.remembered import recall
from sweeps.spec.sweep_file import read_spec, write_file

TINY = ["--set", "backbone=efficientnet_lite0", "image_size=32", "batch_size=8", "epochs=1", "experiments=[]"]


@pytest.mark.slow
def test_a_copied_folder_of_runs_stands_on_its_own(tmp_path: Path, draw_tints: Callable[..., Path]) -> None:
    """Another sweep leaves its model in the copy; without the first folder the copy loads, promotes and resumes."""
    draw_tints(tmp_path / "tints", 6, 3)

    def sweep(name: str, out: str, *more: str) -> Done:
        words = ["run", "transfer", "--data", "tints", "--name", name, "--out", out, "--trials", "1", "--json"]
        done = run_carsweep(tmp_path, [*words, *TINY, *more])
        assert done.code == 0, done.err
        return done

    first = sweep("first", "runs")
    runs, copy = tmp_path / "runs", tmp_path / "copy"
    shutil.copytree(runs, copy)
    before = sorted(runs.rglob("*"))
    second = sweep("second", "copy", "--seed", "1")
    said = f"{copy} was moved or copied from {runs}: MLflow's paths are mended."
    assert said in " ".join(second.err.split())
    assert sorted(runs.rglob("*")) == before
    runs.rename(tmp_path / "gone")
    mlflow.set_tracking_uri(f"sqlite:///{copy / 'mlflow.db'}")
    mlflow.set_registry_uri(f"sqlite:///{copy / 'mlflow.db'}")
    image = str(tmp_path / "tints" / "test" / "tint 0" / "0.png")
    for done in (first, second):
        registered = done.value["registered"]
        model = mlflow.pyfunc.load_model(f"models:/{registered['name']}/{registered['version']}")
        assert len(model.predict([image])) == 1
    promoted = run_carsweep(tmp_path, ["promote", "transfer", "--out", "copy", "--json"])
    assert (promoted.code, promoted.value["verdict"]) == (0, "first champion"), promoted.err
    resumed = run_carsweep(tmp_path, ["resume", "first", "--out", "copy", "--trials", "+1", "--json"])
    assert resumed.code == 0, resumed.err
    assert resumed.value["out"] == str(copy)
    assert resumed.value["registered"]["name"] == first.value["registered"]["name"]
    assert not runs.exists()
    mask = os.umask(0)
    os.umask(mask)
    assert {file.stat().st_mode & 0o444 for file in (copy / "artifacts").rglob("*")} == {0o444 & ~mask}
    assert json.loads((copy / "first" / "result.json").read_text())["tracking_uri"].endswith("copy/mlflow.db")


def test_a_database_that_was_named_goes_with_its_folder_of_runs(tmp_path: Path) -> None:
    """Also of older sweeps, which wrote its path down; another database of that name is not taken for it."""
    mirrored_sweep(tmp_path / "old", "transfer", "mine", 1)
    uri, file = f"sqlite:///{tmp_path / 'old' / 'mlflow.db'}", tmp_path / "old" / "mine" / "sweep.json"
    write_file(file.parent, "sweep", uri, [read_spec(file.parent)])
    assert json.loads(file.read_text())["tracking_uri"] is None
    file.write_text(json.dumps({**json.loads(file.read_text()), "tracking_uri": uri}))
    assert recall(tmp_path / "old", "mine").tracking_uri == uri
    (tmp_path / "old").rename(tmp_path / "new")
    assert recall(tmp_path / "new", "mine").tracking_uri == f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    file = tmp_path / "new" / "mine" / "sweep.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "id": "another"}))
    assert recall(tmp_path / "new", "mine").tracking_uri == uri
