"""The embedded demo data set: drawn fictional cars in Stanford Cars' devkit layout, the same everywhere.

A picture is ribbons on a car's curved shell in perspective. A point [..., 3] has a distance from the nose and a height
in metres, and a place across: ±1 at the corners, more along the flank, in metres. A ribbon is between two edges [n, 3].
"""

from __future__ import annotations

import io
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from carcls.data.demo_catalogue import CLASSES, GRILLES, LIGHTS, RIMS, Body, CarClass, Lobe
from carcls.data.devkit import TEST_ANNOTATIONS, write_devkit
from carcls.data.manifest import Box, ImageRecord
from carcls.errors import DataError, OutputError
from carcls.machine import usable_cores

# What the folder is called says exactly which pictures are inside: the version goes up when others are drawn.
FOLDER_NAME = "demo-v3-seed0"
_PER_CLASS: dict[Literal["train", "test"], int] = {"train": 27, "test": 9}
_SEED = 0
_LAST_WRITTEN = Path("devkit") / TEST_ANNOTATIONS
Floats = npt.NDArray[np.float64]
Ribbon = tuple[Floats, Floats, str]  # two edges, and a material
VIEWS = ((24, 62), (118, 156), (78, 102), (24, 62), (118, 156), (4, 20), (78, 102), (162, 176))  # degrees from the nose
_MATERIALS = {  # red, green, blue (0 to 1, linear), and how much it mirrors
    "below": (0.01, 0.01, 0.01, 0), "black": (0.01, 0.01, 0.01, 0), "paint": (0, 0, 0, 1),
    "glass": (0.01, 0.014, 0.02, 1.2), "metal": (0.6, 0.61, 0.64, 0.3), "red": (0.6, 0, 0, 0.3),
    "lens": (0.42, 0.48, 0.53, 0.5), "bulb": (0.9, 0.9, 0.9, 0),
}  # fmt: skip
_SCREENS = (22, 28, "glass"), (36, 42, "glass")  # from place to place along the outline
_PATCHES = {"closed": _SCREENS, "bed": (*_SCREENS, (44, 49, "black")), "coupe": _SCREENS, "open": ((24, 40, "black"),)}
_FRAME = {"a": (-0.06, 1.06), "b": (-0.1, 1.1)}  # what is a little larger than a lobe


def demo_counts() -> tuple[int, int, int]:
    """Number of classes, training images and test images of a demo data set."""
    return len(CLASSES), len(CLASSES) * _PER_CLASS["train"], len(CLASSES) * _PER_CLASS["test"]


