"""The demo cars' sheet metal: a lofted surface in metres; x is to the front, y to the left, z up from the ground.

The side outline is a rounded polyline walked by ``s`` (front bumper 0, bumper edge 1, bonnet edge 2, windscreen 3,
roof 4, rear window 5, its end 6, tail 7, rear bumper 8, its bottom 9). A second coordinate ``w`` walks across half of
the car: 0 to 1 from the middle to the edge, 1 to 2 around the edge, beyond 2 down the side in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carcls.data.demo_catalogue import Body

Floats = npt.NDArray[np.float64]

_EDGE = 0.075  # radius of the edge between the top and the sides
_CROWN = (0.10, 0.17, 0.12, 0.05, 0.04, 0.035, 0.07, 0.06, 0.13, 0.08)  # bulge at each corner of the outline
_BED_CROWN = (*_CROWN[:6], 0.005, 0.005, *_CROWN[8:])
_RADIUS = (0.05, 0.14, 0.16, 0.14, 0.30, 0.34, 0.16, 0.09, 0.12, 0.05)
_BOW = (0.0, 0.02, 0.035, 0.03, 0.035, 0.03, 0.012, 0.01, 0.01)  # how far each stretch between corners bows out


@dataclass(frozen=True)
class Outline:
    """The side outline, sampled: position, outward normal and bulge for each ``s`` (ascending)."""

    s: Floats
    x: Floats
    z: Floats
    normal_x: Floats
    normal_z: Floats
    crown: Floats


class Surface:
    """A car's body as functions from surface coordinates to points [..., 3].

    Args:
        body: the proportions.
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        self.front = body.length / 2
        self.corners = _corners(body)
        self.outline = _round_corners(self.corners, _BED_CROWN if body.bed else _CROWN)

    def x_at(self, distance: float) -> float:
        """The x of a point ``distance`` metres behind the foremost one."""
        return self.front - distance

    def half_width(self, x: Floats, z: Floats) -> Floats:
        """Half the width of the body at side coordinates x and z, in metres."""
        body = self.body
        ahead = np.clip((x - self.front + 1.25) / 1.25, 0.0, 1.0)
        behind = np.clip((-x - self.front + 1.15) / 1.15, 0.0, 1.0)
        plan = 1 - body.taper[0] * ahead**2.4 - body.taper[1] * behind**2.4
        above = np.clip((z - body.belt) / (body.height - body.belt), 0.0, 1.2)
        below = np.clip((0.55 - z) / 0.35, 0.0, 1.2)
        bulge = 0.022 * np.exp(-(((z - body.crease) / 0.07) ** 2)) - 0.018 * np.exp(
            -(((z - body.crease + 0.2) / 0.12) ** 2)
        )
        return body.width / 2 * plan * (1 - body.tumble * above**1.15 - 0.055 * below**2) + bulge + self._flares(x, z)

    def _flares(self, x: Floats, z: Floats) -> Floats:
        flare = np.zeros(np.broadcast(x, z).shape)
        for axle in self.axles():
            away = np.hypot(x - axle, z - self.body.wheel) / (self.body.wheel * 1.45)
            flare = flare + 0.03 * np.exp(-(away**4))
        return flare

    def axles(self) -> tuple[float, float]:
        """The x of the front and the rear axle."""
        first = self.front - self.body.front_axle
        return first, first - self.body.wheelbase

    def points(self, s: Floats, w: Floats, side: float = 1.0) -> Floats:
        """Points on the body, float64 [..., 3]; ``side`` is 1 for the left half and -1 for the right."""
        line = self.outline
        x, z, nx, nz, crown = (
            np.interp(s, line.s, values) for values in (line.x, line.z, line.normal_x, line.normal_z, line.crown)
        )
        across, turn, down = np.clip(w, 0, 1), np.clip(w - 1, 0, 1) * np.pi / 2, np.clip(w - 2, 0, None)
        depth = _EDGE * (1 - np.cos(turn)) + down - crown * (1 - across**2)
        x, z = x - nx * depth, z - nz * depth
        half = self.half_width(x, z) - _EDGE * (1 - np.sin(turn))
        return np.stack([x, side * across * half, z], axis=-1)

    def on_side(self, x: Floats, z: Floats, side: float, lift: float = 0.004) -> Floats:
        """Points on one flank at side coordinates x and z, float64 [..., 3]."""
        return np.stack([x, side * (self.half_width(x, z) + lift), z], axis=-1)

    def s_at_height(self, z: Floats, *, front: bool) -> Floats:
        """The outline's ``s`` at height z on the nose (``front``) or on the tail."""
        line = self.outline
        inside = line.s <= 2.2 if front else line.s >= 5.0
        order = np.argsort(line.z[inside], kind="stable")
        return np.interp(z, line.z[inside][order], line.s[inside][order])

    def roof_at(self, x: Floats) -> Floats:
        """Height of the outline's upper chain at x."""
        line = self.outline
        upper = slice(int(np.argmax(line.x)), int(np.argmin(line.x)) + 1)
        return np.interp(x, line.x[upper][::-1], line.z[upper][::-1])

    def quads(self) -> Floats:
        """The whole surface as quadrilaterals, float64 [n, 4, 3]."""
        s = _stations(self.outline.s)
        across = self.points(*np.meshgrid(s, np.array([0, 0.4, 0.75, 1, 1.35, 1.7, 2.0]), indexing="ij"))
        half = np.concatenate([_cells(across), _cells(self._flank())])
        return np.concatenate([half, half * np.array([1.0, -1.0, 1.0])])

    def _flank(self) -> Floats:
        line = self.outline
        inner_x, inner_z = line.x - line.normal_x * _EDGE, line.z - line.normal_z * _EDGE
        first, last = int(np.argmax(inner_x)), int(np.argmin(inner_x))
        middle, half = (inner_x[first] + inner_x[last]) / 2, (inner_x[first] - inner_x[last]) / 2
        x = middle + half * np.cos(np.linspace(0, np.pi, 30))
        top = np.interp(x, inner_x[first : last + 1][::-1], inner_z[first : last + 1][::-1])
        low_x = np.concatenate([line.x[last:], line.x[: first + 1]])
        low_z = np.concatenate([line.z[last:], line.z[: first + 1]])
        bottom = np.minimum(np.interp(x, low_x, low_z), top)
        rise = np.linspace(0, 1, 9)[None, :]
        z = bottom[:, None] + (top - bottom)[:, None] * rise
        return self.on_side(np.broadcast_to(x[:, None], z.shape), z, 1.0, lift=0.0)


