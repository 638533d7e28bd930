"""Where a demo car stands: place, weather, viewpoint, paint, and the picture behind and beneath the car."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from carcls.data.demo_backdrop import draw_backdrop, ground_noise
from carcls.data.demo_body import Floats
from carcls.data.demo_catalogue import Body
from carcls.data.demo_optics import Camera, Light, Paint, Singles, camera_towards

Size = tuple[int, int]
VIEWS: dict[str, tuple[float, float]] = {  # degrees from straight ahead of the nose
    "front quarter": (24, 62),
    "rear quarter": (118, 156),
    "side": (78, 102),
    "front": (4, 20),
    "rear": (162, 176),
}
_VIEW_ORDER = ("front quarter", "rear quarter", "side", "front quarter", "rear quarter", "front", "side", "rear")

_PAINTS: tuple[Paint, ...] = tuple(
    Paint(colour, metallic)
    for colour, metallic in (
        ((236, 236, 232), 0.0), ((178, 22, 28), 0.15), ((28, 30, 33), 0.3), ((186, 190, 196), 0.9),
        ((112, 117, 124), 0.9), ((24, 52, 116), 0.7), ((66, 118, 178), 0.6), ((112, 18, 34), 0.7), ((26, 72, 52), 0.6),
        ((206, 176, 128), 0.7), ((226, 178, 26), 0.1), ((214, 92, 26), 0.4), ((122, 158, 96), 0.4),
        ((84, 62, 50), 0.8), ((70, 148, 152), 0.5),
    )
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """What surrounds the car: colours are linear, 0 to 1."""

    ground: tuple[float, float, float]
    marking: str
    backdrop: str
    places_beside: bool = False


@dataclass(frozen=True)
class Weather:
    """The light outdoors: colours are linear, 0 to 1; ``height`` is the range of the sun's height in degrees."""

    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    sun: tuple[float, float, float]
    height: tuple[float, float]
    lamps: bool = False


_PLACES = {
    "street": Place((0.115, 0.115, 0.12), "kerb", "houses", places_beside=True),
    "parking": Place((0.16, 0.155, 0.15), "bays", "trees", places_beside=True),
    "field": Place((0.105, 0.15, 0.045), "grass", "hills"),
    "yard": Place((0.30, 0.27, 0.22), "slabs", "houses"),
    "coast": Place((0.36, 0.32, 0.25), "slabs", "sea"),
    "showroom": Place((0.42, 0.41, 0.40), "tiles", "hall", places_beside=True),
}
_OUTDOORS = tuple(name for name in _PLACES if name != "showroom")
_WEATHERS = {
    "clear": Weather((0.16, 0.34, 0.72), (0.66, 0.76, 0.86), (0.92, 0.86, 0.74), (28, 62)),
    "hazy": Weather((0.44, 0.52, 0.62), (0.74, 0.76, 0.76), (0.42, 0.40, 0.36), (30, 65)),
    "overcast": Weather((0.56, 0.58, 0.62), (0.62, 0.64, 0.66), (0.06, 0.06, 0.06), (50, 80)),
    "dusk": Weather((0.13, 0.17, 0.34), (0.72, 0.42, 0.26), (0.62, 0.34, 0.16), (9, 22), lamps=True),
    "night": Weather((0.035, 0.042, 0.085), (0.14, 0.12, 0.12), (0.52, 0.44, 0.32), (45, 75), lamps=True),
}
_INDOORS = Weather((0.80, 0.80, 0.78), (0.42, 0.42, 0.42), (0.22, 0.22, 0.21), (55, 80))


@dataclass(frozen=True)
class Scene:
    """Everything that an image is drawn from, but the car itself."""

    size: Size
    camera: Camera
    place: Place
    weather: Weather
    light: Light
    paint: Paint
    lamps_on: bool


def make_scene(rng: np.random.Generator, points: Floats, index: int) -> Scene:
    """Choose a scene for a car.

    Args:
        rng: where all choices come from, but the view's.
        points: points of the car's body, float64 [n, 3] in metres; the camera is set so that all of them are seen.
        index: the image's number within its class; the views take turns.
    """
    width = int(rng.integers(304, 417))
    size = (width, int(width * rng.uniform(0.66, 0.78)))
    indoors = rng.random() < 0.15
    place = _PLACES["showroom" if indoors else str(rng.choice(_OUTDOORS))]
    weather = _INDOORS if indoors else _WEATHERS[str(rng.choice(list(_WEATHERS), p=(0.38, 0.22, 0.20, 0.12, 0.08)))]
    return Scene(
        size=size,
        camera=_framed(rng, points, size, VIEWS[_VIEW_ORDER[index % len(_VIEW_ORDER)]]),
        place=place,
        weather=weather,
        light=_light(rng, place, weather),
        paint=random_paint(rng),
        lamps_on=bool(weather.lamps and rng.random() < 0.6),
    )


