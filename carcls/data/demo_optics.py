"""Cameras, light and paint of the demo images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from carcls.data.demo_body import Floats

Singles = npt.NDArray[np.float32]
Colour = tuple[float, float, float]  # red, green, blue, each 0 to 255


def towards(vectors: npt.NDArray[Any], direction: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Dot products [...] of vectors [..., 3] with one direction [3].

    No matrix product: its last bit may depend on the number of threads, and the same seed must draw the same bytes.
    """
    x, y, z = (vectors[..., k] * direction[k] for k in range(3))
    total: npt.NDArray[Any] = x + y + z
    return total


@dataclass(frozen=True)
class Paint:
    """A car's colour (0 to 255) and how strongly it changes with the angle, 0 (solid) to 1 (metallic)."""

    colour: Colour
    metallic: float


@dataclass(frozen=True)
class Light:
    """Where the light comes from; colours are linear, about 0 to 1.

    ``sun`` is a unit vector [3] in the car's coordinates, ``skyline`` the height [k] of what surrounds
    the car, by bearing.
    """

    sun: Singles
    sun_colour: Singles
    zenith: Singles
    horizon: Singles
    ground: Singles
    skyline: Singles

    def around(self, direction: Singles) -> Singles:
        """What is seen in directions [n, 3] (unit vectors): linear colours [n, 3]."""
        east, north, up = direction.T
        bearing = np.arctan2(north, east) * np.float32(len(self.skyline) / (2 * np.pi))
        height = self.skyline[bearing.astype(np.int64) % len(self.skyline)]
        sky = self.horizon + np.sqrt(np.clip(up, 0, 1))[:, None] * (self.zenith - self.horizon)
        below = np.clip(1 + up * 1.2, 0.35, 1)[:, None] * self.ground
        seen = below + np.clip(up * 20 + 0.5, 0, 1)[:, None] * (self.horizon * np.float32(0.28) - below)
        mixed: Singles = seen + np.clip((up - height) * 14 + 0.5, 0, 1)[:, None] * (sky - seen)
        return mixed

    def falling_on(self, normal: Singles) -> Singles:
        """The diffuse light on surfaces with unit normals [n, 3]: linear colours [n, 3]."""
        up = (normal[:, 2] * 0.5 + 0.5)[:, None]
        ambient = self.ground * 0.55 + up * ((self.zenith + self.horizon) * 0.42 - self.ground * 0.55)
        total: Singles = ambient + np.clip(towards(normal, self.sun), 0, None)[:, None] * self.sun_colour
        return total


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: ``axes`` [3, 3] are its right, up and forward directions, ``offset`` its image centre."""

    position: Floats
    axes: Floats
    focal: float
    offset: tuple[float, float]

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Pixel positions [..., 2] and depths [...] in metres of points [..., 3]."""
        away = points - self.position
        right, up, forward = (towards(away, axis) for axis in self.axes)
        depth: Floats = np.maximum(forward, 0.05)
        flat = np.stack([right, -up], axis=-1) / depth[..., None] * self.focal
        return flat + np.array(self.offset), depth

    def rays(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Floats:
        """Directions [..., 3] (not normalised, forward component 1) of the pixels at x and y."""
        right, up = (x - self.offset[0]) / self.focal, -(y - self.offset[1]) / self.focal
        rays: Floats = right[..., None] * self.axes[0] + up[..., None] * self.axes[1] + self.axes[2]
        return rays


def camera_towards(azimuth: float, distance: float, height: float, roll: float, aim: float = 0.65) -> Camera:
    """A camera of focal length 1 around the car; azimuth 0 looks at its nose, angles in radians, lengths in metres."""
    position = np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), height])
    forward = np.array([0, 0, aim]) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    c, s = np.cos(roll), np.sin(roll)
    return Camera(position, np.stack([right * c + up * s, up * c - right * s, forward]), 1.0, (0.0, 0.0))
