"""The embedded demo data set: its layout, its variety, and that the same seed draws the same bytes."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.io import loadmat

from carcls.config import DataConfig
from carcls.data import demo
from carcls.data.dataset import prepare_dataset
from carcls.data.demo_catalogue import CLASSES
from carcls.data.demo_scene import VIEWS, make_scene
from carcls.data.fingerprints import near_duplicate_groups
from carcls.errors import DataError, InputError, OutputError
from carcls.stages import StageStore
from sweeps.cli.view import PlainView
from sweeps.job_data import with_demo
from sweeps.spec_loading import load_spec

PER_CLASS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo data set with one training and one test image of each class."""
    return demo.write_demo(tmp_path_factory.mktemp("demo") / "cars", images_per_class=PER_CLASS, workers=1)


def _annotations(folder: Path, name: str) -> np.ndarray:
    return loadmat(folder / "devkit" / name, squeeze_me=True)["annotations"]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_class_is_fine_grained_and_has_a_name_of_its_own() -> None:
    """There are at least 24 classes with distinct names, and none looks like another."""
    assert len(CLASSES) >= 24
    assert len({entry.name for entry in CLASSES}) == len(CLASSES)
    assert len({(entry.body, entry.face) for entry in CLASSES}) == len(CLASSES)


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
            assert getattr(CLASSES[first].face, name) != getattr(CLASSES[second].face, name)


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


def test_same_seed_draws_the_same_bytes_in_other_processes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two worker processes write byte for byte what this process wrote."""
    monkeypatch.setattr(demo, "_IN_PROCESS", 0)
    again = demo.write_demo(tmp_path / "cars", images_per_class=PER_CLASS, workers=2)
    assert _contents(again) == _contents(folder)


def test_other_seeds_draw_other_pictures() -> None:
    """The seed, the class and the index each change the picture."""
    pictures = {demo._draw_image(*key).jpeg for key in ((0, 3, 0), (1, 3, 0), (0, 4, 0), (0, 3, 1))}
    assert len(pictures) == 4


def test_views_take_turns_and_colours_are_shared_by_the_classes() -> None:
    """Each class is seen from every view, and draws its colours from the same set as the others."""
    points = demo._mesh(0).quads.reshape(-1, 3)
    scenes = [make_scene(np.random.default_rng([7, i]), points, i) for i in range(8)]
    bearings = [abs(np.rad2deg(np.arctan2(*scene.camera.position[[1, 0]]))) for scene in scenes]
    for low, high in VIEWS.values():
        assert any(low <= bearing <= high for bearing in bearings)
    assert not {field.name for field in fields(CLASSES[0].face)} & {"paint", "colour"}
    assert len({scene.paint for scene in scenes}) > 4


def test_interrupted_writing_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When drawing stops in the middle, neither the folder nor a half-filled draft stays behind."""
    draw = demo._draw_image

    def interrupted(seed: int, label: int, index: int) -> demo._Drawn:
        if label == 2:
            raise KeyboardInterrupt
        return draw(seed, label, index)

    monkeypatch.setattr(demo, "_draw_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(tmp_path / "cars", images_per_class=PER_CLASS, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_a_complete_folder_is_not_drawn_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing into a complete folder returns it without drawing anything."""
    monkeypatch.setattr(demo, "_draw_all", None)
    assert demo.write_demo(folder, images_per_class=PER_CLASS) == folder


def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    """A folder that holds other files is neither overwritten nor taken for the demo."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"must be absent.*Remove it"):
        demo.write_demo(tmp_path, images_per_class=PER_CLASS)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder below a plain file is the user's mistake, said in one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="must be writable"):
        demo.write_demo(tmp_path / "file" / "cars", images_per_class=PER_CLASS)


def test_counts_are_known_before_drawing(folder: Path) -> None:
    """`demo_counts` says what `write_demo` writes, and refuses too small a number."""
    written = [len(list((folder / name).iterdir())) for name in ("cars_train", "cars_test")]
    assert demo.demo_counts(PER_CLASS) == (len(CLASSES), *written)
    classes, train, test = demo.demo_counts(30)
    assert train + test == classes * 30
    assert 0.7 < train / (train + test) < 0.8
    with pytest.raises(InputError, match="images_per_class must be at least 2"):
        demo.demo_counts(1)


def test_folder_name_tells_data_sets_apart() -> None:
    """The folder name changes with the seed and the number of images."""
    assert len({demo.demo_folder_name(0, 30), demo.demo_folder_name(1, 30), demo.demo_folder_name(0, 31)}) == 3


def test_contact_sheet_shows_every_class(folder: Path, tmp_path: Path) -> None:
    """The sheet is a PNG with a row for every so many classes."""
    sizes = []
    for columns in (len(CLASSES), 6):
        with Image.open(demo.contact_sheet(folder, tmp_path / "sheet.png", columns=columns)) as sheet:
            assert sheet.format == "PNG"
            sizes.append(sheet.size)
    one_row, several = sizes
    assert several == (one_row[0] // len(CLASSES) * 6, one_row[1] * -(-len(CLASSES) // 6))


@pytest.mark.slow
def test_the_demo_repeats_no_picture(tmp_path: Path) -> None:
    """In the demo as users get it, the search for near-duplicates finds none across splits, and none at all."""
    folder = demo.write_demo(tmp_path / "cars")
    stages = StageStore(tmp_path / "stages")
    found = prepare_dataset(DataConfig(path=str(folder)), stages, 32)
    assert found.duplicates == ()
    groups = near_duplicate_groups(found.pack(stages, 32).fingerprints)
    assert len(set(groups.tolist())) == sum(demo.demo_counts()[1:])


def test_what_nearly_repeats_an_earlier_picture_is_drawn_anew() -> None:
    """Of the same picture twice the first stays as it was, and the other becomes one that is drawn nowhere else."""
    first, other = demo._draw_image(0, 3, 0), demo._draw_image(0, 5, 1)
    twin = replace(first, index=8)
    apart = demo._told_apart([first, other, twin], 0)
    assert apart[:2] == [first, other]
    assert (apart[2].label, apart[2].index) == (3, 8)
    assert apart[2] not in (twin, demo._draw_image(0, 3, 8))


def test_a_sweep_goes_on_with_the_demo_that_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older carsweep drew stays a sweep's data; a new sweep beside it gets the pictures of today."""
    older = tmp_path / "data" / "demo-v1-seed0-36"
    for place in range(24):
        pixels = np.random.default_rng(place).integers(0, 256, (8, 8, 3), np.uint8)
        file = older / ("train" if place % 3 else "test") / "ab"[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    (tmp_path / "old").mkdir()
    begun = prepare_dataset(DataConfig(path=str(older)), StageStore(tmp_path / "stages"), 32)
    begun.save(tmp_path / "old" / "dataset.json")
    drawn: list[Path] = []
    monkeypatch.setattr(demo, "write_demo", drawn.append)
    for name in ("old", "new"):
        spec = load_spec("transfer", overrides={"name": name})
        with_demo(spec, tmp_path, PlainView(spec, Console(quiet=True)))
    assert drawn == [older, tmp_path / "data" / demo.demo_folder_name()]
