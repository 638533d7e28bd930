"""A plan beside a real sweep: of the same images both tell the same."""

from __future__ import annotations

from pathlib import Path

from helpers import Done, draw_pictures, run_carsweep

WORDS = ("--set", "backbone=efficientnet_lite0", "image_size=32", "unfreezing=frozen", "experiments=[]")


BEGINNINGS = ("base (", "left out", "test image", "1 picture is in more than one class", "k is ")


def run(folder: Path, *words: str) -> Done:
    """Run the command beside the images."""
    return run_carsweep(folder, ["run", "retrieval", "--data", "base", "--name", "mine", *WORDS, *words])


def test_a_plan_tells_what_the_run_told_of_its_images(tmp_path: Path) -> None:
    """Counts, what was left out, duplicates and the choices of k that were cut: word for word, read by either of them.

    The default search asks for up to 50 neighbours of 32 images, and nobody gave that: the sweep runs.
    """
    base = draw_pictures(tmp_path / "base")
    (base / "test" / "Make Model 1" / "00000.jpg").write_bytes((base / "train/Make Model 0/00000.jpg").read_bytes())
    (base / "train" / "Make Model 2" / "00000.jpg").write_bytes(b"torn")
    first = run(tmp_path, "--trials", "2", "--dry-run", "--read", "--out", "planned")
    ran = run(tmp_path, "--trials", "2", "--out", "runs")
    assert ran.code == 0
    told = [line for line in ran.err.splitlines() if line.startswith(BEGINNINGS)]
    assert {line.split()[0] for line in told} == {"base", "left", "test", "k", "1"}
    assert told[-1] == "k is searched over 1 | 3 | 5 | 7 | 10 | 15 | 20 | 30 only: the gallery has 32 images."
    again = run(tmp_path, "--trials", "2", "--dry-run", "--out", "runs")
    for plan in (first, again):
        assert plan.code == 0
        head, *notes = plan.out.splitlines()[:5]
        assert notes == told[1:]
        for words in ("(class folders in train/, test/", "4 classes", "32 train, 7 validation, 16 test"):
            assert words in head
            assert words in told[0]
