"""Draws one demo car: projects its quadrilaterals and parts, shades paint and glass per pixel, returns an RGBA layer.

The body is drawn as an image of quadrilateral numbers (far ones first), from which every pixel gets a
normal and a position; lights, seams and wheels are flat polygons on top of it. All edges are drawn too large and
reduced.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from carcls.data.demo_body import Floats
from carcls.data.demo_optics import Camera, Colour, Light, Paint, Singles, towards

Kind = Literal["glass", "lit", "paint", "glow", "under"]
OVERSAMPLING = 3
_HIDDEN_BY = 0.3  # metres by which a part may lie behind the body and still be drawn


@dataclass(frozen=True)
class Part:
    """A polygon or a line on the car.

    ``points`` is float64 [n, 3] in metres, ``outward`` [3] the direction it faces. A ``glass`` part is see-through to
    the reflections; ``lit`` ones are shaded; ``paint`` ones take the car's colour; ``glow`` ones are drawn as they
    are; of ``under`` ones only the dark outline is seen, beneath the body. A ``width`` in metres makes it a line.
    """

    points: Floats
    outward: Floats
    kind: Kind
    colour: Colour = (0, 0, 0)
    width: float = 0.0
    opacity: int = 255


class Parts:
    """Parts in the order of drawing, with their points in one array.

    Args:
        parts: at least one.
    """

    def __init__(self, parts: Iterable[Part]) -> None:
        self.items = tuple(parts)
        self.points = np.concatenate([part.points for part in self.items])
        counts = np.array([len(part.points) for part in self.items])
        self.ends = np.cumsum(counts)
        self.starts = self.ends - counts
        self.outward = np.array([part.outward for part in self.items], dtype=np.float64)
        self.centres = self.mean(self.points)

    def mean(self, values: Floats) -> Floats:
        """The mean over each part's points of values [points, k]: [parts, k]."""
        means: Floats = np.add.reduceat(values, self.starts) / (self.ends - self.starts)[:, None]
        return means


class Mesh:
    """A body's quadrilaterals with their normals.

    Args:
        quads: corners, float64 [n, 4, 3].
    """

    def __init__(self, quads: Floats) -> None:
        self.quads = quads
        self.centres = quads.mean(axis=1)
        self.normals = _normals(quads)


@dataclass(frozen=True)
class Layer:
    """An RGBA picture whose corner lies at ``left``, ``top``."""

    picture: Image.Image
    left: int
    top: int


def render_car(mesh: Mesh, parts: Parts, camera: Camera, paint: Paint, light: Light, size: tuple[int, int]) -> Layer:
    """Draw a car.

    Args:
        mesh: its body.
        parts: what lies on it, in the order of drawing.
        camera: where it is seen from.
        paint: its colour.
        light: what shines on it and is mirrored in it.
        size: width and height of the image in pixels; the layer is cut to it.
    """
    facing = _facing(mesh.centres, mesh.normals, camera)
    flat, depth = camera.project(mesh.quads[facing])
    left, top, right, bottom = _frame(np.concatenate([flat.reshape(-1, 2), camera.project(parts.points)[0]]), size)
    corner = np.array([left, top], dtype=np.float64)
    quad_depth = depth.mean(axis=1)
    numbers, body = _draw_body(flat - corner, quad_depth, max(right - left, 1), max(bottom - top, 1))
    depths = np.concatenate([[np.inf], quad_depth])[numbers]
    under, glass, over = _draw_parts(parts, camera, corner, depths, paint, light)
    row, column = np.nonzero(numbers)
    normals = _smoothed(mesh.normals[facing].astype(np.float32), numbers)[row, column]
    ray = camera.rays(column + (left + 0.5), row + (top + 0.5)).astype(np.float32)
    reach = depths[row, column].astype(np.float32)
    above = np.float32(camera.position[2]) + ray[:, 2] * reach
    shaded = np.zeros((*numbers.shape, 4), np.uint8)
    seen_glass = np.asarray(glass)[row, column].astype(np.float32) / np.float32(255)
    shaded[row, column, :3] = _shade(normals, ray, above, seen_glass, paint, light) * np.float32(255)
    shaded[..., 3] = np.asarray(body)
    picture = Image.new("RGBA", body.size, (20, 20, 22, 0))
    picture.putalpha(under)
    for layer in (Image.fromarray(shaded), over):
        picture = Image.alpha_composite(picture, layer)
    return Layer(picture, left, top)


