"""The demo cars' faces: lights, grilles, intakes and plates on the nose and the tail.

Shapes are given in a band at either end: across by ``w`` (see `demo_body`; it runs on around the corner), up by a share
of the band's height, which may pass 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from carcls.data.demo_body import Floats, Surface
from carcls.data.demo_catalogue import Face
from carcls.data.demo_details import outward
from carcls.data.demo_optics import Colour
from carcls.data.demo_render import Kind, Part

_BLACK, _DARK, _CHROME, _PLATE = (14, 14, 16), (40, 41, 44), (222, 225, 230), (232, 232, 226)
_RED, _AMBER, _WHITE = (206, 24, 30), (236, 130, 30), (226, 228, 230)
_Edge = Callable[[Floats], Floats]  # share of the way across, 0 to 1 -> share of the band's height


@dataclass(frozen=True)
class _Lobe:
    """One area of a light, from ``start`` to ``end`` in ``w``, between a lower and an upper edge."""

    start: float
    end: float
    low: _Edge
    high: _Edge


def _straight(at_start: float, at_end: float) -> _Edge:
    return lambda a: at_start + (at_end - at_start) * a


def _block(start: float, end: float, low: float, high: float) -> _Lobe:
    return _Lobe(start, end, _straight(low, low), _straight(high, high))


def _round(start: float, end: float, middle: float, half: float) -> _Lobe:
    def bow(a: Floats) -> Floats:
        return half * np.sqrt(np.clip(1 - (2 * a - 1) ** 2, 0, 1))

    return _Lobe(start, end, lambda a: middle - bow(a), lambda a: middle + bow(a))


def _tear(a: Floats) -> Floats:
    return 0.40 * np.sin(np.pi * (0.32 + 0.68 * a))


_HEADLIGHTS: dict[str, tuple[_Lobe, ...]] = {
    "block": (_block(0.50, 2.10, 0.10, 0.88),),
    "swept": (_Lobe(0.46, 2.46, _straight(0.10, 0.62), _straight(0.62, 0.98)),),
    "slim": (_Lobe(0.44, 2.40, _straight(0.62, 0.72), _straight(0.84, 0.97)),),
    "teardrop": (_Lobe(0.56, 2.32, lambda a: 0.42 + 0.42 * a - _tear(a), lambda a: 0.46 + 0.42 * a + _tear(a)),),
    "oval": (_round(0.55, 2.02, 0.48, 0.50),),
    "twin": (_round(0.42, 0.68, 0.50, 0.38), _round(0.70, 1.85, 0.52, 0.46)),
    "hook": (_block(0.48, 2.10, 0.52, 0.92), _block(0.90, 2.08, -0.16, 0.52)),
}
_TAILLIGHTS: dict[str, tuple[_Lobe, ...]] = {
    "vertical": (_block(0.82, 1.95, -0.30, 1.05),),
    "swept": (_Lobe(0.50, 2.36, _straight(0.10, 0.44), _straight(0.66, 0.98)),),
    "round": (_round(0.42, 0.66, 0.50, 0.42), _round(0.69, 0.95, 0.50, 0.42)),
    "bar": (_block(0.0, 2.26, 0.52, 0.80),),
    "clasp": (_block(0.55, 2.10, 0.72, 0.96), _block(0.60, 2.06, -0.06, 0.18), _block(1.30, 2.12, 0.0, 0.96)),
    "corner": (_Lobe(0.60, 2.18, _straight(0.50, 0.10), _straight(0.92, 0.92)),),
    "hockey": (_block(1.0, 2.04, -0.10, 1.18), _block(0.48, 1.6, -0.10, 0.22)),
}


class _Band:
    """The part of one end between two heights, with points by ``w`` (negative on the right) and share of its height."""

    def __init__(self, surface: Surface, low: float, high: float, *, front: bool) -> None:
        self.surface, self.low, self.high, self.front = surface, low, high, front

    def points(self, w: Floats, share: Floats) -> Floats:
        z = self.low + (self.high - self.low) * share
        points = self.surface.points(self.surface.s_at_height(z, front=self.front), np.minimum(np.abs(w), 2.0))
        back, around = (1.0 if self.front else -1.0), np.maximum(np.abs(w) - 2.0, 0.0)
        points[..., 0] += back * (0.006 - around)
        flank = self.surface.half_width(points[..., 0], points[..., 2])
        points[..., 1] = np.where(around > 0, flank, points[..., 1]) * np.where(w < 0, -1.004, 1.004)
        return points

    def polygon(self, w: Floats, share: Floats, colour: Colour, kind: Kind = "lit", width: float = 0.0) -> Part:
        points = self.points(w, share)
        return Part(points, np.array([1.0 if self.front else -1.0, 0, 0]), kind, colour, width)

    def strip(self, reach: float, low: float, high: float, colour: Colour) -> Part:
        """A band across the middle."""
        across = np.linspace(-reach, reach, 9)
        w, share = np.concatenate([across, across[::-1]]), np.repeat([low, high], 9)
        return self.polygon(w, share, colour)

    def lobe(self, lobe: _Lobe, side: float, colour: Colour, kind: Kind, shrink: float = 0.0) -> Iterator[Part]:
        """A light's area, in pieces that each face their own way because it runs around the corner."""
        a = np.linspace(shrink * 0.5, 1 - shrink * 0.5, 9)
        w = (lobe.start + (lobe.end - lobe.start) * a) * side
        low, high = lobe.low(a), lobe.high(a)
        margin = (high - low) * shrink * 0.5
        below, above = self.points(np.stack([w, w]), np.stack([low + margin, high - margin]))
        pieces = np.stack([below[:-1], below[1:], above[1:], above[:-1]], axis=1)
        for piece, facing in zip(pieces, outward(pieces), strict=True):
            yield Part(piece, facing, kind, colour)


