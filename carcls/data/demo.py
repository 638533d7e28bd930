"""The embedded demo data set: rendered fictional cars in Stanford Cars' devkit layout, the same for the same seed.

FOLDER/cars_train/00001.jpg …                     FOLDER/cars_test/00001.jpg …
FOLDER/devkit/cars_train_annos.mat                FOLDER/devkit/cars_test_annos.mat (without labels)
FOLDER/devkit/cars_test_annos_withlabels.mat      FOLDER/devkit/cars_meta.mat
"""

from __future__ import annotations

import io
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.io import loadmat, savemat

from carcls.data.decode import GRAY_SIDE, Decoded
from carcls.data.demo_body import Surface
from carcls.data.demo_catalogue import CLASSES
from carcls.data.demo_details import trim
from carcls.data.demo_ends import nose, tail
from carcls.data.demo_finish import Box, develop, occlude
from carcls.data.demo_render import Layer, Mesh, Part, Parts, render_car
from carcls.data.demo_scene import Scene, draw_surroundings, make_scene, random_paint
from carcls.data.demo_wheels import treads, wheels
from carcls.data.fingerprints import THRESHOLD, fingerprint, near_pairs
from carcls.errors import DataError, InputError, OutputError
from carcls.machine import usable_cores

DEMO_VERSION = 2  # goes up whenever the same seed draws other pictures
_STREAM = 1  # of random numbers; the same for versions that differ in few pictures
_APART = THRESHOLD + 2  # bits, and two for what another version of Pillow makes of the same picture
_LAST_WRITTEN = Path("devkit") / "cars_test_annos_withlabels.mat"
_IN_PROCESS = 64  # up to so many images, starting processes takes longer than drawing
_WHEEL_TURNS = 3
_MAT_HEADER = b"MATLAB 5.0 MAT-file, carsweep demo cars".ljust(116)  # scipy writes the date there


@dataclass(frozen=True)
class _Drawn:
    """One drawn image; ``box`` is 1-based with both ends inside, as in the original annotations."""

    label: int
    index: int
    box: Box
    jpeg: bytes
    fingerprint: int


def demo_counts(images_per_class: int = 36) -> tuple[int, int, int]:
    """Number of classes, training images and test images of a demo data set.

    Raises:
        InputError: ``images_per_class`` is below 2.
    """
    if images_per_class < 2:
        raise InputError(
            f"images_per_class must be at least 2, one for training and one for test, got {images_per_class!r}."
            " Give a larger number."
        )
    train = min(max(round(images_per_class * 0.75), 1), images_per_class - 1)
    return len(CLASSES), len(CLASSES) * train, len(CLASSES) * (images_per_class - train)


def demo_folder_name(seed: int = 0, images_per_class: int = 36) -> str:
    """A folder name that says exactly which pictures are inside."""
    return f"demo-v{DEMO_VERSION}-seed{seed}-{images_per_class}"


def write_demo(folder: Path, *, seed: int = 0, images_per_class: int = 36, workers: int | None = None) -> Path:
    """Draw the demo data set into ``folder``; returns at once when it is already there.

    The folder appears complete or not at all: it is written under another name beside its place and then renamed.

    Args:
        folder: where to; its parents are made.
        seed: the same seed gives the same bytes (with the same Pillow version), whatever ``workers`` is.
        images_per_class: training and test images of each class together, at least 2; three quarters are for training.
        workers: processes that draw; None takes one for each CPU that this process may use.

    Raises:
        DataError: ``folder`` holds something else.
        InputError: ``images_per_class`` is below 2.
        OutputError: ``folder`` cannot be written.
    """
    demo_counts(images_per_class)
    if (folder / _LAST_WRITTEN).is_file():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"demo folder must be absent, empty or a complete demo data set, got {str(folder)!r}. Remove it."
        )
    with _appearing(folder) as draft:
        images = _draw_all(seed, images_per_class, workers)
        _write_layout(draft, _told_apart(list(images), seed), seed, images_per_class)
    return folder


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its final name at the end, or vanishes when that does not come."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise OutputError(
            f"demo folder must be writable, got {str(folder)!r} ({error}). Choose another --out."
        ) from error
    try:
        yield draft
        draft.chmod(0o755)
        try:
            draft.replace(folder)
        except OSError:
            if not (folder / _LAST_WRITTEN).is_file():  # otherwise another process has just written the same
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draw_all(seed: int, images_per_class: int, workers: int | None) -> Iterator[_Drawn]:
    """All images, class by class."""
    count = workers or usable_cores()
    tasks = [(seed, label, images_per_class) for label in range(len(CLASSES))]
    if count == 1 or len(CLASSES) * images_per_class <= _IN_PROCESS:
        for task in tasks:
            yield from _draw_class(task)
        return
    with ProcessPoolExecutor(min(count, len(tasks)), mp_context=multiprocessing.get_context("spawn")) as pool:
        for drawn in pool.map(_draw_class, tasks):
            yield from drawn


