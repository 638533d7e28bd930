"""The embedded demo data set: its layout, its variety, and that it is the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from carcls.data import demo
from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.data.demo_catalogue import CLASSES, CarClass
from carcls.data.layouts import read_layout
from carcls.data.pack import find_index
from carcls.errors import DataError, OutputError
from carcls.stages import StageStore

WHOLE = demo._PER_CLASS


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Let a demo data set have one training and one test image of each class."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_PER_CLASS", {"train": 1, "test": 1})
        yield


@pytest.fixture(scope="module")
def folder(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001 - small is used by its presence
    """A demo data set with one training and one test image of each class."""
    return demo.write_demo(tmp_path_factory.mktemp("demo") / "cars")


def _annotations(folder: Path, name: str) -> np.ndarray:
    return loadmat(folder / "devkit" / name, squeeze_me=True)["annotations"]


def test_every_class_is_fine_grained_and_has_a_name_of_its_own() -> None:
    """There are at least 24 classes with distinct names, and none looks like another."""
    assert len(CLASSES) >= 24
    assert len({entry.name for entry in CLASSES}) == len(CLASSES)
    assert len({entry[1:] for entry in CLASSES}) == len(CLASSES)


def test_facelifts_differ_in_lights_grille_and_wheels_but_not_in_body() -> None:
    """Classes that differ by the year only share the body, and differ in both lights, grille and wheels."""
    by_model: dict[str, list[CarClass]] = {}
    for entry in CLASSES:
        by_model.setdefault(entry.name[:-5], []).append(entry)
    pairs = [entries for entries in by_model.values() if len(entries) > 1]
    assert len(pairs) >= 8
    for first, second in pairs:
        assert first.body == second.body
        assert all(one != other for one, other in zip(first[2:], second[2:], strict=True))


def test_a_script_that_draws_is_run_once(tmp_path: Path) -> None:
    """A script needs no `if __name__ == "__main__"`: the processes that draw do not run it again."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('here')\nfrom carcls.data import demo\ndemo._PER_CLASS = {'train': 1, 'test': 1}\n"
        "from pathlib import Path\nprint(demo.write_demo(Path('cars')), __name__)\n"
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("here\ncars __main__\n", "")


def test_devkit_files_read_as_the_original_ones(folder: Path) -> None:
    """The annotations have the original fields in their order, and 1-based classes; boxes hold most of a picture."""
    names = loadmat(folder / "devkit" / "cars_meta.mat", squeeze_me=True)["class_names"]
    assert list(names) == [entry.name for entry in CLASSES]
    box = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    for split, name in (("train", "cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = _annotations(folder, name)
        assert rows.dtype.names == (*box, "class", "fname")
        assert sorted(int(c) for c in rows["class"]) == list(range(1, len(CLASSES) + 1))
        assert {str(name) for name in rows["fname"]} == {path.name for path in (folder / f"cars_{split}").iterdir()}
        for row in rows:
            with Image.open(folder / f"cars_{split}" / str(row["fname"])) as image:
                width, height = image.size
            x1, y1, x2, y2 = (int(row[field]) for field in box)
            assert 1 <= x1 < x2 <= width
            assert 1 <= y1 < y2 <= height
            assert max((x2 - x1) / width, (y2 - y1) / height) > 0.5


def test_the_same_pictures_are_drawn_on_other_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process and three write byte for byte what as many as there are CPUs wrote, with the same boxes."""
    digest = read_layout(folder).with_contents().digest
    for count in (1, 3):
        monkeypatch.setattr(demo, "usable_cores", lambda count=count: count)
        assert read_layout(demo.write_demo(tmp_path / f"cars-{count}")).with_contents().digest == digest


def test_no_two_pictures_are_alike() -> None:
    """The class and the index each change the picture."""
    assert len({demo.draw_image(*key)[1] for key in ((3, 0), (4, 0), (3, 1))}) == 3


def test_colour_tells_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """No class has a colour, and of the paints [3] of its images none is the next one's."""
    assert not set(CarClass._fields) & {"paint", "colour"}
    paints: list[np.ndarray] = []
    monkeypatch.setattr(demo.Car.__wrapped__, "draw", lambda *given: paints.append(given[3]))
    for index in range(8):
        demo.draw_image(5, index)
    assert len(np.unique(np.round(paints, 2), axis=0)) == 8


@pytest.mark.usefixtures("small")
def test_interrupted_writing_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing stops in the middle, neither the folder nor a half-filled draft stays behind."""

    def interrupted(folder: Path, *_: object) -> None:
        assert len(list(folder.glob("cars_*/*.jpg"))) == 2 * len(CLASSES)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "write_devkit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(tmp_path / "cars")
    assert list(tmp_path.iterdir()) == []


def test_a_complete_folder_is_not_drawn_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing into a complete folder returns it without drawing anything."""
    monkeypatch.setattr(demo, "_fill", None)
    assert demo.write_demo(folder) == folder


def test_a_place_that_cannot_be_taken_is_refused(tmp_path: Path) -> None:
    """A folder that holds other files is neither overwritten nor taken for the demo; nor is one below a plain file."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"must be absent.*Remove it"):
        demo.write_demo(tmp_path)
    with pytest.raises(OutputError, match="must be writable"):
        demo.write_demo(tmp_path / "notes.txt" / "cars")


def test_counts_are_known_before_drawing(folder: Path) -> None:
    """`demo_counts` says what `write_demo` writes; as users get it, three quarters are for training."""
    written = [len(list((folder / name).iterdir())) for name in ("cars_train", "cars_test")]
    assert demo.demo_counts() == (len(CLASSES), *written)
    assert len(CLASSES) * sum(WHOLE.values()) == 936
    assert WHOLE["train"] == 3 * WHOLE["test"]


@pytest.mark.slow
def test_the_demo_repeats_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the demo as users get it, the search for copies finds none across splits, and none at all."""
    monkeypatch.setattr(demo, "_PER_CLASS", WHOLE)
    folder = demo.write_demo(tmp_path / "cars")
    stages = StageStore(tmp_path / "stages")
    found = prepare_dataset(DataConfig(path=str(folder)), stages, 32)
    assert found.duplicates == ()
    assert find_index(found.manifest, found.margin, stages).copies.pairs.tolist() == []
