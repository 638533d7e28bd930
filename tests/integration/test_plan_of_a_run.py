"""A plan beside a real sweep: of the same images both tell the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = ("--set", "backbone=efficientnet_lite0", "image_size=32", "unfreezing=frozen", "experiments=[]")


def draw(root: Path) -> None:
    """Draw four classes of ten training and four test pictures; one is torn, and one test picture is a training one."""
    for label in range(4):
        for split, first, count in (("train", 0, 10), ("test", 500, 4)):
            folder = root / split / f"Make Model {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = np.random.default_rng(1000 * label + first + number).integers(0, 256, (6, 9, 3), np.uint8)
                picture = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
                picture.save(folder / f"{number:05d}.jpg")
    (root / "test" / "Make Model 1" / "00000.jpg").write_bytes((root / "train/Make Model 0/00000.jpg").read_bytes())
    (root / "train" / "Make Model 2" / "00000.jpg").write_bytes(b"torn")


BEGINNINGS = ("base: ", "left out", "test image", "1 picture is in more than one class", "k is ")


def carsweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command beside the images, to its end."""
    command = [
        sys.executable,
        "-m",
        "sweeps.cli",
        "run",
        "retrieval",
        "--data",
        "base",
        "--name",
        "mine",
        *WORDS,
        *words,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_plan_tells_what_the_run_told_of_its_images(tmp_path: Path) -> None:
    """Counts, what was left out, duplicates and the choices of k that were cut: word for word, read by either of them.

    The default search asks for up to 50 neighbours of 32 images, and nobody gave that: the sweep runs.
    """
    draw(tmp_path / "base")
    first = carsweep(tmp_path, "--trials", "2", "--dry-run", "--read", "--out", "planned")
    ran = carsweep(tmp_path, "--trials", "2", "--out", "runs")
    assert ran.returncode == 0
    told = [line for line in ran.stderr.splitlines() if line.startswith(BEGINNINGS)]
    assert {line.split()[0] for line in told} == {"base:", "left", "test", "k", "1"}
    assert told[-1] == "k is searched over 1 | 3 | 5 | 7 | 10 | 15 | 20 | 30 only: the gallery has 32 images."
    again = carsweep(tmp_path, "--trials", "2", "--dry-run", "--out", "runs")
    for plan in (first, again):
        assert plan.returncode == 0
        assert plan.stdout.splitlines()[1:6] == told