def _draw_class(task: tuple[int, int, int]) -> list[_Drawn]:
    seed, label, images_per_class = task
    return [_draw_image(seed, label, index) for index in range(images_per_class)]


def _told_apart(images: list[_Drawn], seed: int) -> list[_Drawn]:
    """Draw anew what looks like an earlier image to the search for near-duplicates, until nothing does."""
    attempt = 0
    while len(repeated := _repeated(images)):
        attempt += 1
        for place in repeated:
            images[place] = _draw_image(seed, images[place].label, images[place].index, attempt)
    return images


def _repeated(images: Sequence[_Drawn]) -> npt.NDArray[np.int64]:
    prints = np.array([image.fingerprint for image in images], np.uint64)
    first, second = near_pairs(prints, prints, _APART)
    return np.unique(second[first < second])


def _draw_image(seed: int, label: int, index: int, attempt: int = 0) -> _Drawn:
    rng = np.random.default_rng([_STREAM, seed, label, index, *([attempt] if attempt else [])])
    body, mesh = CLASSES[label].body, _mesh(label)
    scene = make_scene(rng, mesh.quads.reshape(-1, 3), index)
    picture = draw_surroundings(rng, scene, body)
    if scene.place.places_beside and rng.random() < 0.25:
        _paste(picture, _neighbour(rng, scene))
    parts = _parts(label, scene.lamps_on, int(rng.integers(_WHEEL_TURNS)))
    layer = render_car(mesh, parts, scene.camera, scene.paint, scene.light, scene.size)
    _paste(picture, layer)
    left, top, right, bottom = _seen_box(layer)
    brightness = float(np.sqrt(np.clip(scene.light.horizon.mean() + scene.light.sun_colour.mean() * 0.4, 0.02, 1)))
    if rng.random() < 0.05:
        _paste(picture, _in_front(rng, scene, (left, top, right, bottom)))
    else:
        picture = occlude(rng, picture, (left, top, right, bottom), brightness)
    jpeg = develop(rng, picture)
    return _Drawn(label, index, (left + 1, top + 1, right, bottom), jpeg, _print_of(jpeg, (left, top, right, bottom)))


def _print_of(jpeg: bytes, box: Box) -> int:
    """Return the fingerprint of the crop, as the search for near-duplicates sees it."""
    with Image.open(io.BytesIO(jpeg)) as image:
        gray = Decoded(image.convert("RGB"), box, None, 1).square(GRAY_SIDE).convert("L")
    return int(fingerprint(np.asarray(gray)[None])[0])


def _neighbour(rng: np.random.Generator, scene: Scene) -> Layer:
    """Another car, parked on the far side of the one that the image is about."""
    label = int(rng.integers(len(CLASSES)))
    aside = -np.sign(scene.camera.position[1]) * rng.uniform(2.7, 3.4)
    moved = scene.camera.position - np.array([rng.normal(0, 0.5), aside, 0.0])
    camera = replace(scene.camera, position=moved)
    return render_car(_mesh(label), _parts(label, False, 0), camera, random_paint(rng), scene.light, scene.size)


def _in_front(rng: np.random.Generator, scene: Scene, box: Box) -> Layer:
    """Another car nearer to the camera, of which one end covers a small part of the one that the image is about."""
    label = int(rng.integers(len(CLASSES)))
    near = replace(scene.camera, position=scene.camera.position * np.array([0.72, 0.72, 1.0]))
    flat = near.project(_mesh(label).quads.reshape(-1, 3))[0][:, 0]
    reach = (box[2] - box[0]) * rng.uniform(0.05, 0.15)
    aside = box[0] + reach - flat.max() if rng.random() < 0.5 else box[2] - reach - flat.min()
    near = replace(near, offset=(near.offset[0] + float(aside), near.offset[1]))
    return render_car(_mesh(label), _parts(label, False, 0), near, random_paint(rng), scene.light, scene.size)


