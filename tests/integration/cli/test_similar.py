"""``carsweep similar`` on real files: the nearest training images, their votes, and a page with their pictures."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import export_with_gallery

from carcls.evaluation.confidence import Confidence

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("confidence", [None, Confidence(0.8, 0.01)], ids=["raw", "calibrated"])
def test_an_image_of_the_gallery_is_nearest_to_itself(
    confidence: Confidence | None, run: Run, model: Path, tmp_path: Path
) -> None:
    """Distances rise from 0; so many neighbours vote as were asked for, and the object has their classes.

    They are counted as they are, also where the model's own probabilities give a share to every class.
    """
    export_with_gallery(model, tmp_path / "pictures", confidence=confidence)
    image = next((tmp_path / "pictures" / "train").rglob("*.jpg"))
    code, out, said = run("similar", image, "missing.jpg", "--model", model, "--k", 5)
    *rows, last = (line.split("\t") for line in out.splitlines())
    assert (code, last[0], last[-1]) == (0, "missing.jpg", "the file is missing")
    assert [row[:2] for row in rows] == [[str(image), str(place)] for place in range(1, 6)]
    assert rows[0][3:] == [image.parent.name, image.relative_to(tmp_path / "pictures").as_posix()]
    distances = [float(row[2]) for row in rows]
    assert distances[0] == pytest.approx(0, abs=1e-2)
    assert distances == sorted(distances)
    code, out, _ = run("similar", image, "--model", model, "--k", 5, "--json")
    (found,) = json.loads(out)["images"]
    assert [[one["label"], one["image"]] for one in found["neighbours"]] == [row[3:] for row in rows]
    assert {one["label"] for one in found["top"]} == {row[3] for row in rows}
    code, out, _ = run("similar", image, "--model", model, "--k", 1, "--json")
    assert json.loads(out)["images"][0]["top"] == [{"label": image.parent.name, "probability": 1.0}]
    assert "answers" in said


@pytest.mark.parametrize(("gone", "pictures"), [([], 5), (["pictures"], 5), (["pictures", "runs/stages"], 1)])
def test_a_page_has_the_pictures_that_are_still_there(
    gone: list[str], pictures: int, run: Run, model: Path, tmp_path: Path
) -> None:
    """It fetches nothing; training images come from cached stages or the data folder, where both are gone in words."""
    image = next((tmp_path / "pictures" / "test").rglob("*.jpg")).rename(tmp_path / "<b>asked.jpg")
    for place, name in enumerate(gone):
        (tmp_path / name).rename(tmp_path / f"elsewhere {place}")
    code, _, said = run("similar", image, "--model", model, "--k", 4, "--html", "page.html")
    page = Path("page.html").read_text()
    assert code == 0
    assert "Written to page.html." in said
    assert page.count('src="data:image/') == pictures
    assert page.count("the picture is not here any more") == 5 - pictures
    assert "default-src 'none'" in page
    assert not re.search(r"https?://", page)
    assert "&lt;b&gt;asked.jpg" in page


def test_a_page_names_files_whose_names_are_no_text(run: Run, model: Path, tmp_path: Path) -> None:
    """Such as those of Latin-1; the family may be said before the images, as to carsweep predict."""
    image = next((tmp_path / "pictures" / "test").rglob("*.jpg")).rename(tmp_path / os.fsdecode(b"citro\xebn.jpg"))
    assert run("similar", "retrieval", image, "--model", model, "--html", "page.html")[0] == 0
    assert r"citro\udcebn.jpg" in Path("page.html").read_text()
    code, _, err = run("similar", "transfer", image, "--model", model)
    assert (code, "Neighbours are of retrieval" in err) == (2, True)


def test_a_model_that_carries_pictures_needs_no_others(run: Run, model: Path, tmp_path: Path) -> None:
    """Wherever the data and the runs are."""
    export_with_gallery(model, tmp_path / "pictures", thumbnails=True)
    image = next((tmp_path / "pictures" / "test").rglob("*.jpg")).rename(tmp_path / "asked.jpg")
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    (tmp_path / "runs").rename(tmp_path / "others")
    assert run("similar", image, "--model", model, "--k", 4, "--html", "page.html")[0] == 0
    assert Path("page.html").read_text().count('src="data:image/jpeg') == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--k", "100"], "--k must be at most the 40 images of the gallery, got 100"),
        (["--html", "no/such/page.html"], "--html must name a file in a folder that exists"),
        (["--html", "pictures"], "--html must name a file in a folder that exists"),
        (["nowhere"], "PATH must name images"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, run: Run, model: Path) -> None:
    """Exit code 2, with the remedy."""
    given = words if words == ["nowhere"] else ["pictures/test", *words]
    code, out, err = run("similar", *given, "--model", model)
    assert (code, out) == (2, "")
    assert said in err


def test_a_model_without_a_gallery_has_no_neighbours(run: Run, model: Path, export: Path) -> None:
    """The message says which family has."""
    code, _, err = run("similar", "pictures/test", "--model", export)
    assert code == 2
    assert "--model must answer with neighbours" in err
    assert "retrieval" in err
    assert model.is_dir()