def random_paint(rng: np.random.Generator) -> Paint:
    """One of the colours, slightly changed; every class wears all of them."""
    paint = _PAINTS[int(rng.integers(len(_PAINTS)))]
    red, green, blue = np.clip(np.array(paint.colour) * rng.uniform(0.82, 1.12) + rng.normal(0, 6, 3), 6, 246)
    return replace(paint, colour=(float(red), float(green), float(blue)))


def _framed(rng: np.random.Generator, points: Floats, size: Size, view: tuple[float, float]) -> Camera:
    azimuth = np.deg2rad(rng.uniform(*view)) * (1 if rng.random() < 0.5 else -1)
    camera = camera_towards(azimuth, rng.uniform(5.4, 10.0), rng.uniform(1.0, 2.5), np.deg2rad(rng.normal(0, 2.0)))
    flat = camera.project(points)[0]
    low, high = flat.min(axis=0), flat.max(axis=0)
    share = np.array([rng.uniform(0.62, 0.94), rng.uniform(0.62, 0.86)])
    focal = float(np.min(share * np.array(size) / (high - low)))
    room = np.array(size) - (high - low) * focal
    corner = room * np.array([rng.uniform(0.15, 0.85), rng.uniform(0.35, 0.85)])
    left, top = corner - low * focal
    return replace(camera, focal=focal, offset=(float(left), float(top)))


def _light(rng: np.random.Generator, place: Place, weather: Weather) -> Light:
    bearing, height = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(*weather.height))
    sun = np.array([np.cos(bearing) * np.cos(height), np.sin(bearing) * np.cos(height), np.sin(height)])
    shade = 0.12 if rng.random() < 0.15 else 1.0  # the car may stand in a building's shade
    strength = (np.array(weather.horizon) + np.array(weather.sun) * np.sin(height)).mean()
    rough = rng.normal(0, 1, 64)
    skyline = 0.11 + 0.06 * np.convolve(np.tile(rough, 3), np.ones(3) / 2, "same")[64:128]
    values = {
        "sun": sun,
        "sun_colour": np.array(weather.sun) * shade * rng.uniform(0.85, 1.15),
        "zenith": np.array(weather.zenith),
        "horizon": np.array(weather.horizon),
        "ground": np.array(place.ground) * strength * 1.5,
        "skyline": np.clip(skyline, 0.01, 0.4),
    }
    return Light(**{name: value.astype(np.float32) for name, value in values.items()})