def _normals(quads: Floats) -> Floats:
    """Unit normals [n, 3] that point out of the car."""
    normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normals /= np.maximum(np.linalg.norm(normals, axis=1), 1e-12)[:, None]
    outside = np.einsum("nk,nk->n", normals, quads.mean(axis=1) * np.array([0.55, 1.0, 1.0]) - np.array([0, 0, 0.55]))
    return normals * np.where(outside < 0, -1.0, 1.0)[:, None]


def _facing(centres: Floats, outward: Floats, camera: Camera) -> npt.NDArray[np.bool_]:
    facing: npt.NDArray[np.bool_] = np.einsum("nk,nk->n", camera.position - centres, outward) > 0
    return facing


def _frame(points: Floats, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels that the car can touch, cut to the image: left, top, right, bottom."""
    low, high = np.floor(points.min(axis=0)) - 2, np.ceil(points.max(axis=0)) + 2
    left, top = (int(np.clip(v, 0, limit)) for v, limit in zip(low, size, strict=True))
    right, bottom = (int(np.clip(v, 0, limit)) for v, limit in zip(high, size, strict=True))
    return left, top, right, bottom


def _draw_body(flat: Floats, depth: Floats, width: int, height: int) -> tuple[npt.NDArray[np.int32], Image.Image]:
    """The quadrilateral seen at each pixel (from 1; 0 where there is none), and how much of the pixel is body."""
    image = Image.new("I", (width * 2, height * 2))
    draw = ImageDraw.Draw(image)
    corners = (flat.reshape(len(flat), -1) * 2).tolist()
    for i in np.argsort(-depth, kind="stable").tolist():
        draw.polygon(corners[i], fill=i + 1)
    fine = np.asarray(image)
    cover = Image.fromarray((fine > 0).view(np.uint8) * np.uint8(255)).reduce(2)
    # Of each pixel's four samples the largest is taken, so that every pixel with some cover has a number.
    numbers = np.maximum(np.maximum(fine[::2, ::2], fine[1::2, ::2]), np.maximum(fine[::2, 1::2], fine[1::2, 1::2]))
    return numbers.astype(np.int32), cover


def _draw_parts(
    parts: Parts, camera: Camera, corner: Floats, depths: Floats, paint: Paint, light: Light
) -> tuple[Image.Image, Image.Image, Image.Image]:
    """How much of each pixel lies beneath the body, how much is glass, and what lies on top."""
    height, width = depths.shape
    size = (width * OVERSAMPLING, height * OVERSAMPLING)
    under, glass, over = Image.new("L", size), Image.new("L", size), Image.new("RGBA", size)
    draws = {"under": ImageDraw.Draw(under), "glass": ImageDraw.Draw(glass)}
    on_top = ImageDraw.Draw(over)
    flat, depth = camera.project(parts.points)
    middle, far = parts.mean(flat) - corner, parts.mean(depth[:, None])[:, 0]
    tints = np.sqrt(light.falling_on(parts.outward.astype(np.float32)))
    flat = (flat - corner) * OVERSAMPLING
    for i in np.nonzero(_facing(parts.centres, parts.outward, camera) & _not_hidden(middle, far, depths))[0]:
        part, points = parts.items[i], flat[parts.starts[i] : parts.ends[i]].ravel().tolist()
        draw = draws.get(part.kind, on_top)
        fill = 255 if part.kind in draws else _tinted(part, paint, tints[i])
        if part.width:
            draw.line(points, fill=fill, width=max(1, round(part.width * camera.focal / far[i] * OVERSAMPLING)))
        else:
            draw.polygon(points, fill=fill)
    return under.reduce(OVERSAMPLING), glass.reduce(OVERSAMPLING), over.reduce(OVERSAMPLING)


def _tinted(part: Part, paint: Paint, tint: Singles) -> tuple[int, int, int, int]:
    """A part's colour in the light that falls on it."""
    base = paint.colour if part.kind == "paint" else part.colour
    red, green, blue = base if part.kind == "glow" else (c * float(t) for c, t in zip(base, tint, strict=True))
    return min(int(red), 255), min(int(green), 255), min(int(blue), 255), part.opacity


def _not_hidden(middle: Floats, far: Floats, depths: Floats) -> npt.NDArray[np.bool_]:
    height, width = depths.shape
    column = np.clip(middle[:, 0].astype(np.int64), 0, width - 1)
    row = np.clip(middle[:, 1].astype(np.int64), 0, height - 1)
    return far < depths[row, column] + _HIDDEN_BY


def _shade(normal: Singles, ray: Singles, height: Singles, glass: Singles, paint: Paint, light: Light) -> Singles:
    """Display colours [n, 3] of the body's pixels, from diffuse light, sheen and reflections; ``height`` in metres."""
    view = -ray / np.sqrt(np.einsum("nk,nk->n", ray, ray))[:, None]
    along = np.clip(np.einsum("nk,nk->n", normal, view), 0.02, 1)[:, None]
    mirrored = 2 * along * normal - view
    around = light.around(mirrored)
    glow = np.clip(towards(mirrored, light.sun), 0, 1)[:, None] ** 2
    wide = glow * glow * glow
    wide *= wide
    narrow = wide * wide * wide
    narrow *= narrow
    glint = (narrow * np.float32(2.2) + wide * np.float32(0.22)) * light.sun_colour
    off_ground = np.clip((height - 0.08) / 0.55, 0.25, 1)[:, None].astype(np.float32)
    base = ((np.array(paint.colour) / 255) ** 2).astype(np.float32)
    metallic = np.float32(paint.metallic)
    sheen = (1 - metallic * np.float32(0.55) + metallic * np.float32(0.75) * along) * (
        np.float32(0.4) + np.float32(0.6) * off_ground
    )
    grazing = 1 - along
    steep = grazing * grazing
    varnish = (np.float32(0.06) + np.float32(0.05) * metallic + np.float32(0.75) * steep * steep) * off_ground
    body = light.falling_on(normal) * sheen * base + around * varnish + glint * np.float32(0.5)
    window = light.ground * np.float32(0.03) + around * (np.float32(0.12) + np.float32(0.8) * steep * grazing) + glint
    mixed = body + (window - body) * glass[:, None]
    display: Singles = np.sqrt(np.clip(mixed, 0, 1))
    return display


def _smoothed(normals: Singles, numbers: npt.NDArray[np.int32]) -> Singles:
    """The unit normal [h, w, 3] of each pixel, averaged over those nearby so that the quadrilaterals do not show."""
    coded = np.full((len(normals) + 1, 3), 127, np.uint8)  # eight bits suffice: the grain is coarser
    coded[1:] = np.rint(normals * 127 + 127)
    reach = max(1.0, numbers.shape[1] / 130)
    soft = Image.fromarray(coded[numbers]).filter(ImageFilter.BoxBlur(reach)).filter(ImageFilter.BoxBlur(reach))
    stacked = np.asarray(soft, dtype=np.float32) - np.float32(127)
    length = np.sqrt(np.einsum("hwk,hwk->hw", stacked, stacked))
    unit: Singles = stacked / np.maximum(length, 1e-6)[..., None]
    return unit