def nose(surface: Surface, face: Face, *, lamps_on: bool) -> Iterator[Part]:
    """Headlights, grille, intake, plate and badge."""
    body = surface.body
    height = body.nose[1] - body.bumper
    lower = _Band(surface, body.clearance + 0.04, body.bumper, front=True)
    band = _Band(surface, body.nose[1] - max(0.92 * height, 0.27), body.nose[1] - 0.01, front=True)
    yield from _intake(lower, face.intake)
    yield from _grille(band, face.grille, face)
    for side in (-1.0, 1.0):
        for lobe in _HEADLIGHTS[face.headlight]:
            yield from band.lobe(lobe, side, _DARK, "lit", -0.10)
            yield from band.lobe(lobe, side, (176, 188, 200), "lit", 0.06)
            yield from band.lobe(
                lobe, side, (255, 250, 226) if lamps_on else (246, 250, 253), "glow" if lamps_on else "lit", 0.52
            )
    yield lower.strip(0.30, 0.72, 1.06, _DARK)
    yield lower.strip(0.285, 0.76, 1.02, _PLATE)
    yield _hood_line(surface, -1.0)
    yield _hood_line(surface, 1.0)


def _hood_line(surface: Surface, side: float) -> Part:
    s = np.linspace(2.12, 2.94, 8)
    return Part(
        surface.points(s, np.linspace(0.80, 0.92, 8), side), np.array([0.0, 0.0, 1.0]), "lit", (24, 24, 26), 0.012
    )


def _intake(lower: _Band, style: str) -> Iterator[Part]:
    if style == "bar":
        yield lower.strip(1.0, 0.0, 0.42, _BLACK)
        yield lower.strip(1.55, 0.50, 0.98, (188, 191, 196))
        return
    if style == "pods":
        yield lower.strip(0.44, 0.10, 0.66, _BLACK)
        for side in (-1.0, 1.0):
            yield from lower.lobe(_block(0.58, 0.95, 0.14, 0.66), side, _BLACK, "lit")
            yield from lower.lobe(_round(0.69, 0.85, 0.40, 0.20), side, _WHITE, "lit")
        return
    w = np.array([-0.80, -0.4, 0, 0.4, 0.80, 0.68, 0.35, 0, -0.35, -0.68])
    yield lower.polygon(w, np.repeat([0.10, 0.58], 5), _BLACK)


def _grille(band: _Band, style: str, face: Face) -> Iterator[Part]:
    edge = _CHROME if face.chrome else (150, 153, 158)
    turn = np.linspace(0, 2 * np.pi, 25)
    if style == "split":
        for side in (-1.0, 1.0):
            w, share = side * (0.22 + 0.18 * np.cos(turn)), 0.42 + 0.42 * np.sin(turn)
            yield band.polygon(w, share, _BLACK)
            yield from (
                band.polygon(side * np.array([v, v]), np.array([0.12, 0.72]), (120, 122, 126), width=0.012)
                for v in (0.15, 0.22, 0.29)
            )
            yield band.polygon(w, share, edge, width=0.03)
    elif style == "oval":
        w, share = 0.44 * np.cos(turn), 0.42 + 0.44 * np.sin(turn)
        yield band.polygon(w, share, _BLACK)
        yield band.polygon(np.array([-0.43, 0, 0.43]), np.full(3, 0.42), edge, width=0.035)
        yield band.polygon(w, share, edge, width=0.025)
    elif style == "smile":
        w = np.concatenate([np.linspace(-0.46, 0.46, 9), np.linspace(0.40, -0.40, 9)])
        bow = 0.22 * np.abs(w / 0.46) ** 2
        yield band.polygon(w, np.repeat([0.62, 0.40], 9) + bow, _BLACK)
        yield band.polygon(w[:9], 0.64 + bow[:9], edge, width=0.03)
        yield band.strip(0.62, -0.42, -0.02, _BLACK)
    elif style == "none":
        yield band.strip(0.44, 0.74, 0.84, _BLACK)
        yield band.strip(0.50, -0.40, 0.10, _BLACK)
    else:
        yield from _upright_grille(band, style, edge)
    yield band.polygon(0.055 * np.cos(turn), 0.84 + 0.11 * np.sin(turn), (228, 230, 234))


