"""The last steps of a demo image: what stands in front of the car, and how the camera develops the picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom exclusive
_OCCLUDED = 0.26  # share of the images that have something in front of the car
_SCALE = 2


def occlude(rng: np.random.Generator, picture: Image.Image, box: Box, brightness: float) -> Image.Image:
    """Perhaps put a pole, a person, a bush, a branch or a sign in front of a small part of the car."""
    if rng.random() > _OCCLUDED:
        return picture
    overlay = Image.new("RGBA", (picture.width * _SCALE, picture.height * _SCALE))
    front = _Front(rng, ImageDraw.Draw(overlay), brightness, overlay.size)
    large = tuple(v * _SCALE for v in box)
    draw = (front.pole, front.person, front.bush, front.branch, front.sign)[int(rng.integers(5))]
    draw(large)
    overlay = overlay.reduce(_SCALE).filter(ImageFilter.BoxBlur(float(rng.uniform(0, 1.0))))
    picture.paste(overlay, (0, 0), overlay)
    return picture


class _Front:
    """Draws one thing in front of the car; all positions in oversampled pixels."""

    def __init__(
        self, rng: np.random.Generator, draw: ImageDraw.ImageDraw, brightness: float, size: tuple[int, int]
    ) -> None:
        self.rng, self.draw, self.brightness = rng, draw, brightness
        self.width, self.height = size

    def tone(self, red: float, green: float, blue: float, spread: float = 0.1) -> tuple[int, int, int, int]:
        shade = self.brightness * (1 + self.rng.uniform(-spread, spread))
        r, g, b = (int(min(max(v * shade, 4), 255)) for v in (red, green, blue))
        return r, g, b, 255

    def pole(self, box: tuple[int, ...]) -> None:
        x, thick = self.rng.uniform(box[0], box[2]), self.width * self.rng.uniform(0.012, 0.028)
        foot = box[3] + self.rng.uniform(0.01, 0.08) * self.height
        for share, level in ((1.0, 70), (0.7, 105), (0.35, 140)):
            self.draw.rectangle(
                [x - thick * share, -4, x + thick * (share - 0.3), foot], fill=self.tone(level, level, level, 0)
            )

    def person(self, box: tuple[int, ...]) -> None:
        tall = (box[3] - box[1]) * self.rng.uniform(1.0, 1.35)
        x, foot = self.rng.choice([box[0] + 0.1 * tall, box[2] - 0.1 * tall]), box[3] + 0.06 * tall
        top, half = foot - tall, tall * 0.11
        clothes, trousers = (
            self.tone(*self.rng.uniform(40, 220, 3)),
            self.tone(*(self.rng.uniform(35, 95) + self.rng.uniform(-12, 12, 3))),
        )
        for leg in (-0.5, 0.5):
            self.draw.rounded_rectangle(
                [x + leg * half - half * 0.42, top + tall * 0.5, x + leg * half + half * 0.42, foot],
                half * 0.2,
                fill=trousers,
            )
        self.draw.rounded_rectangle(
            [x - half, top + tall * 0.16, x + half, top + tall * 0.56], half * 0.6, fill=clothes
        )
        for arm in (-1.15, 1.15):
            self.draw.rounded_rectangle(
                [x + arm * half - half * 0.25, top + tall * 0.19, x + arm * half + half * 0.25, top + tall * 0.54],
                half * 0.25,
                fill=clothes,
            )
        self.draw.ellipse([x - half * 0.6, top, x + half * 0.6, top + tall * 0.15], fill=self.tone(204, 160, 130, 0.3))

    def bush(self, box: tuple[int, ...]) -> None:
        x, wide = self.rng.choice([box[0], box[2]]), (box[2] - box[0]) * self.rng.uniform(0.10, 0.22)
        for _ in range(70):
            cx, r = x + self.rng.normal(0, 0.45) * wide, wide * self.rng.uniform(0.05, 0.15)
            cy = box[3] + self.height * 0.03 - abs(self.rng.normal(0, 0.13)) * (box[3] - box[1])
            self.draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=self.tone(74, 112, 50, 0.45))

    def branch(self, box: tuple[int, ...]) -> None:
        side = -1 if self.rng.random() < 0.5 else 1
        start = np.array([0.0 if side < 0 else self.width, self.height * self.rng.uniform(-0.05, 0.2)])
        end = np.array(
            [
                (box[0] + box[2]) / 2 - side * self.rng.uniform(-0.2, 0.4) * (box[2] - box[0]),
                box[1] + 0.25 * (box[3] - box[1]),
            ]
        )
        self.draw.line([tuple(start), tuple(end)], fill=self.tone(84, 66, 48), width=max(3, self.width // 130))
        for along in np.linspace(0.1, 1.05, 60):
            cx, cy = start + (end - start) * along + self.rng.normal(0, 0.022 * self.width, 2)
            r = self.width * self.rng.uniform(0.006, 0.016)
            self.draw.ellipse([cx - r * 1.5, cy - r, cx + r * 1.5, cy + r], fill=self.tone(86, 124, 52, 0.45))

    def sign(self, box: tuple[int, ...]) -> None:
        x, r = self.rng.uniform(box[0], box[2]), (box[3] - box[1]) * self.rng.uniform(0.10, 0.16)
        y, foot = box[1] + (box[3] - box[1]) * self.rng.uniform(-0.1, 0.35), box[3] + self.height * 0.06
        self.draw.rectangle([x - r * 0.09, y, x + r * 0.09, foot], fill=self.tone(130, 132, 136))
        for share, colour in ((1.0, (200, 40, 44)), (0.74, (236, 236, 236))):
            self.draw.ellipse([x - r * share, y - r * share, x + r * share, y + r * share], fill=self.tone(*colour))
        self.draw.rectangle([x - r * 0.45, y - r * 0.12, x + r * 0.45, y + r * 0.12], fill=self.tone(40, 42, 48))


def develop(rng: np.random.Generator, picture: Image.Image) -> bytes:
    """Tint, expose, blur and grain the picture, and store it as JPEG."""
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.BoxBlur(float(rng.uniform(0.2, 0.8))))
    gain = rng.uniform(0.84, 1.18) * (1 + rng.normal(0, 0.035, 3))
    contrast, lift = rng.uniform(0.88, 1.12), rng.uniform(-8, 10)
    table = np.clip((np.arange(256) * gain[:, None] - 118) * contrast + 118 + lift, 0, 255).astype(np.uint8)
    grain = rng.integers(-128, 128, size=(picture.height, picture.width), dtype=np.int8) * np.float32(
        rng.uniform(0.01, 0.045)
    )
    pixels = np.asarray(picture.point(table.ravel().tolist()), dtype=np.int16) + grain.astype(np.int16)[..., None]
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=int(rng.integers(72, 95)))
    return target.getvalue()