def write_demo(folder: Path, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Path:
    """Draw the demo data set into ``folder``; returns at once when it is already there.

    The folder appears complete or not at all: it is written under another name beside its place and then renamed. The
    pictures are the same with the same version of Pillow, on however many processes.

    Args:
        folder: where to; its parents are made.
        progress: told how many pictures of how many are drawn.

    Raises:
        DataError: ``folder`` holds something else.
        OutputError: ``folder`` cannot be written.
    """
    if (folder / _LAST_WRITTEN).is_file():
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"demo folder must be absent, empty or a complete demo, got {str(folder)!r}. Remove it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent, ignore_cleanup_errors=True)
    except OSError as why:
        raise OutputError(f"demo folder must be writable, got {str(folder)!r} ({why}). Choose another --out.") from why
    with draft as name:
        _fill(Path(name), progress)
        Path(name).chmod(0o755)
        try:
            Path(name).replace(folder)
        except OSError:
            if not (folder / _LAST_WRITTEN).is_file():  # otherwise another process has just written the same
                raise
    return folder


def _fill(folder: Path, progress: Callable[[int, int], None]) -> None:
    labels, indices = np.divmod(np.arange(sum(demo_counts()[1:])), sum(_PER_CLASS.values()))
    with ProcessPoolExecutor(usable_cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
        with _unseen_main():  # while the processes start
            images = pool.map(draw_image, labels.tolist(), indices.tolist(), chunksize=12)
        drawn: list[tuple[Box, bytes]] = []
        for picture in images:
            drawn.append(picture)
            progress(len(drawn), len(labels))
    records: list[ImageRecord] = []
    for split in _PER_CLASS:
        (folder / f"cars_{split}").mkdir()
    for place in np.random.default_rng(_SEED).permutation(len(labels)).tolist():
        split = "train" if indices[place] < _PER_CLASS["train"] else "test"
        path, (box, jpeg) = f"cars_{split}/{len(records) + 1:05d}.jpg", drawn[place]
        (folder / path).write_bytes(jpeg)
        records.append(ImageRecord(path, int(labels[place]), split, box))
    write_devkit(folder, [entry.name for entry in CLASSES], records)


@contextmanager
def _unseen_main() -> Iterator[None]:
    """Keep processes that are spawned from running the caller's script once more, which need not be guarded for it."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def project(camera: Floats, points: Floats) -> Floats:
    """Return pixel positions [..., 2] of points [..., 3] in metres forward, left and up of the car's middle.

    The rows of a camera [4, 3] are its place, and what pixels to the right, pixels down and the depth grow with.
    """
    right, down, depth = np.einsum("...k,ak->a...", points - camera[0], camera[1:])  # not BLAS: the same bits
    return np.stack([right / depth, down / depth], axis=-1)


@lru_cache(maxsize=len(CLASSES))
class Car:
    """What the cars of a class are drawn from: quads [n, 4, 3] in metres, their normals [n, 3] and materials [n]."""

    def __init__(self, entry: CarClass) -> None:
        line = _outline(entry.body)
        ribbons = [*_shell(entry, line), *_ends(entry, line)]
        surface = [np.stack([a[:-1], a[1:], b[1:], b[:-1]], axis=1) for a, b, _ in ribbons]
        self.quads = _solid(entry.body, np.concatenate(surface))
        normals = np.cross(self.quads[:, 2] - self.quads[:, 0], self.quads[:, 3] - self.quads[:, 1])
        outward = np.sign(np.einsum("nk,nk->n", normals, self.quads.mean(axis=1) * (0.55, 1, 1) - (0, 0, 0.55)))
        self.normals = normals * (outward / np.sqrt((normals**2).sum(axis=1) + 1e-12))[:, None]
        self.materials = np.repeat([name for *_, name in ribbons], [len(found) for found in surface])
        self.table = np.array([_MATERIALS[name] for name in self.materials])

    def draw(self, draw: ImageDraw.ImageDraw, camera: Floats, paint: Floats, sun: Floats) -> None:
        """Draw it in a paint [3] (0 to 1, linear), lit by the sky and a sun [3] (its direction times its strength)."""
        away, painted = self.quads.mean(axis=1) - camera[0], self.materials == "paint"
        distance, up = np.sqrt((away**2).sum(axis=1)), self.normals[:, 2]
        facing = np.einsum("nk,nk->n", self.normals, away) / distance
        light = 0.42 + 0.22 * up + 0.6 * np.clip(np.einsum("nk,k->n", self.normals, sun), 0, 1)
        linear = np.where(painted[:, None], paint, self.table[:, :3]) * light[:, None]
        linear += (self.table[:, 3] * (0.03 + 0.1 * np.clip(up, 0, 1) + 0.3 * (1 + facing) ** 3))[:, None]
        fills = (np.sqrt(np.clip(linear, 0, 1)) * 255).astype(int).tolist()
        turn = np.where(painted, -distance, np.arange(len(distance)))  # the shell from far to near, then the details
        polygons = project(camera, self.quads).reshape(-1, 8).tolist()
        for i in np.argsort(np.where(self.materials == "below", -np.inf, turn), kind="stable").tolist():
            if facing[i] < 0:
                draw.polygon(polygons[i], tuple(fills[i]))


def _outline(body: Body) -> Floats:
    """Distances and heights [64, 2], from under the nose over the roof to under the tail; 7 for each corner."""
    low, roof = body.wheel - 0.12, body.height if body.kind != "open" else body.cowl[1]
    corners = np.array([
        (0.07, low), (0, low + 0.27), (0.09, body.nose), body.cowl, (body.roof[0], roof), (body.roof[1], roof - 0.05),
        body.glass_end, (body.length - 0.06, body.tail), (body.length, low + 0.4), (body.length - 0.08, low),
    ])  # fmt: skip
    line = np.stack([np.interp(np.arange(64) / 7, np.arange(10), column) for column in corners.T], axis=1)
    return np.asarray(sum(line[np.clip(np.arange(64) + k, 0, 63)] for k in range(-2, 3)) / 5)  # rounds the corners


def _solid(body: Body, surface: Floats) -> Floats:
    """Points [..., 3] in metres forward, left and up of the car's middle on the ground."""
    d, z, w = np.moveaxis(surface, -1, 0)
    across, beyond = np.clip(w, -1.03, 1.03), np.maximum(np.abs(w) - 1.03, 0)
    d = d + np.where(d < body.length / 2, beyond, -beyond)
    front, rear = np.clip(1 - d / 1.5, 0, 1), np.clip(1 - (body.length - d) / 1.3, 0, 1)
    above = np.clip((z - body.cowl[1] + 0.05) / (body.height - body.cowl[1] + 0.05), -1, 1)
    half = body.width / 2 - 0.15 * front**2 - 0.12 * rear**2 - np.where(above > 0, 0.2, -0.04) * above
    return np.stack([body.length / 2 - d + across**2 * (0.14 * rear - 0.16 * front), across * half, z], axis=-1)


def _edge(d: Any, z: Any, w: Any) -> Floats:
    return np.stack(np.broadcast_arrays(d, z, w), axis=-1).astype(float)


def _shell(entry: CarClass, line: Floats) -> Iterator[Ribbon]:
    body, (d, z), low = entry.body, line.T, line[0, 1]
    rows = [_edge(d, z, w) for w in np.linspace(-1, 1, 7)]
    sides = [[_edge(d, low + (z - low) * share, w) for share in np.linspace(0, 1, 5)] for w in (1, -1)]
    yield from ((a, b, "paint") for a, b in (*pairwise(rows), *pairwise(sides[0]), *pairwise(sides[1])))
    for start, end, material in _PATCHES[body.kind]:
        yield _edge(d[start:end], z[start:end], -0.88), _edge(d[start:end], z[start:end], 0.88), material
    belt, doors = body.cowl[1] - 0.05, 1 if body.kind in ("coupe", "open") else 2
    seams = body.cowl[0] + 0.14 + np.linspace(0, 0.9 + 0.4 * doors, doors + 1)
    d = np.linspace(body.cowl[0] + 0.26, body.glass_end[0] - 0.26, 24)
    top = np.maximum(np.interp(d, *line[8:-8].T) - 0.10, belt)
    for w in (1, -1):
        if body.kind != "open":
            yield _edge(d, belt - 0.03, w), _edge(d, top + 0.03, w), "black"
            yield _edge(d, belt, w), _edge(d, top, w), "glass"
        else:
            yield _edge(body.cowl[0] + 0.1, belt, [0, w * 0.9]), _edge(body.roof[0], body.height, [0, w * 0.9]), "glass"
        yield from ((_edge(s, [body.wheel, belt], w), _edge(s + 0.02, [body.wheel, belt], w), "black") for s in seams)
        for axle in body.axles:
            yield _edge(axle, [0, 0.3], w * 0.75), _edge(axle, [0, 0.3], w), "below"
            yield from _wheel(axle, body.wheel, entry.wheel, w)


def _wheel(axle: float, radius: float, rim: str, w: int) -> Iterator[Ribbon]:
    def around(turns: Any, share: Any) -> Floats:
        angle, reach = np.asarray(turns) * 2 * np.pi, np.asarray(share) * radius
        return _edge(axle + reach * np.cos(angle), np.maximum(radius + reach * np.sin(angle), 0), 1.02 * w)

    circle, (spokes, half, apart) = np.linspace(0, 1, 25), RIMS[rim]
    for share, material in ((1.16, "black"), (0.76, "metal"), (0.69, "black"), (0.15, "metal")):
        yield around(circle, 0), around(circle, share), material
    for turn in (at / spokes + way for at in range(spokes) for way in (apart, -apart)):
        yield around(turn - half, [0.05, 0.72]), around(turn + half, [0.05, 0.72]), "metal"


def _lobe(on: tuple[float, float, Floats], lobe: Lobe, of: str, a: Any = (0, 1), b: Any = (0, 1)) -> Iterator[Ribbon]:
    """Shares ``a`` of a lobe's width and ``b`` of its height, on a band: upper edge, height, and outline upwards."""
    (top, height, line), (start, end, low, high, rise, bow) = on, lobe
    share = np.linspace(a[0], a[1], 2 + int((a[1] - a[0]) * (end - start) * 16))
    bent = bow * np.sqrt(np.clip(1 - (2 * share - 1) ** 2, 0, 1))
    lower, upper = low + rise * share - bent, high + rise * share + bent
    for side in (1, -1) if start > 0 else (1,):
        heights = [top - height * (1 - lower - (upper - lower) * at) for at in b]
        below, above = (_edge(np.interp(z, *line.T[::-1]), z, side * (start + (end - start) * share)) for z in heights)
        yield below, above, of


def _ends(entry: CarClass, line: Floats) -> Iterator[Ribbon]:
    body, (lobe, upright, level) = entry.body, GRILLES[entry.grille]
    nose = (body.nose - 0.02, max(0.27, 0.9 * (body.nose - body.wheel - 0.15)), line[:18])
    tail = (body.tail + (0.1 if body.glass_end[0] > body.length - 0.36 else -0.03), 0.36, line[:48:-1])
    yield from (*_lobe(nose, lobe, "metal", **_FRAME), *_lobe(nose, lobe, "black"))
    for i in range(upright):
        yield from _lobe(nose, lobe, "metal", a=((i + 0.7) / (upright + 0.4), (i + 0.95) / (upright + 0.4)))
    for i in range(level):
        yield from _lobe(nose, lobe, "metal", b=((i + 0.8) / (level + 0.6), (i + 1.05) / (level + 0.6)))
    for end, lights, glass in ((nose, LIGHTS[entry.headlight], "lens"), (tail, LIGHTS[entry.taillight], "red")):
        for light in lights:
            yield from (*_lobe(end, light, "black", **_FRAME), *_lobe(end, light, glass))
            yield from _lobe(end, light, "bulb", (0.25, 0.6), (0.3, 0.7))
        yield from _lobe(end, (-0.8, 0.8, -0.7, -0.6, 0, 0), "black")
        yield from _lobe(end, (-0.25, 0.25, -0.5, -0.2, 0, 0), "lens")


def viewpoint(rng: np.random.Generator, index: int, shape: Car, size: tuple[int, int]) -> Floats:
    """Return a camera that sees all of a car in a picture of that size; ``index`` chooses the side it is seen from."""
    azimuth, distance = np.deg2rad(rng.uniform(*VIEWS[index % len(VIEWS)])) * rng.choice([-1, 1]), rng.uniform(6, 9)
    position = np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), rng.uniform(1.0, 2.2)])
    forward = np.array([0, 0, 0.65]) - position
    right = np.array([forward[1], -forward[0], rng.normal(0, 0.2)])  # a little askew
    axes = np.stack([axis / np.sqrt((axis**2).sum()) for axis in (right, np.cross(forward, right), forward)])
    flat = project(np.stack([position, *axes]), shape.quads)
    low, extent = flat.min(axis=(0, 1)), np.ptp(flat, axis=(0, 1))
    focal = (rng.uniform((0.62, 0.62), (0.94, 0.86)) * size / extent).min()
    corner = (size - extent * focal) * rng.uniform((0.15, 0.35), 0.85) - low * focal
    return np.stack([position, *(focal * axes[:2] + corner[:, None] * axes[2]), axes[2]])


