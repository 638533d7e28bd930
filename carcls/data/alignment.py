"""Whether two images show one photograph: one is laid on the other by an affine map, then they are compared in detail.

The map is found by Gauss-Newton steps on the squared difference of gray values (Lucas and Kanade; the inverse
compositional form of Baker and Matthews, 2004) on 16, 32 and 64 pixels a side. Most pairs are given up at 16 pixels.
Only a disc in the middle is laid: a border, or the corners that turning adds, lie outside of it.

Points are x, y from -1 to 1, and a map [2, 3] leads from points of the found image to points of the asked one.
Letters in shapes: p pairs, m pixels of the disc, s pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

SMALL = 32
"""Side in pixels of the gray images that pairs are compared on first."""
SIDE = 64
"""Side in pixels of the thumbnails that are compared."""
SAME_DETAIL = 0.74
"""Least share of the detail in each part of a picture that a copy must have in common with it.

Chosen on 6,515 crops of Stanford Cars and altered copies of them. Pairs of the crops that have more are one photograph;
of the copies that were turned and cut to what has no corners, the hardest kind, 97% have more. Different cars in one
studio come up to 0.72, where a crop has cut off what they differ in.
"""
SAME_COLOUR = 30.0
"""Most root mean square difference of colour, in levels of 255: 99% of altered copies have less than 13, one picture
painted in another colour has 69."""
SIMPLE, RICH, SAME_SIMPLE = 0.60, 0.66, (0.97, 0.90)
"""Pictures with detail on at most SIMPLE of what they share, such as digits, icons and screenshots, must have
SAME_SIMPLE in common, the second in the same frame; those with detail on RICH of it, as 99% of photographs of cars,
SAME_DETAIL."""
_UNMOVED = 0.01
"""Most that a map moves in the same frame."""
_FAINT = 3.0
"""Detail of fewer levels of 255 is none."""
_LEVELS = ((SMALL // 2, 5, 0.82), (SMALL, 4, 0.90))
"""Pixels a side, steps, and the least correlation with which a pair goes on."""
_LAST_STEPS, _LAST_LEAST = 4, 0.90
_RADIUS, _PARTS, _BLUR, _LONGEST_STEP = 0.9, 3, 2.0, 0.15
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_TINTS = np.array([[1, -1, 0], [0, -1, 1]], np.float32)
_SYMMETRIC = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


@dataclass(frozen=True, eq=False)
class Disc:
    """The pixels of a square of s pixels a side that are compared.

    Attributes:
        pixels: positions in the raveled square, int64 [m].
        points: x, y and 1 of each, float32 [m, 3].
        products: of pairs of these: xx, xy, x, yy, y, 1, float32 [m, 6].
    """

    pixels: Rows
    points: Floats
    products: Floats


@cache
def disc(side: int, radius: float = _RADIUS) -> Disc:
    """Return the disc of a square; of radius 2 it is the whole square."""
    axis = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    y, x = (each.ravel() for each in np.meshgrid(axis, axis, indexing="ij"))
    pixels = np.flatnonzero(x**2 + y**2 < radius**2)
    points = np.stack([x[pixels], y[pixels], np.ones(len(pixels), np.float32)], axis=1)
    products = np.stack([points[:, i] * points[:, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], 1)
    return Disc(pixels, points, products)


@dataclass(frozen=True, eq=False)
class Match:
    """Which of some pairs of images show one photograph.

    Attributes:
        kept: their positions, int64 [k].
        detail: in [SAME_DETAIL, 1], the least of all parts of the picture, float32 [k].
        maps: float32 [k, 2, 3].
    """

    kept: Rows
    detail: Floats
    maps: Floats


def match(pairs: Rows, maps: Floats, small: NDArray[np.uint8], read: Callable[[Rows], NDArray[np.uint8]]) -> Match:
    """Say which pairs of images show one photograph.

    Args:
        pairs: positions of the asked and the found image, int64 [p, 2].
        maps: where to start from, float32 [p, 2, 3].
        small: gray, uint8 [n, 32, 32].
        read: returns thumbnails of some of the images, RGB, uint8 [k, 64, 64, 3]; called for pairs that get that far.
    """
    kept = np.arange(len(pairs))
    for side, steps, least in _LEVELS:
        images = shrunk(small[pairs[kept].T].astype(np.float32), SMALL // side)
        kept, maps = _go_on(kept, *_align(images[0], images[1], maps, steps), least)
    asked, found = (read(places) for places in pairs[kept].T)
    before = kept
    kept, maps = _go_on(kept, *_align(asked @ LUMA, found @ LUMA, maps, _LAST_STEPS), _LAST_LEAST)
    asked, found = asked[np.isin(before, kept)], found[np.isin(before, kept)]
    detail, rich = _least_detail(asked @ LUMA, found @ LUMA, maps)
    is_still = (np.abs(np.abs(maps) - np.eye(2, 3, dtype=np.float32)) < _UNMOVED).all(axis=(1, 2))
    simple = np.where(is_still, SAME_SIMPLE[1], SAME_SIMPLE[0])
    wanted = SAME_DETAIL + (simple - SAME_DETAIL) * np.clip((RICH - rich) / (RICH - SIMPLE), 0, 1)
    good = (detail >= wanted) & (_colour_difference(asked, found, maps) <= SAME_COLOUR)
    return Match(kept[good], detail[good], maps[good])


def _go_on(kept: Rows, maps: Floats, correlation: Floats, least: float) -> tuple[Rows, Floats]:
    """Return the pairs, and their maps, that correlate and whose maps are not beyond what copies differ by."""
    area = np.abs(np.linalg.det(maps[:, :, :2]))
    good = (correlation >= least) & (area > 0.4) & (area < 2.5) & (np.abs(maps[:, :, 2]) < 0.5).all(axis=1)
    return kept[good], maps[good]


def shrunk(images: Floats, factor: int) -> Floats:
    """Return images [..., s, s] as means over squares of ``factor`` pixels a side."""
    side = images.shape[-1] // factor
    means: Floats = images.reshape(*images.shape[:-2], side, factor, side, factor).mean((-3, -1))
    return means


def _sample(images: Floats, maps: Floats, radius: float = _RADIUS, margin: float = 0.0) -> tuple[Floats, Floats]:
    """Return the values of images [p, s, s] where maps lead a disc, and 1 where that is inside, [p, m].

    What lies within ``margin`` pixels of an edge is not inside.
    """
    side = images.shape[-1]
    points = disc(side, radius).points
    places = maps.reshape(-1, 3) @ points.T
    places = ((places + 1) * (side / 2) - 0.5).reshape(len(maps), 2, points.shape[0])
    inside = np.clip(places, 0, side - 1.001)
    is_inside = (np.abs(places - (side - 1) / 2) <= (side - 1.001) / 2 - margin).all(axis=1).astype(np.float32)
    corner = inside.astype(np.int32)
    x, y = (inside - corner).transpose(1, 0, 2)
    at = corner[:, 1] * side + corner[:, 0] + (np.arange(len(images), dtype=np.int32) * side**2)[:, None]
    flat = images.ravel()
    upper, lower = flat.take(at), flat.take(at + side)
    upper += x * (flat.take(at + 1) - upper)
    lower += x * (flat.take(at + side + 1) - lower)
    lower -= upper
    lower *= y
    upper += lower
    return upper, is_inside


def _centred(values: Floats, weights: Floats) -> Floats:
    mean = np.einsum("pm,pm->p", values, weights) / (weights.sum(1) + 1e-6)
    centred: Floats = (values - mean[:, None]) * weights
    return centred


def _align(asked: Floats, found: Floats, maps: Floats, steps: int) -> tuple[Floats, Floats]:
    """Return maps [p, 2, 3] that are better by some steps, and the correlation [p] of images [p, s, s] under them."""
    side, pairs = found.shape[-1], len(found)
    pixels, points, products = disc(side).pixels, disc(side).points, disc(side).products
    down, across = (
        each.reshape(pairs, side**2)[:, pixels] for each in np.gradient(found, np.float32(2 / side), axis=(1, 2))
    )
    xx, xy, yy = across**2, across * down, down**2
    still = found.reshape(pairs, side**2)[:, pixels]
    square = np.zeros((pairs, 3, 3), np.float32)
    square[:, :2], square[:, 2, 2] = maps, 1
    for _ in range(steps):
        moved, weights = _sample(asked, square[:, :2])
        wanted, moved = _centred(still, weights), _centred(moved, weights)
        gain = np.einsum("pm,pm->p", wanted, moved) / (np.einsum("pm,pm->p", moved, moved) + 1e-3)
        rest = moved * gain[:, None] - wanted
        normal = np.empty((pairs, 2, 3, 2, 3), np.float32)
        for i, j, product in ((0, 0, xx), (0, 1, xy), (1, 0, xy), (1, 1, yy)):
            normal[:, i, :, j] = ((product * weights) @ products)[:, _SYMMETRIC]
        matrix = normal.reshape(pairs, 6, 6)
        matrix += (1e-3 / 6 * np.trace(matrix, axis1=1, axis2=2) + 1e-6)[:, None, None] * np.eye(6, dtype=np.float32)
        slopes = np.concatenate([(across * rest) @ points, (down * rest) @ points], axis=1)
        step = np.linalg.solve(matrix, slopes[:, :, None]).reshape(pairs, 2, 3)
        change = np.tile(np.eye(3, dtype=np.float32), (pairs, 1, 1))
        change[:, :2] += np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        square = square @ np.linalg.inv(change)
    moved, weights = _sample(asked, square[:, :2])
    wanted, moved = _centred(still, weights), _centred(moved, weights)
    energy = np.einsum("pm,pm->p", wanted, wanted) * np.einsum("pm,pm->p", moved, moved)
    return square[:, :2], np.einsum("pm,pm->p", wanted, moved) / np.sqrt(energy + 1e-3)


def _least_detail(asked: Floats, found: Floats, maps: Floats) -> tuple[Floats, Floats]:
    """Return the share of detail [p] in common, 2ab / (aa + bb), of the part of each picture that has the least.

    Beside it stands on how much of what the two share there is detail [p], in the one that has more.

    Detail is what a Gaussian of two pixels blurs away; near the edges of either picture that would be the edge of a
    border around the other. A tenth of a mean part's is added to each, so that flat parts agree with each other alone.
    """
    first, weights = _sample(_detail(asked), maps, radius=2.0, margin=2 * _BLUR)
    weights *= np.abs(disc(SIDE, 2.0).points[:, :2]).max(axis=1) < 1 - 4 * _BLUR / SIDE
    first *= weights
    second = _detail(found).reshape(len(found), SIDE**2) * weights
    rich = np.maximum(*((np.abs(values) > _FAINT).sum(1) for values in (first, second))) / (weights.sum(1) + 1)
    energies = np.einsum("pm,pm->p", first, first), np.einsum("pm,pm->p", second, second)
    first *= np.sqrt((energies[1] + 1e-6) / (energies[0] + 1e-6))[:, None]
    parts = _parts()
    common, own, other, pixels = (values @ parts for values in (first * second, first**2, second**2, weights))
    floor = 0.1 * pixels * (energies[1] / (weights.sum(1) + 1))[:, None] + 1e-6
    shares = np.where(pixels >= parts.sum(0) / 2, (2 * common + floor) / (own + other + floor), 1.0)
    # Without any detail every picture would be a copy of every other.
    has_detail = np.minimum(*energies) > SIDE**2
    return np.where(has_detail, shares.min(axis=1), 0.0).astype(np.float32), rich.astype(np.float32)


@cache
def _parts() -> Floats:
    """Return which part of the picture each pixel lies in, float32 [4096, parts]."""
    y, x = np.divmod(np.arange(SIDE**2), SIDE)
    part = (y * _PARTS // SIDE) * _PARTS + x * _PARTS // SIDE
    parts: Floats = (part[:, None] == np.arange(_PARTS**2)).astype(np.float32)
    return parts


@cache
def _blurring() -> Floats:
    """Return the matrix [64, 64] that blurs a line of pixels."""
    order = np.arange(SIDE)
    weights = np.exp(-(((order - order[:, None]) / _BLUR) ** 2) / 2)
    blurring: Floats = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return blurring


def _detail(images: Floats) -> Floats:
    blurred: Floats = np.matmul(np.matmul(_blurring(), images), _blurring().T)
    return images - blurred


def _colour_difference(asked: NDArray[np.uint8], found: NDArray[np.uint8], maps: Floats) -> Floats:
    """Return by how many levels [p] the colours of RGB squares differ: red and blue against green, on 16 pixels."""
    here, there = (shrunk(np.moveaxis(images @ _TINTS.T, 3, 0), SIDE // 16) for images in (asked, found))
    red, weights = _sample(here[0], maps)
    moved = np.concatenate([red, _sample(here[1], maps)[0]], axis=1)
    still = np.concatenate(list(there.reshape(2, len(maps), 16**2)[:, :, disc(16).pixels]), axis=1)
    both = np.concatenate([weights, weights], axis=1)
    moved *= both
    still *= both
    return np.minimum(_paler(moved, still), _paler(still, moved))


def _paler(vivid: Floats, pale: Floats) -> Floats:
    """Return the root mean square [p] of what tints [p, m] differ by, the first made as pale as the second."""
    gain = np.einsum("pm,pm->p", vivid, pale) / (np.einsum("pm,pm->p", vivid, vivid) + 1)
    difference: Floats = np.sqrt(((vivid * np.clip(gain, 0.6, 1.0)[:, None] - pale) ** 2).mean(1))
    return difference
