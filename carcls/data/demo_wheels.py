"""The demo cars' wheels: tyres, rims and spokes as polygons in the plane of the wheel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from carcls.data.demo_body import Floats, Surface
from carcls.data.demo_optics import Colour
from carcls.data.demo_render import Part

_TYRE, _INSIDE, _ALLOY, _SHADE = (26, 26, 28), (38, 38, 42), (205, 208, 213), (120, 123, 128)
_RIM = 0.76  # radius of the rim as a share of the tyre's

# Each blade of a rim: (angle in turns, radius as a share of the rim's) corners of one spoke.
_Blade = tuple[tuple[float, float], ...]


def _straight(inner: float, outer: float) -> _Blade:
    return ((-inner, 0.12), (inner, 0.12), (outer, 0.97), (-outer, 0.97))


_SPOKES: dict[str, tuple[int, tuple[_Blade, ...]]] = {
    "five": (5, (_straight(0.12, 0.042),)),
    "six": (6, (_straight(0.085, 0.058),)),
    "seven": (7, (_straight(0.045, 0.020),)),
    "ten": (10, (_straight(0.030, 0.014),)),
    "twin": (5, (
        ((-0.06, 0.1), (-0.02, 0.1), (-0.027, 0.97), (-0.052, 0.97)),
        ((0.02, 0.1), (0.06, 0.1), (0.052, 0.97), (0.027, 0.97)),
    )),
    "star": (5, ((
        (-0.05, 0.1), (0.05, 0.1), (0.02, 0.5), (0.075, 0.97), (0.04, 0.97), (0, 0.6),
        (-0.04, 0.97), (-0.075, 0.97), (-0.02, 0.5),
    ),)),
    "turbine": (9, (((-0.03, 0.15), (0.03, 0.15), (0.075, 0.6), (0.085, 0.97), (0.035, 0.97), (0.02, 0.6)),)),
}  # fmt: skip


@dataclass(frozen=True)
class _Wheel:
    """Where a wheel is: its axle's x, its outer plane's y, its tyre's radius, and 1 on the left or -1 on the right."""

    axle: float
    y: float
    radius: float
    side: float


def _places(surface: Surface) -> list[_Wheel]:
    radius = surface.body.wheel
    reach = [float(surface.half_width(np.array(axle), np.array(radius + 0.05))) - 0.012 for axle in surface.axles()]
    return [
        _Wheel(axle, side * y, radius, side)
        for axle, y in zip(surface.axles(), reach, strict=True)
        for side in (-1.0, 1.0)
    ]


def treads(surface: Surface) -> Iterator[Part]:
    """The running surfaces of the four tyres, drawn beneath the body."""
    ring = np.linspace(0, 2 * np.pi, 20)
    for wheel in _places(surface):
        outer = _plane(wheel, ring, np.full(20, 1.0))
        inner = outer - np.array([0, wheel.side * 0.22, 0])
        for i in range(len(ring) - 1):
            band = np.stack([outer[i], outer[i + 1], inner[i + 1], inner[i]])
            yield Part(band, _away(band, wheel), "under")
        yield Part(inner, np.array([0, -wheel.side, 0]), "under")
        yield Part(outer, np.array([0, wheel.side, 0]), "under")


def wheels(surface: Surface, style: str, turn: float) -> Iterator[Part]:
    """The visible faces of the four wheels, turned by ``turn`` of a full turn."""
    for wheel in _places(surface):
        yield from _face(wheel, style, turn)


def _face(wheel: _Wheel, style: str, turn: float) -> Iterator[Part]:
    out = np.array([0.0, wheel.side, 0.0])

    def disc(radius: float, colour: Colour, width: float = 0.0) -> Part:
        ring = np.linspace(0, 2 * np.pi, 33)
        return Part(_plane(wheel, ring, np.full(33, radius)), out, "lit", colour, width)

    yield disc(0.985, _TYRE)
    yield disc(0.89, (44, 44, 47), 0.012)
    if style == "disc":
        yield disc(_RIM, _ALLOY)
        yield disc(_RIM * 0.93, _SHADE, 0.012)
        for hole in range(10):
            angle, apart = (hole / 10 + turn) * 2 * np.pi, 0.045 * 2 * np.pi
            corners = angle + np.array([-apart, apart, apart * 0.8, -apart * 0.8])
            yield Part(_plane(wheel, corners, np.array([0.80, 0.80, 0.60, 0.60]) * _RIM), out, "lit", _INSIDE)
        yield disc(_RIM * 0.24, _SHADE)
        return
    yield disc(_RIM, _INSIDE)
    yield disc(_RIM * 0.62, (88, 88, 92))
    yield disc(_RIM * 0.60, _INSIDE, 0.02)
    count, blades = _SPOKES[style]
    for spoke in range(count):
        for blade in blades:
            angles = (np.array([corner[0] for corner in blade]) * wheel.side + spoke / count + turn) * 2 * np.pi
            radii = np.array([corner[1] for corner in blade]) * _RIM
            yield Part(_plane(wheel, angles, radii), out, "lit", _ALLOY)
    yield disc(_RIM * 0.96, _ALLOY, 0.028)
    yield disc(_RIM * 0.19, _ALLOY)
    yield disc(_RIM * 0.10, _SHADE)


def _plane(wheel: _Wheel, angles: Floats, radii: Floats) -> Floats:
    """Points [n, 3] in a wheel's outer plane, from angles in radians and radii as shares of the tyre's."""
    x = wheel.axle + wheel.radius * radii * np.cos(angles)
    return np.stack([x, np.full_like(x, wheel.y), wheel.radius * (1 + radii * np.sin(angles))], axis=-1)


def _away(band: Floats, wheel: _Wheel) -> Floats:
    centre = band.mean(axis=0)
    away = np.array([centre[0] - wheel.axle, 0.0, centre[2] - wheel.radius])
    unit: Floats = away / np.linalg.norm(away)
    return unit
