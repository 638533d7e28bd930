"""``carsweep data`` on real files: what it finds, what it leaves for runs, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import draw_pictures, events_of, run_carsweep

from carcls.stages import StageStore

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--set", "backbone=efficientnet_lite0", "image_size=32")


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    """Pictures of three classes: one of a test image that trains under another name, one torn file, one of no use."""
    root = draw_pictures(tmp_path / "cars", classes=3)
    (root / "test/Make Model 1/00600.jpg").write_bytes((root / "train/Make Model 0/00000.jpg").read_bytes())
    (root / "train/Make Model 2/00000.jpg").write_bytes(b"torn")
    (root / "train/Make Model 2/list.xyz").write_text("x")
    return root


def test_what_is_wrong_is_told_and_shown(cars: Path, run: Run) -> None:
    """In sentences that a run tells too, as an object, and on a page with pictures that asks no other host."""
    code, out, _ = run("data", cars, *SMALL, "--set", "data.max_loss=0.5")
    assert code == 0
    lines = out.splitlines()
    known = r"cars \(class folders in train/, test/\): 3 classes; images: \d+ train, \d+ validation, 13 test\."
    assert re.fullmatch(known, lines[0])
    assert "Same pictures: 1 pair, 1 of them in two splits, 1 in two classes." in lines
    page = Path("runs/data/cars.html").read_text()
    assert "1 of 44 files is left out: by its extension (1 .xyz)" in page
    assert "test image duplicates" in out
    assert "test image duplicates" not in page
    assert "train/Make Model 2/00000.jpg" in page
    assert page.count("<img ") > 40
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", page) == []
    code, out, _ = run("data", cars, *SMALL, "--json", "--set", "data.max_loss=0.5")
    found = json.loads(out)
    assert (found["images"], len(found["classes"]), found["smallest"], found["largest"]) == (
        *(42, 3),
        "Make Model 2",
        "Make Model 1",
    )
    assert found["imbalance"] == pytest.approx(15 / 13)
    assert found["same_pictures"] == [
        {
            "images": ["train/Make Model 0/00000.jpg", "test/Make Model 1/00600.jpg"],
            "splits": ["train", "test"],
            "kind": "equal",
            "classes": ["Make Model 0", "Make Model 1"],
        }
    ]
    assert [one["image"] for one in found["unreadable"]] == ["train/Make Model 2/00000.jpg"]
    assert found["labels"]["images"] == 42
    assert {one["label"] == one["suggested"] for one in found["labels"]["suspicious"]} == {False}
    assert found["page"] == str(Path("runs/data/cars.html").absolute())


def test_a_run_after_it_decodes_nothing_and_tells_the_same(tmp_path: Path) -> None:
    """The plan's notes are those of the audit, and a frozen trial finds pack, features of training and validation."""
    root = draw_pictures(tmp_path / "cars", classes=3)
    (root / "test/Make Model 1/00600.jpg").write_bytes((root / "train/Make Model 0/00000.jpg").read_bytes())
    audited = run_carsweep(tmp_path, ["data", "cars", *SMALL])
    assert audited.code == 0
    before = events_of(StageStore(tmp_path / "runs" / "stages"))
    fixed = [*SMALL, "unfreezing=frozen", "experiments=[]", "augmentation_strength=0"]
    words = ["run", "transfer", "--data", "cars", "--trials", "1", *fixed]
    planned = run_carsweep(tmp_path, [*words, "--dry-run"])
    counts, *notes = audited.out[: audited.out.index("Images of a class")].splitlines()
    assert counts.partition("images: ")[2].rstrip(".") in planned.out.splitlines()[0]
    assert planned.out.splitlines()[1:3] == notes
    assert len(notes) == 2
    assert run_carsweep(tmp_path, words).code == 0
    made = {
        one.kind for one in events_of(StageStore(tmp_path / "runs" / "stages"))[len(before) :] if one.event == "made"
    }
    assert made & {"pack", "index", "features", "embedding-parts"} == set()
    assert "training" in made


