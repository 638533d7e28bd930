"""All families as one job, on real images, with a real Ray and a real MLflow store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image

CARSWEEP = str(Path(sys.executable).with_name("carsweep"))
SMALL = ["backbone=efficientnet_lite0", "image_size=32", "epochs=1", "batch_size=16"]
SMALL += ["depth=3", "width=8", "stem=none"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with 12 training and 4 test images of each of three tints."""
    root = tmp_path_factory.mktemp("tints")
    random = np.random.default_rng(0)
    for label, tint in enumerate([(180, 0, 0), (0, 180, 0), (0, 0, 180)]):
        for split, count in (("train", 12), ("test", 4)):
            place = root / split / f"tint {label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 70, (40, 40, 3)) + np.array(tint)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return root


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trials", "5"], "--trials: must be at least 9"),
        (["--spec", "mine.yaml"], "--spec is of one family"),
        (["--set", "k=100000"], "k must be at most"),
        (["--set", "dropout=1.5"], "dropout: must be at most 0.95"),
    ],
)
def test_a_mistake_of_any_family_is_told_before_a_trial_starts(
    words: list[str], said: str, images: Path, tmp_path: Path
) -> None:
    """Exit code 2, and nothing is trained: not even for the families that could."""
    command = [CARSWEEP, "run", "all", "--data", str(images), "--out", str(tmp_path)]
    command += ["--set", *SMALL]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "stages" / "training").exists()
