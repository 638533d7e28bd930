"""Every kind of image loads right or says why not; crops are where the boxes are."""

from __future__ import annotations

import io
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from carcls.data.decode import open_image, read_square, read_squares
from carcls.data.files import EXTENSIONS, FORMATS
from carcls.data.manifest import Box
from carcls.errors import UnreadableImage

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (255, 255, 255)


def quarters(side: int = 64) -> Image.Image:
    """Return a square: red and green above blue and white."""
    image = Image.new("RGB", (side, side), RED)
    half = side // 2
    image.paste(GREEN, (half, 0, side, half))
    image.paste(BLUE, (0, half, half, side))
    image.paste(WHITE, (half, half, side, side))
    return image


def corners(pixels: NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """Return the colours in the middle of the four quarters, in reading order."""
    quarter = len(pixels) // 4
    places = [(quarter, quarter), (quarter, -quarter), (-quarter, quarter), (-quarter, -quarter)]
    return [tuple(map(int, pixels[place])) for place in places]


def close(left: object, right: object, tolerance: int = 12) -> bool:
    """Tell whether all levels agree to within the tolerance."""
    return bool(np.abs(np.array(left, int) - np.array(right, int)).max() <= tolerance)


def know_all_formats() -> None:
    """Open something, after which Pillow knows the formats of optional packages."""
    with pytest.raises(UnidentifiedImageError):
        open_image(io.BytesIO(b"nothing"))


@pytest.mark.parametrize("suffix", [*sorted(EXTENSIONS - {".pgm", ".pbm"}), "cmyk.jpg", "palette.png"])
def test_every_format_loads_the_same_picture(tmp_path: Path, suffix: str) -> None:
    """The four colours are where they were drawn, whatever the format: CMYK is no negative, palettes are looked up."""
    path, image = tmp_path / f"image{suffix}", quarters()
    know_all_formats()
    if "palette" in suffix:
        image = image.quantize(8)
    elif "cmyk" in suffix:
        image = image.convert("CMYK")
    image.save(path, **({"quality": 95} if path.suffix not in {".png", ".bmp", ".tif", ".gif"} else {}))
    pixels = read_square(path, 32)
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert close(corners(pixels), [RED, GREEN, BLUE, WHITE], 25 if "cmyk" in suffix else 12)


def test_pillow_reads_the_formats_and_knows_their_extensions() -> None:
    """The list is Pillow's own, of what this installation opens; MPO is what JPEG's plug-in makes of several."""
    know_all_formats()
    known = Image.registered_extensions()
    assert {extension: known[extension] for extension in EXTENSIONS} == {
        extension: "MPO" if extension == ".mpo" else name for name, all_of in FORMATS.items() for extension in all_of
    }
    assert FORMATS.keys() <= Image.OPEN.keys()


def test_an_eps_file_starts_no_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its extension, a file of another format is not even looked into by that format's plug-in."""
    quarters().save(tmp_path / "image.jpg", format="EPS")
    script = tmp_path / "gs"
    script.write_text(f"#!/bin/sh\n: > {tmp_path}/ran\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnreadableImage, match="not an image of a known format"):
        read_square(tmp_path / "image.jpg", 32)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mode", ["L", "1", "I;16"])
def test_gray_kinds_load_as_equal_channels(tmp_path: Path, mode: str) -> None:
    """8-bit gray, black and white, and 16-bit gray become the same levels in three channels."""
    levels = np.repeat(np.array([[0, 255], [255, 0]], np.uint8), 16, axis=0).repeat(16, axis=1)
    image = Image.fromarray(levels.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(levels).convert(mode)
    image.save(tmp_path / "image.png")
    assert close(corners(read_square(tmp_path / "image.png", 32)), [(0,) * 3, WHITE, WHITE, (0,) * 3])


def test_sixteen_bit_middle_gray_is_middle_gray(tmp_path: Path) -> None:
    """16-bit levels are scaled, neither clipped nor cut to their low byte."""
    Image.fromarray(np.full((8, 8), 0x8001, np.uint16)).save(tmp_path / "image.png")
    assert close(read_square(tmp_path / "image.png", 8), 128, 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path: Path, mode: str) -> None:
    """What is transparent shows white paper; what is opaque keeps its shade."""
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((60, 60, 60, 255), (0, 0, 32, 16))
    if mode == "P":
        indexed = Image.new("P", (32, 32), 1)
        indexed.putpalette([60, 60, 60, 200, 0, 0])
        indexed.paste(0, (0, 0, 32, 16))
        indexed.save(tmp_path / "image.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "image.png")
    gray = (60, 60, 60)
    assert close(corners(read_square(tmp_path / "image.png", 32)), [gray, gray, WHITE, WHITE])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    """A picture stored turned, with the tag that says so, is seen upright, in all eight orientations."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quarters() if orientation == 1 else quarters().transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"image{suffix}", exif=exif)
    pixels = read_square(tmp_path / f"image{suffix}", 32)
    assert close(corners(pixels), [RED, GREEN, BLUE, WHITE], 40)


def test_box_of_a_turned_image_is_cut_from_the_stored_pixels(tmp_path: Path) -> None:
    """The box names stored pixels: the stored top left quarter, red, whatever the orientation says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    quarters().save(tmp_path / "image.jpg", exif=exif, quality=95)
    assert close(read_square(tmp_path / "image.jpg", 16, (0, 0, 28, 28))[4:12, 4:12], RED)


def test_twenty_megapixels_load_right_and_soon(tmp_path: Path) -> None:
    """A 20-megapixel photograph is read at reduced scale, and its boxed corner is still the right one."""
    quarters(4472).save(tmp_path / "image.jpg")
    start = time.perf_counter()
    whole = read_square(tmp_path / "image.jpg", 64)
    boxed = read_square(tmp_path / "image.jpg", 64, (2236, 0, 4472, 2236))
    assert time.perf_counter() - start < 30
    assert close(corners(whole), [RED, GREEN, BLUE, WHITE])
    assert close(boxed[2:-2, 2:-2], GREEN)


def test_reduced_decoding_agrees_with_full_decoding(tmp_path: Path) -> None:
    """Reading a large JPEG at a fraction of its scale gives the same square as reading all of it, to a few levels."""
    y, x = np.mgrid[0:1500, 0:2000]
    waves = np.stack([127 + 100 * np.sin(x / p) * np.cos(y / p) for p in (150, 220, 310)], -1).astype(np.uint8)
    Image.fromarray(waves).save(tmp_path / "image.jpg", quality=95)
    Image.open(tmp_path / "image.jpg").save(tmp_path / "image.bmp")
    box = (201, 103, 1403, 1201)
    reduced = read_square(tmp_path / "image.jpg", 64, box).astype(int)
    assert np.abs(reduced - read_square(tmp_path / "image.bmp", 64, box)).max() <= 6


@pytest.mark.parametrize("sizes", [[32, 96], [300, 32], [64, 600, 300, 32], [600, 64, 500]])
def test_what_is_read_does_not_depend_on_the_other_sizes(tmp_path: Path, sizes: list[int]) -> None:
    """Each square is bit for bit that of its size alone, in the order that was asked for."""
    noise = np.random.default_rng(0).integers(0, 255, size=(40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((2400, 1900)).save(tmp_path / "image.jpg")
    box = (3, 5, 1802, 1799)
    squares = read_squares(tmp_path / "image.jpg", sizes, box)
    for size, square in zip(sizes, squares, strict=True):
        assert np.array_equal(square, read_square(tmp_path / "image.jpg", size, box))


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        ((30, 10, 50, 30), 0.0, np.s_[10:30, 30:50]),
        ((20, 15, 40, 35), 0.5, np.s_[5:45, 10:50]),
        ((60, 40, 75, 65), 0.0, np.s_[40:60, 60:70]),
    ],
)
def test_crop_is_exactly_the_box(tmp_path: Path, box: Box, margin: float, expected: tuple[slice, slice]) -> None:
    """Its slice of the array, wider on each side by the margin of its own sides; what sticks out is cut off."""
    pixels = np.random.default_rng(1).integers(0, 255, size=(60, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    cropped = Image.fromarray(pixels[expected])
    side = max(cropped.size)
    square = cropped.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
    assert np.array_equal(read_square(tmp_path / "image.png", side, box, margin), square)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((10, 10, 10, 20), "empty"),
        ((20, 10, 10, 20), "empty"),
        ((64, 0, 90, 10), "outside"),
        ((-9, 0, 0, 9), "outside"),
        ((20, 10, 300, 100), r"most of its box \(20, 10, 300, 100\) lies outside the \d+×\d+ image"),
    ],
)
def test_useless_box_is_a_reason(tmp_path: Path, box: Box, reason: str) -> None:
    """An empty box, or one beside the image, cannot be cropped, with any margin."""
    quarters().save(tmp_path / "image.png")
    with pytest.raises(UnreadableImage, match=reason):
        read_square(tmp_path / "image.png", 16, box, 1.0)


def _torn(kind: str, path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format=kind)
    path.write_bytes(path.read_bytes()[:-1000])


def _bomb(path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(path, format="PNG")


def _save_as(kind: str, path: Path) -> None:
    quarters().save(path, format=kind)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.unlink(missing_ok=True), "missing"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("<html>404</html>"), "not an image of a known format"),
        (lambda path: path.mkdir(), "it is a folder, not a file"),
        (os.mkfifo, "it is a pipe, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (lambda path: path.symlink_to(path.name), "too many levels of symbolic links"),
        *((partial(_save_as, kind), "not an image of a known format") for kind in ("EPS", "PDF", "ICO", "TGA", "PCX")),
        (partial(_torn, "JPEG"), "damaged .*truncated"),
        (partial(_torn, "PNG"), "damaged"),
        (_bomb, "more than 89,478,485 pixels"),
    ],
)
def test_unreadable_file_says_why_without_its_folder(tmp_path: Path, write, reason: str) -> None:
    """The reason is the same for a moved copy, so it names no folder."""
    path = tmp_path / "image.jpg"
    write(path)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_square(path, 32)
    assert str(tmp_path) not in str(caught.value)
