"""All families as one job, on real images, with a real Ray and a real MLflow store."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from sweeps.spec.sweep_file import read_spec

CARSWEEP = str(Path(sys.executable).with_name("carsweep"))
SMALL = ["backbone=efficientnet_lite0", "image_size=32", "epochs=1", "batch_size=16"]
SMALL += ["depth=3", "width=8", "stem=none"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, draw_tints: Callable[..., Path]) -> Path:
    """Class folders with 12 training and 4 test images of each of three tints."""
    return draw_tints(tmp_path_factory.mktemp("tints"), 12, 4, size=(40, 40))


def run_all(images: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the job to its end."""
    command = [CARSWEEP, "run", "all", "--data", str(images), "--out", str(out), "--name", "job", "--trials", "10"]
    return subprocess.run([*command, *words, "--set", *SMALL], capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def job(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run the job once; returns its folder and its JSON."""
    out = tmp_path_factory.mktemp("out")
    done = run_all(images, out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def made(out: Path) -> Counter[str]:
    """Return how many stages of each kind were computed."""
    lines = [json.loads(line) for line in (out / "stages" / "log.jsonl").read_text().splitlines()]
    return Counter(line["kind"] for line in lines if line["event"] == "made")


@pytest.mark.slow
def test_three_families_leave_three_models_and_one_comparison(job: tuple[Path, dict[str, Any]]) -> None:
    """Each family's winner is registered, and they stand in one table with their test scores."""
    out, value = job
    assert list(value["families"]) == ["transfer", "retrieval", "scratch"]
    assert [row["registered"] for row in value["comparison"]] == [
        f"carsweep-{family} 1" for family in ("transfer", "retrieval", "scratch")
    ]
    assert all(
        row["test_interval"][0] <= row["test_accuracy"] <= row["test_interval"][1] for row in value["comparison"]
    )
    table = (out / "job" / "comparison.md").read_text()
    assert all(f"carsweep-{family} 1" in table for family in value["families"])
    assert json.loads((out / "job" / "comparison.json").read_text()) == value


@pytest.mark.slow
def test_the_budget_is_divided(job: tuple[Path, dict[str, Any]]) -> None:
    """Ten trials are four, three and three: each family's documented experiments, and an equal share of the rest."""
    _, value = job
    counts = [sum(t["sibling_of"] is None for t in family["trials"]) for family in value["families"].values()]
    assert sum(counts) == 10
    assert counts == [4, 3, 3]


@pytest.mark.slow
def test_the_same_command_again_computes_nothing(job: tuple[Path, dict[str, Any]], images: Path) -> None:
    """Finished families answer from what they left; no stage is made, and the models keep their versions."""
    out, value = job
    before = made(out)
    again = run_all(images, out, "--json")
    assert again.returncode == 0, again.stderr
    assert made(out) == before
    assert json.loads(again.stdout)["comparison"] == value["comparison"]


@pytest.mark.slow
def test_the_retrieval_model_answers_with_its_neighbours(job: tuple[Path, dict[str, Any]], images: Path) -> None:
    """Loaded from the registry, it names the training images that are nearest, with labels and distances."""
    _, value = job
    mlflow.set_tracking_uri(value["families"]["retrieval"]["tracking_uri"])
    model = mlflow.pyfunc.load_model("models:/carsweep-retrieval@challenger")
    answer = model.predict([str(images / "test" / "tint 0" / "0.png")]).iloc[0]
    assert answer["label"] in {"tint 0", "tint 1", "tint 2"}
    assert all((images / image).is_file() for image in answer["neighbour_images"])
    assert len(answer["neighbour_images"]) == len(answer["neighbour_labels"]) == len(answer["neighbour_distances"])
    assert list(answer["neighbour_distances"]) == sorted(answer["neighbour_distances"])


SEARCHED = ["experiments=[]", "unfreezing=full", "image_size=64", "depth=3", "stem=none", "k=3", "early_stopping=null"]


def searching(images: Path, out: Path, *words: str) -> list[str]:
    """Return the command of a job that only searches, in a small space."""
    settings = ["--set", *SMALL, *SEARCHED]
    return [CARSWEEP, "run", "all", "--data", str(images), "--out", str(out), "--name", "job", *settings, *words]


@pytest.mark.slow
def test_retrieval_begins_with_the_network_that_won_and_keeps_its_beginning(images: Path, tmp_path: Path) -> None:
    """Its first trial trains nothing; with more trials the sweep goes on from the same beginning, whoever wins then."""
    starts = []
    for trials in ("4", "7"):
        command = searching(images, tmp_path, "--trials", trials, "--json")
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
        families = json.loads(done.stdout)["families"]
        starts.append(read_spec(tmp_path / "job-retrieval").starts)
        if trials == "4":
            assert made(tmp_path)["training"] == 3
            first, won = families["retrieval"]["trials"][0]["params"], families["transfer"]["best"]["params"]
            assert {first[name] == won[name] for name in starts[0][0]} == {True}
    assert len(starts[0]) == 1
    assert starts[0] == starts[1]


@pytest.mark.slow
def test_a_family_that_fails_does_not_stop_the_others(images: Path, tmp_path: Path) -> None:
    """Where no retrieval trial can write its embeddings, the two others have models, and the exit code is 1."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "embeddings").touch()
    command = searching(images, tmp_path, "--trials", "3", "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 1, done.stderr
    rows = {row["family"]: row for row in json.loads(done.stdout)["comparison"]}
    registered = {family: row["registered"] for family, row in rows.items()}
    assert registered == {"transfer": "carsweep-transfer 1", "retrieval": "", "scratch": "carsweep-scratch 1"}
    assert (rows["retrieval"]["val_accuracy"], rows["retrieval"]["model"]) == (None, "none")
    assert "carsweep-scratch 1" in (tmp_path / "job" / "comparison.md").read_text()


@pytest.mark.slow
def test_an_interrupted_job_goes_on_where_it_was(images: Path, tmp_path: Path) -> None:
    """Ctrl-C in the second family exits with 130 and prints one command; that command trains only what is left."""
    command = searching(images, tmp_path, "--trials", "3", "--set", "epochs=4")
    errors = tmp_path / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        deadline = time.monotonic() + 300
        while "trial 0 started" not in errors.read_text().partition("retrieval: 1 trials")[2]:
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < deadline, errors.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130, errors.read_text()
    told = errors.read_text().splitlines()[-1]
    assert "resume job" in told
    trained = made(tmp_path)["training"]
    assert not (tmp_path / "job" / "comparison.json").exists()
    done = subprocess.run(shlex.split(told), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert made(tmp_path)["training"] == trained + 1
    assert (tmp_path / "job" / "comparison.json").exists()
