"""The embedded demo data set: its layout, its variety, and that the same seed draws the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from carcls.data import demo
from carcls.data.config import DataConfig
from carcls.data.dataset import prepare_dataset
from carcls.data.demo import VIEWS, Car, viewpoint
from carcls.data.demo_catalogue import CLASSES, CarClass
from carcls.data.fingerprints import THRESHOLD, near_duplicate_groups
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


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_class_is_fine_grained_and_has_a_name_of_its_own() -> None:
    """There are at least 24 classes with distinct names, and none looks like another."""
    assert len(CLASSES) >= 24
    assert len({entry.name for entry in CLASSES}) == len(CLASSES)
    assert len({entry[1:] for entry in CLASSES}) == len(CLASSES)


def test_facelifts_differ_in_lights_grille_and_wheels_but_not_in_body() -> None:
    """Classes that differ by the year only share the body, and differ in both lights, grille and wheels."""
    by_model: dict[str, list[int]] = {}
    for i, entry in enumerate(CLASSES):
        by_model.setdefault(entry.name[:-5], []).append(i)
    pairs = [labels for labels in by_model.values() if len(labels) > 1]
    assert len(pairs) >= 8
    for first, second in pairs:
        assert CLASSES[first].body == CLASSES[second].body
        for name in ("headlight", "taillight", "grille", "wheel"):
            assert getattr(CLASSES[first], name) != getattr(CLASSES[second], name)


def test_devkit_files_read_as_the_original_ones(folder: Path) -> None:
    """The annotations have the original fields in the original order, 1-based classes, and name existing images."""
    train, test = _annotations(folder, "cars_train_annos.mat"), _annotations(folder, "cars_test_annos_withlabels.mat")
    box = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    assert train.dtype.names == test.dtype.names == (*box, "class", "fname")
    assert _annotations(folder, "cars_test_annos.mat").dtype.names == (*box, "fname")
    names = loadmat(folder / "devkit" / "cars_meta.mat", squeeze_me=True)["class_names"]
    assert list(names) == [entry.name for entry in CLASSES]
    for split, rows in (("train", train), ("test", test)):
        assert sorted(int(c) for c in rows["class"]) == list(range(1, len(CLASSES) + 1))
        assert {str(name) for name in rows["fname"]} == {path.name for path in (folder / f"cars_{split}").iterdir()}


def test_boxes_lie_inside_the_images_and_hold_a_car(folder: Path) -> None:
    """Every box is 1-based, inside its image, and large enough to hold most of the picture's width or height."""
    for split, name in (("train", "cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        for row in _annotations(folder, name):
            with Image.open(folder / f"cars_{split}" / str(row["fname"])) as image:
                width, height = image.size
            x1, y1, x2, y2 = (int(row[field]) for field in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"))
            assert 1 <= x1 < x2 <= width
            assert 1 <= y1 < y2 <= height
            assert max((x2 - x1) / width, (y2 - y1) / height) > 0.5


def test_same_seed_draws_the_same_bytes_on_other_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process and three write byte for byte what as many as there are CPUs wrote."""
    for count in (1, 3):
        monkeypatch.setattr(demo, "usable_cores", lambda count=count: count)
        assert _contents(demo.write_demo(tmp_path / f"cars-{count}")) == _contents(folder)


def test_other_seeds_draw_other_pictures() -> None:
    """The seed, the class and the index each change the picture."""
    pictures = {demo.draw_image(*key)[1] for key in ((0, 3, 0), (1, 3, 0), (0, 4, 0), (0, 3, 1))}
    assert len(pictures) == 4


def test_views_take_turns() -> None:
    """Each class is seen from every view, on both sides."""
    cameras = [viewpoint(np.random.default_rng([7, i]), i, Car(CLASSES[0]), (400, 280)) for i in range(36)]
    bearings = [np.rad2deg(np.arctan2(camera[0, 1], camera[0, 0])) for camera in cameras]
    for low, high in VIEWS:
        assert any(low <= abs(bearing) <= high for bearing in bearings)
    assert min(bearings) < 0 < max(bearings)


def test_colour_tells_no_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """No class has a colour, and of the paints [3] of its images none is the next one's."""
    assert not set(CarClass._fields) & {"paint", "colour"}
    paints: list[np.ndarray] = []
    monkeypatch.setattr(demo.Car.__wrapped__, "draw", lambda *given: paints.append(given[3]))
    for index in range(8):
        demo.draw_image(0, 5, index)
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


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    """A folder that holds other files is neither overwritten nor taken for the demo."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"must be absent.*Remove it"):
        demo.write_demo(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder below a plain file is the user's mistake, said in one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="must be writable"):
        demo.write_demo(tmp_path / "file" / "cars")


def test_counts_are_known_before_drawing(folder: Path) -> None:
    """`demo_counts` says what `write_demo` writes; as users get it, three quarters are for training."""
    written = [len(list((folder / name).iterdir())) for name in ("cars_train", "cars_test")]
    assert demo.demo_counts() == (len(CLASSES), *written)
    assert len(CLASSES) * sum(WHOLE.values()) == 936
    assert WHOLE["train"] == 3 * WHOLE["test"]


def test_folder_name_tells_data_sets_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder name changes with the seed and the version."""
    names = {demo.demo_folder_name(0), demo.demo_folder_name(1)}
    monkeypatch.setattr(demo, "DEMO_VERSION", demo.DEMO_VERSION + 1)
    assert len({*names, demo.demo_folder_name(0)}) == 3


@pytest.mark.slow
def test_the_demo_repeats_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the demo as users get it, the search for near-duplicates finds none across splits, and none at all.

    Nor would it at two bits more, which is what another version of Pillow may make of the same picture.
    """
    monkeypatch.setattr(demo, "_PER_CLASS", WHOLE)
    folder = demo.write_demo(tmp_path / "cars")
    stages = StageStore(tmp_path / "stages")
    found = prepare_dataset(DataConfig(path=str(folder)), stages, 32)
    assert found.duplicates == ()
    index = find_index(found.manifest, found.margin, stages)
    groups = near_duplicate_groups(index.fingerprints, threshold=THRESHOLD + 2)
    assert len(set(groups.tolist())) == sum(demo.demo_counts()[1:])
