"""Make docs/demo-cars.png: a test image of each class of the embedded demo data set."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from carcls.data.demo import write_demo
from carcls.data.layouts import read_layout

_COLUMNS, _WIDTH, _HEIGHT, _CAPTION = 7, 160, 115, 17


def sheet(folder: Path) -> Image.Image:
    """Return the first test image of each class in a demo folder, with the class's name below."""
    manifest = read_layout(folder)
    chosen = {image.label: image.path for image in reversed(manifest.images) if image.split == "test"}
    rows = -(-len(chosen) // _COLUMNS)
    picture = Image.new("RGB", (_COLUMNS * _WIDTH, rows * (_HEIGHT + _CAPTION)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(10)
    for label, path in sorted(chosen.items()):
        left, top = label % _COLUMNS * _WIDTH, label // _COLUMNS * (_HEIGHT + _CAPTION)
        with Image.open(folder / path) as image:
            picture.paste(image.resize((_WIDTH - 2, _HEIGHT - 2), Image.Resampling.LANCZOS), (left + 1, top + 1))
        draw.text((left + _WIDTH / 2, top + _HEIGHT + 1), manifest.classes[label], fill="black", font=font, anchor="ma")
    return picture


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/demo-cars.png")
    with tempfile.TemporaryDirectory() as place:
        picture = sheet(write_demo(Path(place) / "demo"))
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE)
    picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)