@lru_cache(maxsize=len(CLASSES))
def _mesh(label: int) -> Mesh:
    return Mesh(_surface(label).quads())


@lru_cache(maxsize=len(CLASSES))
def _surface(label: int) -> Surface:
    return Surface(CLASSES[label].body)


@lru_cache(maxsize=len(CLASSES))
def _fixed_parts(label: int, lamps_on: bool) -> tuple[Part, ...]:
    surface, face = _surface(label), CLASSES[label].face
    ends = (*nose(surface, face, lamps_on=lamps_on), *tail(surface, face, lamps_on=lamps_on))
    return (*treads(surface), *trim(surface, face), *ends)


@lru_cache(maxsize=8)
def _parts(label: int, lamps_on: bool, turn: int) -> Parts:
    spin = turn / _WHEEL_TURNS * 0.2 + 0.03
    return Parts((*_fixed_parts(label, lamps_on), *wheels(_surface(label), CLASSES[label].face.wheel, spin)))


def _paste(picture: Image.Image, layer: Layer) -> None:
    picture.paste(layer.picture, (layer.left, layer.top), layer.picture)


def _seen_box(layer: Layer) -> Box:
    """The pixels that the car covers by at least half."""
    box = layer.picture.getchannel("A").point([0] * 128 + [255] * 128).getbbox()
    assert box is not None, "the camera is set so that the car is in the picture"
    return box[0] + layer.left, box[1] + layer.top, box[2] + layer.left, box[3] + layer.top


def _write_layout(folder: Path, images: Iterable[_Drawn], seed: int, images_per_class: int) -> None:
    classes, train, test = demo_counts(images_per_class)
    per_class = train // classes
    numbers = {
        split: np.random.default_rng([_STREAM, seed, n]).permutation(n)
        for split, n in (("train", train), ("test", test))
    }
    rows: dict[str, list[tuple[_Drawn, str]]] = {"train": [], "test": []}
    for split in rows:
        (folder / f"cars_{split}").mkdir()
    for image in images:
        split = "train" if image.index < per_class else "test"
        name = f"{numbers[split][len(rows[split])] + 1:05d}.jpg"
        (folder / f"cars_{split}" / name).write_bytes(image.jpeg)
        rows[split].append((replace(image, jpeg=b""), name))
    ordered = {split: sorted(found, key=lambda row: row[1]) for split, found in rows.items()}
    devkit = folder / "devkit"
    devkit.mkdir()
    names = np.array([[entry.name for entry in CLASSES]], dtype=object)
    _write_mat(devkit / "cars_meta.mat", {"class_names": names})
    _write_mat(devkit / "cars_train_annos.mat", {"annotations": _annotations(ordered["train"], labels=True)})
    _write_mat(devkit / "cars_test_annos.mat", {"annotations": _annotations(ordered["test"], labels=False)})
    _write_mat(folder / _LAST_WRITTEN, {"annotations": _annotations(ordered["test"], labels=True)})


def _annotations(rows: list[tuple[_Drawn, str]], *, labels: bool) -> npt.NDArray[np.void]:
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", *(["class"] if labels else []), "fname"]
    table = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for i, (image, name) in enumerate(rows):
        table[0, i] = (*image.box, *([image.label + 1] if labels else []), name)
    return table


def _write_mat(path: Path, content: dict[str, Any]) -> None:
    target = io.BytesIO()
    savemat(target, content)
    path.write_bytes(_MAT_HEADER + target.getvalue()[len(_MAT_HEADER) :])


def contact_sheet(folder: Path, target: Path, *, columns: int = 7) -> Path:
    """Write a PNG with one captioned test image of each class of a demo data set; returns ``target``."""
    annotations = loadmat(folder / _LAST_WRITTEN, squeeze_me=True)["annotations"]
    chosen: dict[int, str] = {}
    for row in annotations:
        chosen.setdefault(int(row["class"]), str(row["fname"]))
    width, height, caption = 240, 172, 20
    sheet = Image.new("RGB", (columns * width, -(-len(chosen) // columns) * (height + caption)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (label, name) in enumerate(sorted(chosen.items())):
        left, top = i % columns * width, i // columns * (height + caption)
        with Image.open(folder / "cars_test" / name) as image:
            sheet.paste(image.resize((width - 4, height - 2), Image.Resampling.LANCZOS), (left + 2, top + 2))
        draw.text((left + width / 2, top + height + 1), CLASSES[label - 1].name, fill="black", font=font, anchor="ma")
    sheet.save(target)
    return target
