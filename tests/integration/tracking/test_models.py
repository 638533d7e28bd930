"""Registered models are found by the names that people give them, in a real registry with real exports."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tracked import tracked_sweep

from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.errors import InputError
from carcls.export import load_export
from carcls.stages import StageStore
from sweeps.tracking.compat import store_in_use
from sweeps.tracking.evaluation import answers_on
from sweeps.tracking.models import find_model
from sweeps.tracking.names import VALIDATION, VALIDATION_IMAGES
from sweeps.tracking.registry import TrialModel
from sweeps.tracking.store import Tracking, check_tracking

NAME = "carsweep-transfer"
Find = Callable[..., str]


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory, export: Path) -> Tracking:
    """A store whose family transfer has three versions, without an alias."""
    folder = tmp_path_factory.mktemp("registry")
    tracking = tracked_sweep(folder, 3)
    for number in range(3):
        TrialModel(tracking, "transfer", "s1", number).register(
            export,
            metrics={"val_accuracy": 0.5 + number / 10},
            test={"test_accuracy": 0.5},
            details={},
            predictions=folder / "test-predictions.npz",
        )
    tracking.client().delete_registered_model_alias(NAME, "challenger")
    return tracking


@pytest.fixture
def find(tracking: Tracking, tmp_path: Path) -> Find:
    """Return a function that finds a model, and returns what people read of it."""
    return lambda wanted=None: str(find_model(tracking, wanted, out=tmp_path))


def test_a_family_is_its_champion_else_its_challenger_else_its_newest_version(tracking: Tracking, find: Find) -> None:
    """Aliases go before age; a version is also found by an alias, by its number and by MLflow's own address."""
    client = tracking.client()
    assert find("transfer") == f"{NAME}, version 3"
    client.set_registered_model_alias(NAME, "challenger", "2")
    assert find("transfer") == find("transfer@challenger") == find(NAME) == f"{NAME}, version 2 (challenger)"
    client.set_registered_model_alias(NAME, "champion", "1")
    assert find("transfer") == find(f"models:/{NAME}@champion") == f"{NAME}, version 1 (champion)"
    assert find("transfer/3") == find(f"{NAME}/3") == f"{NAME}, version 3"
    assert find() == f"{NAME}, version 1 (champion)"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("transfr", r"has carsweep-transfer\. Did you mean transfer\?"),
        ("retrieval", r"got 'retrieval'.*Run a sweep first"),
        ("transfer@best", r"has .* and the versions 1, 2, 3\. Name one"),
        ("transfer/9", r"the versions 1, 2, 3\. Name one"),
        ("nothing/there", r"the folder of an exported model, got 'nothing/there'"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_those_that_are(wanted: str, said: str, find: Find) -> None:
    """One line says what a model can be called, and what there is."""
    find("transfer")
    with pytest.raises(InputError, match=said) as caught:
        find(wanted)
    assert "\n" not in str(caught.value)
    assert f"Did you mean {wanted}?" not in str(caught.value)


def test_an_export_is_found_by_its_folder_and_a_stores_files_are_not_copied(
    tracking: Tracking, export: Path, tmp_path: Path
) -> None:
    """What lies on this machine is used in place."""
    assert find_model(tracking, str(export), out=tmp_path).folder == export
    found = find_model(tracking, "transfer/1", out=tmp_path)
    assert found.folder.is_relative_to(str(tracking.artifact_root))
    assert not list(tmp_path.iterdir())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert len(found.load().predict(pixels)) == 2


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_files_that_are_gone_or_changed_are_told_with_the_remedy(
    damage: str, tracking: Tracking, tmp_path: Path
) -> None:
    """The version is named, and how it is had again."""
    copy = tmp_path / "copy"
    found = find_model(tracking, "transfer/2", out=tmp_path)
    shutil.copytree(found.folder, copy)
    try:
        if damage == "gone":
            shutil.rmtree(found.folder)
        else:
            (found.folder / "model.safetensors").write_bytes(b"other weights")
        with pytest.raises(InputError, match=r"carsweep-transfer, version 2.* must .*under another --name") as caught:
            find_model(tracking, "transfer/2", out=tmp_path).load()
        assert "\n" not in str(caught.value)
    finally:
        shutil.rmtree(found.folder, ignore_errors=True)
        shutil.move(copy, found.folder)


@pytest.mark.parametrize(
    ("right", "data", "said"),
    [
        (
            90,
            "cars",
            r"100 validation images scratch is the best family \(scratch 90\.0%, .* difference is shown",
        ),
        (60, "cars", "transfer is the best family .* against scratch no difference shown"),
        (90, "birds", "scratch has the best validation score of the families .* so no test says more"),
    ],
)
def test_without_a_family_the_best_on_the_same_validation_images_is_found(
    right: int, data: str, said: str, tracking: Tracking, tmp_path: Path
) -> None:
    """By the paired test of stored answers; by the scores alone where the images are others, which is said."""
    client, file = tracking.client(), tmp_path / VALIDATION
    newest = find_model(tracking, "transfer/3", out=tmp_path)
    old = client.get_model_version(NAME, "3")
    for name, hits, images in ((NAME, 60, "cars"), ("carsweep-scratch", right, data)):
        answers = {"rows": np.arange(100), "labels": np.zeros(100, int), "predicted": (np.arange(100) >= hits) * 1}
        np.savez(file, **answers)
        run = client.create_run(client.get_run(old.run_id).info.experiment_id).info.run_id
        client.log_artifact(run, str(file))
        tags = {"val_accuracy": str(hits / 100), VALIDATION_IMAGES: images}
        if name not in [model.name for model in client.search_registered_models()]:
            client.create_registered_model(name)
        with store_in_use(tracking.uri):
            made = client.create_model_version(name, old.source, run, tags=tags)
        client.set_registered_model_alias(name, "champion", made.version)
    try:
        found = find_model(tracking, out=tmp_path)
        assert re.search(said, found.why)
        assert found.name == (NAME if right == 60 else "carsweep-scratch")
        assert newest.why == ""
    finally:
        client.delete_registered_model("carsweep-scratch")


def test_a_store_without_models_says_what_to_run(tmp_path: Path) -> None:
    """Nothing is registered: the message names the command that changes it."""
    with pytest.raises(InputError, match="Run `carsweep run all` first"):
        find_model(check_tracking(None, tmp_path), out=tmp_path)


def test_a_model_is_evaluated_once_on_images_that_came_later(
    tracking: Tracking, export: Path, tmp_path: Path, draw_tints: Callable[..., Path]
) -> None:
    """Its export's answers, by the names of its classes: counted, kept with its run, and not computed again."""
    images, stages = draw_tints(tmp_path / "grown", 6, 2, size=(64, 64)), StageStore(tmp_path / "stages")
    for place, known in enumerate(("Make Model 2012", "Make Model 2007")):  # and a class that it does not know
        for split in ("train", "test"):
            (images / split / f"tint {place}").rename(images / split / known)
    data, client = prepare_dataset(DataConfig(path=str(images)), stages, 64, workers=1), tracking.client()
    model = find_model(tracking, f"{NAME}/2", out=tmp_path)
    answers = answers_on(tracking, model, data, stages)
    pixels = data.pixels(stages, 64)[data.splits.test]
    named = [data.classes[place] if place >= 0 else "" for place in answers.predicted]
    said = load_export(export).predict(pixels)
    wanted = [one.label for one in said]
    assert answers.sure is not None
    assert answers.sure.tolist() == pytest.approx([one.probability for one in said], abs=1e-6)
    assert named == [label if label in data.classes else "" for label in wanted]
    assert (answers.rows.tolist(), answers.labels.tolist()) == (data.splits.test.tolist(), [0, 0, 1, 1, 2, 2])
    assert client.get_model_version(NAME, "2").tags["test_readings"] == "2"
    shutil.rmtree(tmp_path / "stages")  # which an evaluation would need
    again = answers_on(tracking, model, data, stages)
    assert (again.predicted.tolist(), again.same_images(answers)) == (answers.predicted.tolist(), True)
    assert again.sure is not None
    assert again.sure.tolist() == answers.sure.tolist()
    assert client.get_model_version(NAME, "2").tags["test_readings"] == "2"
