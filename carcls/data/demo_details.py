"""What lies on the demo cars' flanks and top: windows, pillars, seams, handles, mirrors, arches, rails, open cabins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from carcls.data.demo_body import Floats, Surface
from carcls.data.demo_catalogue import Face
from carcls.data.demo_optics import Colour
from carcls.data.demo_render import Kind, Part

_BLACK, _RUBBER, _PLASTIC, _CHROME, _SEAT = (16, 16, 18), (30, 30, 33), (52, 53, 56), (225, 228, 232), (74, 62, 54)
_UP = np.array([0.0, 0.0, 1.0])


def trim(surface: Surface, face: Face) -> Iterator[Part]:
    """Everything on the body but its front, its rear and its wheels."""
    yield from _screens(surface)
    for side in (-1.0, 1.0):
        yield from _side_windows(surface, face, side)
        yield from _panels(surface, face, side)
        yield from _arches(surface, side)
        yield from _mirror(surface, side)
    if surface.body.roof_open:
        yield from _open_cabin(surface)
    if surface.body.bed:
        yield patch(surface, (6.14, 6.9), 0.87, "lit", (36, 36, 39))
    if surface.body.rails:
        yield from _rails(surface)


def patch(surface: Surface, s: tuple[float, float], reach: float, kind: Kind, colour: Colour = (0, 0, 0)) -> Part:
    """A part that lies across the car's middle, from ``s[0]`` to ``s[1]`` and to ``w`` = ``reach`` on both sides."""
    across, along = np.linspace(-reach, reach, 9), np.linspace(s[0], s[1], 5)[1:-1]
    w = np.concatenate([across, np.full(3, reach), across[::-1], np.full(3, -reach)])
    points = surface.points(np.concatenate([np.full(9, s[0]), along, np.full(9, s[1]), along[::-1]]), np.abs(w))
    points[:, 1] *= np.where(w < 0, -1.0, 1.0)
    return Part(points, outward(points), kind, colour)


def outward(points: Floats) -> Floats:
    """The unit normals [..., 3] of polygons [..., n, 3], pointing out of the car."""
    x, y, z = np.moveaxis(points, -1, 0)
    after_x, after_y, after_z = (np.roll(v, -1, axis=-1) for v in (x, y, z))
    normal = np.stack([y * after_z - z * after_y, z * after_x - x * after_z, x * after_y - y * after_x]).sum(axis=-1)
    middle = np.stack([x.mean(axis=-1) * 0.55, y.mean(axis=-1), z.mean(axis=-1) - 0.55])
    inside = (normal * middle).sum(axis=0) < 0
    unit = normal / np.maximum(np.sqrt((normal * normal).sum(axis=0)), 1e-12) * np.where(inside, -1.0, 1.0)
    return np.moveaxis(unit, 0, -1)


def _screens(surface: Surface) -> Iterator[Part]:
    if surface.body.roof_open:
        return
    yield patch(surface, (3.10, 3.90), 0.93, "glass")
    yield patch(surface, (5.12, 5.88), 0.88, "glass")


def _belt(surface: Surface, x: Floats) -> Floats:
    first, last = (surface.x_at(d) for d in surface.body.windows)
    way = np.clip((first - x) / (first - last), 0, 1)
    return surface.body.belt + surface.body.belt_rise * way**2


def _side_windows(surface: Surface, face: Face, side: float) -> Iterator[Part]:
    body, out = surface.body, np.array([0.0, side, 0.0])
    if body.roof_open:
        return
    first, last, end = (surface.x_at(d) for d in (*body.windows, body.window_top_end))
    low_x = np.linspace(first, last, 14)
    high_x = np.linspace(end, first, 24)
    high_z = surface.roof_at(high_x) - 0.105
    above = high_z > _belt(surface, high_x) + 0.02
    x, z = np.concatenate([low_x, high_x[above]]), np.concatenate([_belt(surface, low_x), high_z[above]])
    pane = surface.on_side(x, z, side)
    yield Part(pane, out, "glass")
    for pillar in body.pillars:
        at = surface.x_at(pillar)
        foot, head = np.array([at + 0.045, at - 0.045]), np.array([at - 0.08, at + 0.0])
        corners = np.concatenate([foot, head])
        heights = np.concatenate([_belt(surface, foot), surface.roof_at(head) - 0.10])
        yield Part(surface.on_side(corners, heights, side), out, "lit", _BLACK)
    frame = np.concatenate([pane, pane[:1]])
    yield Part(frame, out, "lit", _CHROME if face.chrome else _RUBBER, 0.026 if face.chrome else 0.02)


