"""All families as one job, on real images, with a real Ray and a real MLflow store."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from helpers import Done, run_carsweep, stages_made

from sweeps.spec.sweep_file import read_spec

SMALL = ["backbone=efficientnet_lite0", "image_size=32", "epochs=1", "batch_size=16"]
SMALL += ["depth=3", "width=8", "stem=none"]
SEARCHED = ["experiments=[]", "unfreezing=full", "image_size=64", "depth=3", "stem=none", "k=3", "early_stopping=null"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 12 training and 4 test images of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 12, 4, size=(40, 40))


def run_all(images: Path, folder: Path, trials: int, *sets: str, stop_at: str | None = None) -> Done:
    """Run the job in ``folder``."""
    words = ["run", "all", "--data", str(images), "--name", "job", "--trials", str(trials), "--json"]
    return run_carsweep(folder, [*words, "--set", *SMALL, *sets], stop_at=stop_at)


@pytest.fixture(scope="module")
def job(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """Run the job once; returns its folder and what it said."""
    folder = tmp_path_factory.mktemp("job")
    done = run_all(images, folder, 10)
    assert done.code == 0, done.err
    return folder, done


@pytest.mark.slow
def test_three_families_leave_three_models_and_one_comparison(job: tuple[Path, Done], images: Path) -> None:
    """Winners stand in one table with test scores; ten trials are documented ones and equal shares of the rest.

    The same command again answers from what is there.
    """
    folder, value, out = job[0], job[1].value, job[0] / "runs"
    families = ["transfer", "retrieval", "scratch"]
    assert list(value["families"]) == families
    assert [row["registered"] for row in value["comparison"]] == [f"carsweep-{family} 1" for family in families]
    for row in value["comparison"]:
        assert row["test_interval"][0] <= row["test_accuracy"] <= row["test_interval"][1]
    table = (out / "job" / "comparison.md").read_text()
    assert all(f"carsweep-{family} 1" in table for family in families)
    assert json.loads((out / "job" / "comparison.json").read_text()) == value
    report = (out / "job" / "report.html").read_text()
    assert all(f"job-{family}: Trial " in report for family in families)
    counts = [sum(t["sibling_of"] is None for t in family["trials"]) for family in value["families"].values()]
    assert counts == [4, 3, 3]
    before, again = stages_made(out), run_all(images, folder, 10)
    assert again.code == 0, again.err
    assert (stages_made(out), again.value["comparison"]) == (before, value["comparison"])


@pytest.mark.slow
def test_the_retrieval_model_answers_with_its_neighbours(job: tuple[Path, Done], images: Path) -> None:
    """Loaded from the registry, it names the training images that are nearest, with labels and distances."""
    mlflow.set_tracking_uri(job[1].value["families"]["retrieval"]["tracking_uri"])
    mlflow.set_registry_uri(job[1].value["families"]["retrieval"]["tracking_uri"])
    model = mlflow.pyfunc.load_model("models:/carsweep-retrieval@challenger")
    answer = model.predict([str(images / "test" / "tint 0" / "0.png")]).iloc[0]
    assert answer["label"] in {"tint 0", "tint 1", "tint 2"}
    assert all((images / image).is_file() for image in answer["neighbour_images"])
    assert len(answer["neighbour_images"]) == len(answer["neighbour_labels"]) == len(answer["neighbour_distances"])
    assert list(answer["neighbour_distances"]) == sorted(answer["neighbour_distances"])


@pytest.mark.slow
def test_retrieval_begins_with_the_network_that_won_and_keeps_its_beginning(images: Path, tmp_path: Path) -> None:
    """Its first trial trains nothing; with more trials the sweep goes on from the same beginning, whoever wins then."""
    starts = []
    for trials in (4, 7):
        done = run_all(images, tmp_path, trials, *SEARCHED)
        assert done.code == 0, done.err
        families = done.value["families"]
        starts.append(read_spec(tmp_path / "runs" / "job-retrieval").starts)
        if trials == 4:
            assert stages_made(tmp_path / "runs", "training") == 3
            first, won = families["retrieval"]["trials"][0]["params"], families["transfer"]["best"]["params"]
            assert {first[name] == won[name] for name in starts[0][0]} == {True}
    assert len(starts[0]) == 1
    assert starts[0] == starts[1]


@pytest.mark.slow
def test_a_family_that_fails_does_not_stop_the_others(images: Path, tmp_path: Path) -> None:
    """Where no retrieval trial can write its embeddings, the two others have models, and the exit code is 1."""
    (tmp_path / "runs" / "stages").mkdir(parents=True)
    (tmp_path / "runs" / "stages" / "embeddings").touch()
    done = run_all(images, tmp_path, 3, *SEARCHED)
    assert done.code == 1, done.err
    rows = {row["family"]: row for row in done.value["comparison"]}
    registered = {family: row["registered"] for family, row in rows.items()}
    assert registered == {"transfer": "carsweep-transfer 1", "retrieval": "", "scratch": "carsweep-scratch 1"}
    assert (rows["retrieval"]["val_accuracy"], rows["retrieval"]["model"]) == (None, "none")
    assert "carsweep-scratch 1" in (tmp_path / "runs" / "job" / "comparison.md").read_text()


@pytest.mark.slow
def test_an_interrupted_job_goes_on_where_it_was(images: Path, tmp_path: Path) -> None:
    """Ctrl-C in the second family exits with 130 and prints one command; that command trains only what is left."""
    out = tmp_path / "runs"
    stopped = run_all(images, tmp_path, 3, *SEARCHED, "epochs=4", stop_at="retrieval: 1 trial.*trial 0 started")
    assert stopped.code == 130, stopped.err
    told = stopped.err.splitlines()[-1]
    assert "resume job" in told
    trained = stages_made(out, "training")
    assert not (out / "job" / "comparison.json").exists()
    done = run_carsweep(tmp_path, shlex.split(told.partition("carsweep ")[2]))
    assert done.code == 0, done.err
    assert stages_made(out, "training") == trained + 1
    assert (out / "job" / "comparison.json").exists()