def _surroundings(rng: np.random.Generator, camera: Floats, size: tuple[int, int], body: Body) -> Image.Image:
    """Draw sky, ground, houses or trees at the horizon, and the shadow beneath the car."""
    horizon = project(camera, camera[0] + camera[3] * (1, 1, 0) * 99)[1]
    below = (np.arange(size[1]) - horizon)[:, None, None] / size[1]
    grit = Image.fromarray(rng.normal(0, rng.uniform(0, 22), (40, 20)).astype(np.float32)).resize(size)
    sky = rng.uniform(60, 250) + rng.uniform(-80, 80) * below + rng.uniform((-10, -5, 0), (20, 10, 40))
    soil = rng.choice(((92, 94, 98), (74, 100, 52), (150, 130, 105))) * rng.uniform(0.6, 1.3)
    pixels = np.where(below > 0, soil + rng.uniform(-80, 80) * below + np.asarray(grit)[..., None], sky)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    shadow, (tint, form) = Image.new("L", size), ((0.5, 0.8, 0.4), 0.9) if rng.random() < 0.5 else ((1, 0.95, 0.9), 0)
    for x in rng.uniform(0, size[0], int(rng.integers(0, 14))):
        (wide, high), tone = size * rng.uniform(0.03, (0.15, 0.4)), rng.uniform(40, 190) * rng.uniform(0.8, 1, 3) * tint
        place = (x - wide, horizon - high, x + wide, horizon + size[1] * 0.02)
        ImageDraw.Draw(picture).rounded_rectangle(place, form * min(wide, high / 2), tuple(tone.astype(int).tolist()))
    corners = np.array([(1, 1, 0), (1, -1, 0), (-1, -1, 0), (-1, 1, 0)]) * (body.length * 0.48, body.width * 0.48, 0)
    ImageDraw.Draw(shadow).polygon(project(camera, corners).ravel().tolist(), 190)
    shadow, picture = shadow.filter(ImageFilter.BoxBlur(6)), picture.filter(ImageFilter.BoxBlur(rng.uniform(0, 2.5)))
    return Image.composite(Image.new("RGB", size), picture, shadow)