def draw_surroundings(rng: np.random.Generator, scene: Scene, body: Body) -> Image.Image:
    """The picture without the car, but with its shadow: RGB of the scene's size."""
    half = (scene.size[0] // 2 + 1, scene.size[1] // 2 + 1)  # the surroundings are soft: half the pixels suffice
    camera = replace(
        scene.camera, focal=scene.camera.focal / 2, offset=(scene.camera.offset[0] / 2, scene.camera.offset[1] / 2)
    )
    y, x = np.mgrid[0 : half[1], 0 : half[0]] + 0.5
    ray: Singles = camera.rays(x, y).astype(np.float32)
    ray /= np.sqrt(np.einsum("hwk,hwk->hw", ray, ray))[..., None]
    up = ray[..., 2]
    far: Singles = np.divide(camera.position[2], np.maximum(-up, 1e-3), dtype=np.float32)
    on_x: Singles = np.add(camera.position[0], ray[..., 0] * far, dtype=np.float32)
    on_y: Singles = np.add(camera.position[1], ray[..., 1] * far, dtype=np.float32)
    ground = _ground(rng, scene, on_x, on_y, far) * _shadow(scene, body, on_x, on_y)[..., None]
    ground += (scene.light.horizon * np.float32(0.8) - ground) * np.clip((far - 18) / 90, 0, 0.75)[..., None]
    linear = np.where((up < 0)[..., None], ground, _sky(scene, up))
    picture = Image.fromarray((np.sqrt(np.clip(linear, 0, 1)) * np.float32(255)).astype(np.uint8))
    brightness = float(np.sqrt(scene.light.horizon.mean()))
    draw_backdrop(rng, picture, camera, scene.place.backdrop, brightness, lamps=scene.weather.lamps)
    full = picture.resize((half[0] * 2, half[1] * 2), Image.Resampling.BILINEAR)
    return full.crop((0, 0, *scene.size))


def _sky(scene: Scene, up: Singles) -> Singles:
    way = np.sqrt(np.clip(up * 1.6, 0, 1))[..., None]
    sky: Singles = scene.light.horizon + (scene.light.zenith - scene.light.horizon) * way
    return sky


def _ground(rng: np.random.Generator, scene: Scene, x: Singles, y: Singles, far: Singles) -> Singles:
    """Linear colours [h, w, 3] of the ground at x and y, as lit by the scene."""
    angle = float(rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.12))
    c, s = math.cos(angle), math.sin(angle)
    along, across = x * c + y * s, y * c - x * s
    noise = ground_noise()
    coarse, fine = (noise[(along * k).astype(np.int64) & 255, (across * k).astype(np.int64) & 255] for k in (7.0, 38.0))
    texture = 1 + 0.22 * (coarse - 0.5) + 0.5 * (fine - 0.5) * np.exp(-far / 14)
    colour = np.array(scene.place.ground, np.float32) * texture[..., None]
    shift = rng.uniform(0, 3)
    match scene.place.marking:
        case "bays":
            line = (np.abs((along + shift) % 2.7 - 1.35) < 0.06) & (np.abs(across) < 5.5)
            colour = np.where(line[..., None], np.float32(0.62) * texture[..., None], colour)
        case "kerb":
            edge = 1.5 + shift
            colour = np.where(
                (across > edge)[..., None], np.array([0.27, 0.26, 0.25], np.float32) * texture[..., None], colour
            )
            colour = np.where((np.abs(across + edge) < 0.07)[..., None], np.float32(0.6), colour)
        case "grass":
            track = np.exp(-((np.abs(across) - 0.8) ** 2) / 0.10)[..., None] * 0.75
            colour = colour + (np.array([0.22, 0.17, 0.11], np.float32) * texture[..., None] - colour) * track
        case "slabs" | "tiles":
            wide = 1.2 if scene.place.marking == "tiles" else 2.2
            gap = (np.abs(along % wide) < 0.035) | (np.abs(across % wide) < 0.035)
            colour = np.where(gap[..., None], colour * np.float32(0.62), colour)
        case _:
            raise AssertionError(scene.place.marking)
    lit: Singles = colour * (scene.light.falling_on(np.array([[0.0, 0.0, 1.0]], np.float32))[0] * np.float32(1.25))
    return lit


def _shadow(scene: Scene, body: Body, x: Singles, y: Singles) -> Singles:
    """How much light [h, w] the car leaves on the ground at x and y, 0 to 1."""

    def outside(reach: float, middle: tuple[float, float], shorter: float) -> Singles:
        over_x = np.abs(x - middle[0]) - (body.length / 2 * reach - 0.35)
        over_y = np.abs(y - middle[1]) - (body.width / 2 - shorter - 0.35)
        beyond_x, beyond_y = np.maximum(over_x, 0), np.maximum(over_y, 0)
        away: Singles = np.sqrt(beyond_x * beyond_x + beyond_y * beyond_y) - np.float32(0.35)
        return away

    beneath = outside(1.0, (0.0, 0.0), 0.06)
    contact = np.exp(-np.clip(beneath, 0, None) / 0.22) * 0.82
    sun = scene.light.sun
    direct = float(scene.light.sun_colour.mean())
    strength = 0.72 * direct / (direct + float(scene.light.zenith.mean() + scene.light.horizon.mean()) * 0.42)
    cast = np.zeros_like(x)
    for share, reach in ((0.2, 0.97), (0.4, 0.95), (0.6, 0.92), (0.78, 0.66), (0.95, 0.48)):
        drop = -share * body.height / max(float(sun[2]), 0.12)
        away = outside(reach, (float(sun[0]) * drop, float(sun[1]) * drop), 0.14 * share)
        cast = np.maximum(cast, np.clip(0.5 - away / 0.16, 0, 1))
    left: Singles = (1 - contact) * (1 - strength * cast)
    return left