def _panels(surface: Surface, face: Face, side: float) -> Iterator[Part]:
    body, out = surface.body, np.array([0.0, side, 0.0])
    sill = body.clearance + 0.09
    for i, seam in enumerate(body.seams):
        z = np.linspace(sill, body.belt + (0.02 if body.roof_open else 0.05), 8)
        lean = surface.x_at(seam) + (0.10 * (z - body.belt) if i == 0 else -0.02 * np.sin(z * 3))
        yield Part(surface.on_side(lean, z, side), out, "lit", (20, 20, 22), 0.012)
    for handle in body.seams[1:]:
        x = surface.x_at(handle) + np.array([0.24, 0.08, 0.08, 0.24])
        z = body.crease + np.array([0.055, 0.06, 0.09, 0.085])
        yield Part(surface.on_side(x, z, side, 0.02), out, "lit", _CHROME if face.chrome else _RUBBER)
    front, rear = surface.axles()
    reach = body.wheel * 1.12
    low = np.array([front - reach, rear + reach])
    yield _band(surface, low, body.clearance - 0.01, body.clearance + (0.15 if body.cladding else 0.07), side, _RUBBER)
    if face.moulding:
        yield _band(surface, low + np.array([-0.03, 0.03]), body.crease - 0.27, body.crease - 0.20, side, _PLASTIC)


def _band(surface: Surface, ends: Floats, low: float, high: float, side: float, colour: Colour) -> Part:
    x = np.linspace(ends[0], ends[1], 8)
    points = np.concatenate(
        [surface.on_side(x, np.full(8, low), side), surface.on_side(x[::-1], np.full(8, high), side)]
    )
    return Part(points, np.array([0.0, side, 0.0]), "lit", colour)


def _arches(surface: Surface, side: float) -> Iterator[Part]:
    body, out = surface.body, np.array([0.0, side, 0.0])
    angle = np.linspace(-0.35, np.pi + 0.35, 24)
    for axle in surface.axles():
        for scale, colour in ((1.36, _PLASTIC),) * body.cladding + ((1.16, _BLACK),):
            x = axle + body.wheel * scale * np.cos(angle)
            z = np.maximum(body.wheel + body.wheel * scale * np.sin(angle), body.clearance - 0.01)
            yield Part(surface.on_side(x, z, side), out, "lit", colour)


def _mirror(surface: Surface, side: float) -> Iterator[Part]:
    at = surface.x_at(surface.body.windows[0] + 0.20)
    z = surface.body.belt + 0.085
    y = float(surface.half_width(np.array(at), np.array(z)))
    angle = np.linspace(0, 2 * np.pi, 13)[:-1]
    round_x, round_y = (
        np.cos(angle) * np.abs(np.cos(angle)) ** -0.4,
        np.sin(angle) * np.abs(np.sin(angle) + 1e-9) ** -0.4,
    )
    shell = np.stack([np.full(12, at), side * (y + 0.09 + 0.095 * round_x), z + 0.062 * round_y], axis=-1)
    flank = np.stack([at + 0.075 * round_x, np.full(12, side * (y + 0.15)), z + 0.058 * round_y], axis=-1)
    yield Part(flank + np.array([0, side * 0.012, -0.018]), np.array([0, side, 0]), "lit", _RUBBER)
    yield Part(flank, np.array([0, side, 0]), "paint")
    yield Part(shell + np.array([0.05, 0, 0]), np.array([1.0, 0, 0]), "paint")
    yield Part(shell - np.array([0.05, 0, 0]), np.array([-1.0, 0, 0]), "lit", (92, 98, 106))


def _rails(surface: Surface) -> Iterator[Part]:
    s = np.linspace(4.08, 4.94, 9)
    for side in (-1.0, 1.0):
        yield Part(surface.points(s, np.full(9, 0.97), side) + _UP * 0.035, _UP, "lit", (96, 98, 102), 0.035)


def _open_cabin(surface: Surface) -> Iterator[Part]:
    """The cabin of a convertible: its well, the seats and the frame of the windscreen."""
    yield patch(surface, (3.35, 5.75), 0.88, "lit", (34, 30, 29))
    for row, height in ((2.55, 0.24), (3.18, 0.20)):
        for y in (-0.36, 0.36):
            yield from _seat(surface.x_at(row), y, surface.body.cowl[1] - 0.04, height)
    body = surface.body
    width = float(surface.half_width(np.array(surface.x_at(body.cowl[0])), np.array(body.cowl[1]))) - 0.10
    foot, head = surface.x_at(body.cowl[0] + 0.1), surface.x_at(body.roof_front - 0.02)
    top = body.height - 0.03
    edge = [
        (foot, -width, body.cowl[1]),
        (head, -width * 0.84, top),
        (head, width * 0.84, top),
        (foot, width, body.cowl[1]),
    ]
    corners = np.array(edge)
    lean = outward(corners)
    for facing in (lean, -lean):
        yield Part(corners, facing, "lit", (150, 166, 176), opacity=120)
        yield Part(np.concatenate([corners, corners[:1]]), facing, "lit", (60, 62, 66), 0.055)


def _seat(x: float, y: float, z: float, height: float) -> Iterator[Part]:
    angle = np.linspace(0, np.pi, 8)
    arch = np.stack([np.full(8, x), y + 0.22 * np.cos(angle), z + height * np.sin(angle) ** 0.5], axis=-1)
    for way, colour in ((1.0, _SEAT), (-1.0, (48, 41, 37))):
        yield Part(arch, np.array([way, 0, 0]), "lit", colour)
    profile = np.array([(x + 0.08, y, z), (x - 0.06, y, z + height), (x - 0.14, y, z + height), (x - 0.08, y, z)])
    for side in (1.0, -1.0):
        yield Part(profile + np.array([0, 0.2 * side, 0]), np.array([0, side, 0]), "lit", (60, 50, 44))