def draw_image(label: int, index: int) -> tuple[Box, bytes]:
    """Draw an image of a class; return the car's box and the JPEG file."""
    rng, shape = np.random.default_rng([_SEED, label, index]), Car(CLASSES[label])
    size = int(rng.integers(304, 417)), int(rng.integers(220, 300))
    camera, sun = viewpoint(rng, index, shape, size), np.array([*rng.normal(0, 0.6, 2), 0.8]) * rng.uniform(0.2, 1)
    picture = _surroundings(rng, camera, size, CLASSES[label].body).resize((2 * size[0], 2 * size[1]))
    paint = rng.uniform(0.02, 0.8) * rng.uniform(0.9, 1.1, 3) if rng.random() < 0.4 else rng.uniform(0.05, 0.9, 3) ** 2
    shape.draw(ImageDraw.Draw(picture), camera * ((1,), (2,), (2,), (1,)), paint, sun)
    picture = picture.reduce(2).filter(ImageFilter.BoxBlur(max(0.0, rng.uniform(-1.5, 0.6))))
    spots = Image.fromarray(rng.uniform(0.4, 1.35, (6, 7)).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    light = np.asarray(spots)[..., None] * (rng.uniform(0.9, 1.3) * (1 + rng.normal(0, 0.05, 3))).astype(np.float32)
    grain = rng.integers(-9, 10, (size[1], size[0], 1), np.int8) * np.float32(rng.uniform(0, 0.6))
    pixels, target = np.clip(np.asarray(picture) * light + grain, 0, 255).astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=int(rng.integers(72, 95)))
    flat, slack = project(camera, shape.quads), rng.uniform(0, 0.03, (2, 2))  # whoever drew the box was not exact
    low, extent = flat.min(axis=(0, 1)), np.ptp(flat, axis=(0, 1))
    box = np.clip([low - slack[0] * extent, low + (1 + slack[1]) * extent], 0, size).astype(int).ravel().tolist()
    return (box[0], box[1], box[2], box[3]), target.getvalue()