def test_the_page_goes_where_it_is_told(cars: Path, run: Run) -> None:
    """To a file, or to stdout alone; without labels nothing is embedded."""
    allowed = ("--no-labels", *SMALL, "--set", "data.max_loss=0.5")
    code, out, _ = run("data", cars, *allowed, "-o", "page.html")
    assert code == 0
    assert "Suspicious labels: not looked for, as --no-labels says." in out
    code, out, _ = run("data", cars, *allowed, "-o", "-")
    assert (code, out.strip()) == (0, Path("page.html").read_text().strip())
    assert not Path("runs/data").exists()
    assert not Path("runs/stages/features").exists()


def test_names_break_no_line_and_turn_no_text_round(tmp_path: Path, run: Run) -> None:
    """A name with a line break is told on one line, and one that is written from right to left stands for itself."""
    root = draw_pictures(tmp_path / "cars", classes=2)
    for part in ("train", "test"):
        (root / part / "Make Model 0").rename(root / part / "Line\nbreak")
        (root / part / "Make Model 1").rename(root / part / "\u202eleft")
    (root / "train/Line\nbreak/00000.jpg").write_bytes(b"torn")
    code, out, _ = run("data", root, "--no-labels", *SMALL, "--set", "data.max_loss=0.5")
    assert code == 0
    assert r"left out, unreadable: train/Line\nbreak/00000.jpg (it is not an image of a known format)" in out
    assert r"Images of a class: 13 (Line\nbreak) to 14 (\u202eleft); imbalance 1.1." in out.splitlines()
    page = Path("runs/data/cars.html").read_text()
    assert "<h3><bdi>\u202eleft</bdi> <small>" in page
    assert "13 to 14 images of a class" in page
    assert "no picture is there twice" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "data path must exist, got '"),
        (["one"], "data must have at least 2 classes, got 1"),
        (["cars"], "train split must lose at most 1% of its images, got 1 unreadable"),
        (["cars", "-o", "nowhere/page.html"], "--output must be in a folder that can be written to"),
        (["cars", "--set", "backbone=resnet51"], "backbone"),
        (["cars", "--set", "weights=nowhere.pth"], "weights"),
        (["cars", "more"], "Got unexpected extra argument"),
    ],
)
def test_mistakes_end_it_before_anything_expensive(words: list[str], told: str, cars: Path, run: Run) -> None:
    """With exit code 2 and a sentence; nothing is written."""
    (cars.parent / "one" / "a").mkdir(parents=True)
    (cars.parent / "one" / "a" / "1.jpg").write_bytes((cars / "train/Make Model 0/00000.jpg").read_bytes())
    code, out, said = run("data", *words, "--set", "image_size=32", "data.max_loss=0.01")
    assert (code, out) == (2, "")
    assert told in said
    assert not Path("runs/data").exists()


def test_an_interrupted_audit_goes_on(tmp_path: Path) -> None:
    """Ctrl-C ends it with exit code 130; what was read by then is found by the same command."""
    draw_pictures(tmp_path / "cars", classes=3, train=200)
    stopped = run_carsweep(tmp_path, ["data", "cars", "--set", "image_size=128"], stop_at="embedding images")
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err.splitlines()[-1] == "carsweep: interrupted."
    again = run_carsweep(tmp_path, ["data", "cars", "--set", "image_size=128"])
    assert again.code == 0
    assert "reading images" not in again.err


def test_a_table_whose_images_lie_elsewhere_is_audited(cars: Path, run: Run) -> None:
    """As a run takes it: without --images the rows that name no file are told, with the option that helps."""
    paths = sorted(path.relative_to(cars) for path in cars.rglob("*.jpg"))
    Path("elsewhere").mkdir()
    table = Path("elsewhere", "cars.csv")
    table.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    code, _, err = run("data", table, "--no-labels")
    assert (code, "say --images FOLDER" in err) == (2, True)
    code, out, _ = run("data", table, "--images", cars, "--no-labels", "--set", "data.max_loss=0.5")
    assert (code, out.startswith("cars (the table cars.csv): 3 classes; images: ")) == (0, True)
