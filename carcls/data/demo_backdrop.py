"""What stands at the horizon behind a demo car: houses, trees, hills, the sea, a hall; soft, as out of focus."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from carcls.data.demo_optics import Camera, Singles

_Fill = tuple[int, int, int, int]


@lru_cache(maxsize=1)
def ground_noise() -> Singles:
    """A texture that repeats, float32 [256, 256] from 0 to 1, always the same."""
    rng = np.random.default_rng(20120401)
    total = np.zeros((256, 256), np.float32)
    for cells, weight in ((256, 0.45), (64, 0.3), (16, 0.25)):
        rough = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        total += weight * np.asarray(rough.resize((256, 256), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    return total


def draw_backdrop(
    rng: np.random.Generator, picture: Image.Image, camera: Camera, kind: str, brightness: float, *, lamps: bool
) -> None:
    """Draw a backdrop onto the picture, in place; ``brightness`` is that of its surroundings, 0 to 1."""
    overlay = Image.new("RGBA", picture.size)
    stage = _Stage(rng, ImageDraw.Draw(overlay), camera, picture.size, brightness)
    match kind:
        case "houses":
            stage.houses(lamps=lamps)
            stage.trees(int(rng.integers(0, 3)))
        case "trees":
            stage.hedge()
            stage.trees(int(rng.integers(3, 8)))
        case "hills":
            stage.hills()
            stage.trees(int(rng.integers(0, 4)))
        case "sea":
            stage.sea()
        case "hall":
            stage.hall()
        case _:
            raise AssertionError(kind)
    if lamps:
        stage.lamps()
    overlay = overlay.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    picture.paste(overlay, (0, 0), overlay)


class _Stage:
    """Draws objects that stand on the ground at some distance."""

    def __init__(
        self,
        rng: np.random.Generator,
        draw: ImageDraw.ImageDraw,
        camera: Camera,
        size: tuple[int, int],
        brightness: float,
    ) -> None:
        self.rng, self.draw, self.camera, self.size, self.brightness = rng, draw, camera, size, brightness

    def horizon(self, x: float) -> float:
        """The y of the horizon at x."""
        right, up, forward = self.camera.axes[:, 2]
        across = (x - self.camera.offset[0]) / self.camera.focal
        return float(self.camera.offset[1] + self.camera.focal * (forward + across * right) / up)

    def span(self, x: float, distance: float, height: float) -> tuple[float, float]:
        """The y of the top and the foot of something ``height`` metres high."""
        scale = self.camera.focal / distance
        foot = self.horizon(x) + float(self.camera.position[2]) * scale
        return foot - height * scale, foot

    def tone(self, red: float, green: float, blue: float, spread: float = 0.12) -> _Fill:
        shade = self.brightness * (1 + self.rng.uniform(-spread, spread))
        r, g, b = (int(min(max(v * shade, 0), 255)) for v in (red, green, blue))
        return r, g, b, 255

    def houses(self, *, lamps: bool) -> None:
        x = -self.rng.uniform(0, 30)
        while x < self.size[0]:
            distance = self.rng.uniform(16, 42)
            wide = self.rng.uniform(5, 14) * self.camera.focal / distance
            top, foot = self.span(x + wide / 2, distance, self.rng.uniform(3.5, 13))
            base = (196, 180, 160) if self.rng.random() < 0.5 else (150, 128, 116)
            self.draw.rectangle([x, top, x + wide, foot], fill=self.tone(*base, spread=0.35))
            self._house_windows(x, top, wide, foot, 2.9 * self.camera.focal / distance, lamps=lamps)
            x += wide * self.rng.uniform(0.9, 1.25)

    def _house_windows(self, x: float, top: float, wide: float, foot: float, storey: float, *, lamps: bool) -> None:
        columns, rows = max(int(wide / (storey * 0.8)), 1), max(int((foot - top) / storey), 1)
        for row in range(rows):
            for column in range(columns):
                lit = lamps and self.rng.random() < 0.4
                fill = (250, 210, 130, 255) if lit else self.tone(70, 82, 96, 0.4)
                left, upper = x + (column + 0.3) * wide / columns, top + (row + 0.25) * storey
                self.draw.rectangle([left, upper, left + wide / columns * 0.42, upper + storey * 0.5], fill=fill)

    def trees(self, count: int) -> None:
        for _ in range(count):
            distance, x = self.rng.uniform(14, 40), self.rng.uniform(0, self.size[0])
            height = self.rng.uniform(3.5, 8)
            top, foot = self.span(x, distance, height)
            tall = foot - top
            self.draw.rectangle([x - tall * 0.02, top + tall * 0.4, x + tall * 0.02, foot], fill=self.tone(84, 66, 52))
            for _ in range(14):
                away, up = self.rng.normal(0, 0.15) * tall, top + tall * self.rng.uniform(0.08, 0.62)
                r = tall * self.rng.uniform(0.07, 0.16)
                self.draw.ellipse([x + away - r, up - r, x + away + r, up + r], fill=self.tone(72, 104, 52, 0.4))

    def hedge(self) -> None:
        distance, height = self.rng.uniform(18, 34), self.rng.uniform(1.2, 4.0)
        ends = [(x, *self.span(x, distance, height)) for x in (0.0, float(self.size[0]))]
        fill = self.tone(66, 92, 48)
        self.draw.polygon([(x, top) for x, top, _ in ends] + [(x, foot) for x, _, foot in ends[::-1]], fill=fill)
        for x in np.linspace(0, self.size[0], 40):
            top, foot = self.span(float(x), distance, height)
            r = (foot - top) * self.rng.uniform(0.1, 0.3)
            self.draw.ellipse([x - r * 2, top - r, x + r * 2, top + r * 2], fill=self.tone(70, 98, 50, 0.3))

    def hills(self) -> None:
        for distance, height, colour in (
            (400, 46, (140, 158, 168)),
            (220, 18, (104, 128, 92)),
            (110, 5, (86, 112, 56)),
        ):
            x = np.linspace(0, self.size[0], 24)
            wave = height * (0.7 + 0.3 * np.sin(x / self.size[0] * self.rng.uniform(3, 9) + self.rng.uniform(0, 6)))
            tops = [(float(at), self.span(float(at), distance, float(h))[0]) for at, h in zip(x, wave, strict=True)]
            feet = [(float(at), self.span(float(at), distance, 0)[1] + 1) for at in (x[-1], x[0])]
            self.draw.polygon(tops + feet, fill=self.tone(*colour))

    def sea(self) -> None:
        ends = (0.0, float(self.size[0]))
        water = [(x, self.horizon(x)) for x in ends] + [(x, self.span(x, 24, 0)[1]) for x in ends[::-1]]
        self.draw.polygon(water, fill=self.tone(74, 122, 152))
        wall = [(x, self.span(x, 22, 0.9)[0]) for x in ends] + [(x, self.span(x, 22, 0)[1]) for x in ends[::-1]]
        self.draw.polygon(wall, fill=self.tone(190, 182, 168))
        for _ in range(int(self.rng.integers(0, 3))):
            x = self.rng.uniform(0, self.size[0])
            top, foot = self.span(x, 26, 7)
            self.draw.line([(x, top), (x + 2, foot)], fill=self.tone(110, 88, 66), width=2)
            for angle in np.linspace(0, 2 * np.pi, 9):
                self.draw.line(
                    [(x, top), (x + 13 * np.cos(angle), top + 5 * np.sin(angle) + 3)],
                    fill=self.tone(58, 100, 54),
                    width=5,
                )

    def hall(self) -> None:
        distance, ends = self.rng.uniform(7.5, 12), (0.0, float(self.size[0]))
        wall = [(x, self.span(x, distance, 4.4)[0]) for x in ends] + [
            (x, self.span(x, distance, 0)[1]) for x in ends[::-1]
        ]
        base = self.rng.uniform(90, 240)
        self.draw.polygon([(0.0, 0.0), (ends[1], 0.0), *wall[2:]], fill=self.tone(base, base, base * 1.02))
        x, step = -self.rng.uniform(0, 40), self.rng.uniform(30, 65)
        while x < self.size[0]:
            top, foot = self.span(x, distance, 4.4)
            panel = self.tone(base * 0.86, base * 0.88, base * 0.92, 0.2)
            self.draw.rectangle([x, top, x + step * 0.9, foot], fill=panel)
            glare = [x + step * 0.2, max(top - 7, 0), x + step * 0.7, max(top - 4, 3)]
            self.draw.rectangle(glare, fill=(255, 253, 244, 255))
            x += step

    def lamps(self) -> None:
        for _ in range(int(self.rng.integers(3, 12))):
            x, r = self.rng.uniform(0, self.size[0]), self.rng.uniform(1, 2.5)
            y = self.span(x, self.rng.uniform(15, 60), self.rng.uniform(0.5, 6))[0]
            warm = self.rng.uniform(0.5, 1)
            self.draw.ellipse([x - r, y - r, x + r, y + r], fill=(255, int(170 + 70 * warm), int(220 * warm), 235))
