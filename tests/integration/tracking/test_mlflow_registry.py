"""The winner in MLflow's model registry, loaded again and asked in every way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.models import Model
from PIL import Image
from tracked import tracked_sweep

from carcls.errors import TrackingError
from carcls.export import load_export
from sweeps.results.result import Registered
from sweeps.tracking.compat import store_in_use
from sweeps.tracking.contest import FILES_TAG
from sweeps.tracking.names import PREDICTIONS
from sweeps.tracking.pyfunc import requirements
from sweeps.tracking.registry import TrialModel
from sweeps.tracking.store import Tracking


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """A database with one finished sweep of three trials."""
    return tracked_sweep(tmp_path_factory.mktemp("runs"), 3)


def register(tracking: Tracking, export: Path, number: int = 1, *, refit: bool = False) -> Registered:
    """Register a trial as the job would."""
    details = {"data_digest": "abc", "backbone": "efficientnet_lite0", "test_images": "123"}
    predictions = export.parent / PREDICTIONS
    np.savez(predictions, rows=np.arange(3), labels=np.arange(3), predicted=np.array([0, 1, 1]))
    return TrialModel(tracking, "transfer", "s1", number, refit).register(
        export,
        metrics={} if refit else {"val_accuracy": 0.75, "val_loss": 0.5},
        test={"test_accuracy": 0.8 if refit else 0.7, "test_loss": 0.6},
        details=details,
        predictions=predictions,
    )


ASK = """
import json, sys
from pathlib import Path
import mlflow, numpy as np, pandas as pd
uri, model_uri, pixels, *paths = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model(model_uri)
arrays = np.load(pixels)
column = pd.Series([None] * len(arrays), dtype=object)
for row, array in enumerate(arrays):
    column[row] = array
inputs = {
    "paths": paths,
    "Path objects": [Path(path) for path in paths],
    "DataFrame of paths": pd.DataFrame({"image": paths}),
    "DataFrame of paths beside another column": pd.DataFrame({"id": [1, 2, 3], "image": paths}),
    "Series of paths": pd.Series(paths),
    "array of paths": np.array(paths),
    "mapping of paths": {"image": paths},
    "list of mappings": [{"image": path} for path in paths],
    "array [b, h, w, 3]": arrays,
    "list of arrays": list(arrays),
    "DataFrame of arrays": pd.DataFrame({"image": column}),
    "nested lists": arrays.tolist(),
    "floats": (arrays / 255).astype(np.float32),
    "paths and arrays": [paths[0], arrays[1], Path(paths[2])],
}
answers = {name: model.predict(given).to_dict("list") for name, given in inputs.items()}
answers["one path"] = model.predict(paths[0]).to_dict("list")
answers["one array"] = model.predict(arrays[0]).to_dict("list")
answers["none"] = model.predict([]).to_dict("list")
import carcls
answers["carcls"] = carcls.__file__
answers["sweeps"] = "sweeps" in sys.modules
print(json.dumps(answers))
"""


def test_registered_model_answers_as_the_export_does_whatever_it_is_given(
    tracking: Tracking, export: Path, tmp_path: Path
) -> None:
    """Loaded in another process from its alias, with its own copy of carcls, it gives the Predictor's answers."""
    registered = register(tracking, export)
    assert registered.uri == "models:/carsweep-transfer@challenger"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    paths = [str(tmp_path / f"{row}.png") for row in range(len(pixels))]
    for image, path in zip(pixels, paths, strict=True):
        Image.fromarray(image).save(path)
    command = [sys.executable, "-c", ASK, tracking.uri, registered.uri, str(tmp_path / "pixels.npy"), *paths]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    answers = json.loads(done.stdout)

    wanted = load_export(export).predict(paths)
    assert answers.pop("sweeps") is False
    assert not Path(answers.pop("carcls")).is_relative_to(Path(__file__).parents[3])
    columns = ("label", "probability", "top_labels", "top_probabilities", "error")
    assert answers.pop("none") == {column: [] for column in columns}
    assert answers.pop("one path")["label"] == [wanted[0].label]
    assert answers.pop("one array")["label"] == [wanted[0].label]
    for name, answer in answers.items():
        assert answer["label"] == [one.label for one in wanted], name
        assert answer["probability"] == pytest.approx([one.probability for one in wanted], abs=1e-5), name
        assert answer["top_labels"] == [[label for label, _ in one.top] for one in wanted], name
        tops = [[value for _, value in one.top] for one in wanted]
        assert np.allclose(answer["top_probabilities"], tops, atol=1e-5), name


