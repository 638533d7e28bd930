"""`carsweep run transfer` on a data set in the published form of CUB-200-2011, to the registered model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers import run_carsweep
from PIL import Image
from published import write_cub

from carcls.data.dataset import Dataset
from carcls.stages import StageStore

SETTINGS = ["backbone=efficientnet_lite0", "image_size=64", "batch_size=8", "epochs=1", "experiments=[transfer/frozen]"]


def paint(path: Path, seed: int) -> None:
    """Draw noise of 64 × 64 pixels: birds of the second class are blue, and what lies outside their box is white."""
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[7:58, 6:46] = np.random.default_rng(seed).integers(0, 255, (51, 40, 3))
    pixels[7:58, 6:46, 0 if seed > 200 else 2] //= 8
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_the_official_split_and_boxes_reach_the_model(tmp_path: Path) -> None:
    """The test images are those of train_test_split.txt, crops hold nothing of the white around them."""
    write_cub(tmp_path / "birds", paint, train=10, test=6)
    words = ["run", "transfer", "--data", "birds", "--name", "mine", "--trials", "1", "--json", "--set", *SETTINGS]
    done = run_carsweep(tmp_path, words)
    assert done.code == 0, done.err
    assert (done.value["test"]["images"], done.value["registered"]["name"]) == (12, "carsweep-transfer")
    data = Dataset.load(tmp_path / "runs" / "mine" / "dataset.json")
    assert (data.manifest.layout, data.classes) == ("CUB-200-2011", ("Black footed Albatross", "Laysan Albatross"))
    numbers = [int(data.manifest.images[row].path[-10:-4]) - 796100 for row in data.splits.test]
    assert numbers == [*range(11, 17), *range(27, 33)]
    pixels = data.pixels(StageStore(tmp_path / "runs" / "stages"), 64)
    assert (pixels.shape, pixels.min(axis=-1).max() < 255) == ((32, 64, 64, 3), True)