def _corners(body: Body) -> Floats:
    """The outline's ten corners, float64 [10, 2] of x and z."""
    half, low = body.length / 2, body.clearance
    open_top = body.cowl[1] + 0.01
    top_front, top_rear = (open_top, open_top) if body.roof_open else (body.height, body.height - body.roof_drop)
    return np.array(
        [
            (half - 0.14, low),
            (half, body.bumper),
            (half - body.nose[0], body.nose[1]),
            (half - body.cowl[0], body.cowl[1]),
            (half - body.roof_front, top_front),
            (half - body.roof_rear, top_rear),
            (half - body.glass_end[0], body.glass_end[1]),
            (-half + body.tail[0], body.tail[1]),
            (-half, body.bumper + 0.08),
            (-half + 0.14, low + 0.04),
        ]
    )


def _round_corners(corners: Floats, crowns: tuple[float, ...]) -> Outline:
    """Replace each corner by a short curve and bow the stretches between them."""
    lengths = np.hypot(*np.diff(corners, axis=0).T)
    s_parts, xz_parts = [], []
    for i in range(len(corners)):
        before = min(_RADIUS[i] / lengths[i - 1], 0.42) if i else 0.0
        after = min(_RADIUS[i] / lengths[i], 0.42) if i < len(lengths) else 0.0
        at = np.linspace(0, 1, 6)[:, None]
        start, end = _along(corners, i - before), _along(corners, i + after)
        middle = corners[i]
        xz_parts.append(start * (1 - at) ** 2 + middle * 2 * at * (1 - at) + end * at**2)
        s_parts.append(np.linspace(i - before, i + after, 6) if before + after else np.full(6, float(i)))
        if i < len(lengths):
            nxt = min(_RADIUS[i + 1] / lengths[i], 0.42)
            inner = np.linspace(i + after, i + 1 - nxt, 6)[1:-1]
            way = (inner - inner[0]) / max(inner[-1] - inner[0], 1e-9)
            stretch = corners[i + 1] - corners[i]
            outward = np.array([-stretch[1], stretch[0]]) / lengths[i] * -1
            bow = (_BOW[i] * 4 * (0.12 + 0.76 * way) * (0.88 - 0.76 * way))[:, None]
            xz_parts.append(np.array([_along(corners, float(v)) for v in inner]) + outward * bow)
            s_parts.append(inner)
    s, xz = np.concatenate(s_parts), np.concatenate(xz_parts)
    keep = np.concatenate([[True], np.hypot(*np.diff(xz, axis=0).T) > 1e-6])
    s, xz = s[keep], xz[keep]
    slope = np.gradient(xz, axis=0)
    slope /= np.hypot(slope[:, 0], slope[:, 1])[:, None]
    crown = np.interp(s, np.arange(len(crowns)), crowns)
    # Walking from the nose over the roof to the tail, the outside is to the right of the direction of travel.
    return Outline(s, xz[:, 0], xz[:, 1], slope[:, 1], -slope[:, 0], crown)


def _along(corners: Floats, s: float) -> Floats:
    i = min(max(int(np.floor(s)), 0), len(corners) - 2)
    point: Floats = corners[i] + (corners[i + 1] - corners[i]) * (s - i)
    return point


def _stations(s: Floats) -> Floats:
    """Every second sample of the outline, both ends included."""
    return np.unique(np.concatenate([s[::2], s[-1:]]))


def _cells(grid: Floats) -> Floats:
    """The cells of a grid of points [a, b, 3] as quadrilaterals [n, 4, 3]."""
    cells = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=2)
    return cells.reshape(-1, 4, 3)