def find(tracking: Tracking, number: int = 1, *, refit: bool = False) -> Registered | None:
    """Ask where a trial's model is, as a finished sweep does."""
    return TrialModel(tracking, "transfer", "s1", number, refit).find()


def held(name: str, version: str) -> Registered:
    """Return a version that is the challenger."""
    return Registered(name, version, "challenger", f"models:/{name}@challenger", challenger=version)


def test_a_registered_trial_is_found_as_the_registry_has_it_now(
    tracking: Tracking, export: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The later trial gets the alias, which the earlier one takes where none has it; a version is kept; no stdout."""
    client, early = tracking.client(), register(tracking, export)
    name, late = early.name, register(tracking, export, number=0)
    numbered = Registered(name, early.version, "", f"models:/{name}/{early.version}", challenger=late.version)
    assert register(tracking, export) == numbered
    assert late == held(name, str(int(early.version) + 1))
    assert (find(tracking), find(tracking, 0)) == (numbered, late)
    client.set_registered_model_alias(name, "challenger", early.version)
    other = Registered(name, late.version, "", f"models:/{name}/{late.version}", challenger=early.version)
    assert find(tracking, 0) == other
    client.delete_registered_model_alias(name, "challenger")
    assert find(tracking) == held(name, early.version)
    assert str(client.get_model_version_by_alias(name, "challenger").version) == early.version
    client.set_registered_model_alias(name, "challenger", late.version)
    assert capfd.readouterr().out == ""


def test_what_is_gone_from_the_registry_is_not_found(tracking: Tracking, export: Path) -> None:
    """A deleted version, a deleted model, and another trial's version of the same number; registering mends it."""
    client = tracking.client()
    register(tracking, export)
    late = register(tracking, export, number=0)
    client.delete_model_version(late.name, late.version)
    assert find(tracking) is not None
    assert find(tracking, 0) is None
    client.delete_registered_model(late.name)
    assert find(tracking) is None
    assert register(tracking, export).version == "1"
    assert find(tracking, 0) is None
    again = register(tracking, export, number=0)
    assert (again.alias, find(tracking, 0)) == ("challenger", again)
    assert find(tracking, refit=True) is None


def test_version_says_where_it_comes_from(tracking: Tracking, export: Path, tmp_path: Path) -> None:
    """Sweep, trial, accuracies and data are tags; the trial's run has test metrics and answers, and stays closed."""
    registered = register(tracking, export)
    client = tracking.client()
    version = client.get_model_version(registered.name, registered.version)
    assert {name: value for name, value in version.tags.items() if name != FILES_TAG} == {
        "carsweep.sweep_id": "s1",
        "carsweep.trial": "1",
        "val_accuracy": "0.7500",
        "test_accuracy": "0.7000",
        "data_digest": "abc",
        "backbone": "efficientnet_lite0",
        "test_images": "123",
    }
    run = client.get_run(version.run_id)
    assert run.data.tags["carsweep.trial"] == "1"
    assert run.data.metrics["test_accuracy"] == 0.7
    assert run.info.status == "KILLED"
    with np.load(client.download_artifacts(version.run_id, PREDICTIONS, str(tmp_path)), allow_pickle=False) as file:
        assert file["predicted"].tolist() == [0, 1, 1]


def test_registered_model_holds_no_pickle_and_has_a_signature(tracking: Tracking, export: Path, tmp_path: Path) -> None:
    """The logged folder is code, JSON and tensors; it has a signature, and requirements pinned to what is installed."""
    registered = register(tracking, export)
    source = tracking.client().get_model_version(registered.name, registered.version).source
    with store_in_use(tracking.uri):
        folder = Path(download_artifacts(artifact_uri=source, dst_path=str(tmp_path)))
    kinds = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert kinds <= {"", ".json", ".md", ".py", ".safetensors", ".txt", ".yaml", ".zip"}
    assert "top_probabilities" in (folder / "MLmodel").read_text(encoding="utf-8")
    assert (folder / "requirements.txt").read_text(encoding="utf-8").split() == requirements()


def test_registered_model_has_an_input_example_that_nobody_tried(
    tracking: Tracking, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drawn picture, as clients send one; the model is not loaded into the process that registers it."""
    tried: list[Any] = []
    monkeypatch.setattr(mlflow.pyfunc, "load_model", lambda *given, **_: tried.append(given))
    registered = register(tracking, export, 0, refit=True)
    monkeypatch.undo()
    assert tried == []
    source = tracking.client().get_model_version(registered.name, registered.version).source
    with store_in_use(tracking.uri):
        folder = download_artifacts(artifact_uri=source, dst_path=str(tmp_path))
    model = Model.load(folder)
    example = model.load_input_example(folder)
    assert list(example.columns) == ["image"]
    (wanted,) = load_export(export).predict(list(example["image"]))
    sent = json.loads(model.get_serving_input(folder))
    assert sent == {"dataframe_split": {"columns": ["image"], "data": example.to_numpy().tolist()}}
    assert mlflow.pyfunc.load_model(folder).predict(example)["label"].tolist() == [wanted.label]


def test_trial_without_a_run_is_refused_with_the_remedy(tracking: Tracking, export: Path) -> None:
    """When MLflow missed the trial, registering says what to do instead of inventing a run."""
    with pytest.raises(TrackingError, match="Run the sweep again"):
        register(tracking, export, number=7)


def test_refit_of_a_trial_is_a_version_and_a_run_of_its_own(tracking: Tracking, export: Path) -> None:
    """A trial's model and its refit keep their versions and their test scores; a refit has no validation score."""
    own, refit = register(tracking, export), register(tracking, export, refit=True)
    assert int(refit.version) > int(own.version)
    assert register(tracking, export, refit=True) == refit
    assert register(tracking, export).version == own.version
    client = tracking.client()
    versions = [client.get_model_version(own.name, registered.version) for registered in (own, refit)]
    assert ["val_accuracy" in version.tags for version in versions] == [True, False]
    scores = [client.get_run(version.run_id).data.metrics["test_accuracy"] for version in versions]
    assert scores == [0.7, 0.8]


def test_a_process_that_died_while_it_registered_leaves_nothing(
    tracking: Tracking, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was uploaded and got no version goes, with its files, once the trial is registered."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    client, experiment = tracking.client(), tracking.experiment("transfer")
    before = {model.model_id for model in client.search_logged_models([experiment])}
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", die)
        with pytest.raises(KeyboardInterrupt):
            register(tracking, export, number=2, refit=True)
    (left,) = [m for m in client.search_logged_models([experiment]) if m.model_id not in before]
    files = Path(left.artifact_location.removeprefix("file://"))
    assert any(files.iterdir())
    version = register(tracking, export, number=2, refit=True)
    (made,) = [m for m in client.search_logged_models([experiment]) if m.model_id not in before]
    assert made.model_id != left.model_id
    assert not files.exists() or not any(files.iterdir())
    assert client.get_model_version(version.name, version.version).source == made.model_uri


def test_a_version_that_was_made_twice_is_there_once(tracking: Tracking, export: Path) -> None:
    """A request that was sent again since its answer was lost makes a second version: the one with the alias stays."""
    first, client = register(tracking, export), tracking.client()
    known = client.get_model_version(first.name, first.version)
    with store_in_use(tracking.uri):
        twice = client.create_model_version(
            first.name, source=known.source, run_id=known.run_id, model_id=known.model_id, tags=known.tags
        )
    assert register(tracking, export).version == first.version
    versions = {str(version.version) for version in client.search_model_versions(f"name = '{first.name}'")}
    assert versions & {first.version, str(twice.version)} == {first.version}