def _upright_grille(band: _Band, style: str, edge: Colour) -> Iterator[Part]:
    reach = {"bars": 0.48, "slats": 0.36, "mesh": 0.42, "frame": 0.38}[style]
    low = -0.10 if style in ("slats", "frame") else 0.08
    yield band.strip(reach, low, 0.84, _BLACK)
    if style == "bars":
        yield from (band.strip(reach, v, v + 0.09, edge) for v in (0.16, 0.38, 0.60))
    elif style == "slats":
        yield from (
            band.polygon(np.array([v, v]), np.array([low, 0.8]), edge, width=0.022) for v in np.linspace(-0.31, 0.31, 8)
        )
    elif style == "mesh":
        for v in np.linspace(-reach, reach - 0.16, 7):
            yield band.polygon(np.array([v, v + 0.16]), np.array([low, 0.84]), (128, 130, 135), width=0.012)
            yield band.polygon(np.array([v + 0.16, v]), np.array([low, 0.84]), (128, 130, 135), width=0.012)
    else:
        yield band.polygon(np.array([-reach, 0, reach]), np.array([low, 0.37, 0.84]), edge, width=0.04)
    corners = np.array([-reach, 0, reach, reach, 0, -reach, -reach])
    heights = np.array([low, low, low, 0.84, 0.84, 0.84, low])
    yield band.polygon(corners, heights, edge, width=0.045 if style == "frame" else 0.022)


def tail(surface: Surface, face: Face, *, lamps_on: bool) -> Iterator[Part]:
    """Tail-lights, plate, badge, lid seam, lower edge and exhaust."""
    body = surface.body
    upright = body.glass_end[0] > body.length - 0.36  # the rear window ends at the tail: lights climb higher
    top = body.tail[1] + (0.10 if upright else -0.03)
    band = _Band(surface, top - (0.40 if upright else 0.33), top, front=False)
    lower = _Band(surface, body.clearance + 0.06, body.bumper + 0.04, front=False)
    yield lower.strip(0.86, 0.0, 0.34, _BLACK)
    yield lower.polygon(np.linspace(-1.9, 1.9, 13), np.full(13, 1.08), (22, 22, 24), width=0.012)
    if face.intake == "bar":
        yield lower.strip(1.6, 0.46, 0.92, (188, 191, 196))
    yield from _plate(band, lower, upright=upright)
    for side in (-1.0, 1.0):
        for i, lobe in enumerate(_TAILLIGHTS[face.taillight]):
            yield from band.lobe(lobe, side, (66, 8, 12), "lit", -0.08)
            yield from band.lobe(lobe, side, (236, 34, 34) if lamps_on else _RED, "glow" if lamps_on else "lit", 0.08)
            if i == 0:
                yield from band.lobe(
                    _inner(lobe), side, _AMBER if face.taillight in ("round", "vertical") else _WHITE, "lit", 0.1
                )
            else:
                yield from band.lobe(lobe, side, (240, 84, 72), "lit", 0.62)
        exhaust = np.linspace(0, 2 * np.pi, 11)
        yield lower.polygon(side * (0.62 + 0.05 * np.cos(exhaust)), 0.12 + 0.12 * np.sin(exhaust), (150, 150, 154))


def _inner(lobe: _Lobe) -> _Lobe:
    """The part of a tail-light that is not red: a piece of its middle."""

    def edge(share: float) -> _Edge:
        return lambda a: lobe.low(0.2 + 0.3 * a) + (lobe.high(0.2 + 0.3 * a) - lobe.low(0.2 + 0.3 * a)) * share

    width = lobe.end - lobe.start
    return _Lobe(lobe.start + 0.2 * width, lobe.start + 0.5 * width, edge(0.34), edge(0.72))


def _plate(band: _Band, lower: _Band, *, upright: bool) -> Iterator[Part]:
    turn = np.linspace(0, 2 * np.pi, 13)
    yield band.strip(0.34, -0.62, -0.16, _DARK)
    yield band.strip(0.28, -0.56, -0.22, _PLATE)
    yield band.polygon(0.06 * np.cos(turn), 0.42 + 0.14 * np.sin(turn), (228, 230, 234))
    seam = np.array([-0.97, -0.97, -0.9, 0.9, 0.97, 0.97])
    share = np.array([1.0, -0.1, -0.8, -0.8, -0.1, 1.0]) + (0.2 if upright else 0.0)
    yield band.polygon(seam, share, (22, 22, 24), width=0.011)
    yield lower.strip(0.7, 0.36, 0.44, _DARK)
