"""Images of one photograph are found however they were altered, and pictures that only look alike are not."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from photographs import CHANGES, photograph, saved
from PIL import Image, ImageDraw
from threadpoolctl import threadpool_limits

from carcls.data.copies import find_copies
from carcls.data.index import KINDS, Copies
from carcls.data.proposals import propose

Bytes = NDArray[np.uint8]
EACH = 12


def thumbnail(image: Image.Image) -> Bytes:
    """Return what decoding makes of an image."""
    return np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC))


def found_in(images: list[Image.Image]) -> Copies:
    """Return the copies among images."""
    return find_copies(np.stack([thumbnail(image) for image in images]), np.arange(len(images)))


@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_copy_is_found_and_nothing_else(change: str) -> None:
    """Of photographs and one altered copy each, the pairs are all of these; mirrored ones are known as such."""
    originals = [photograph(seed) for seed in range(EACH)]
    copies = [saved(CHANGES[change](image, np.random.default_rng(seed))) for seed, image in enumerate(originals)]
    found = found_in([*originals, *copies])
    assert found.pairs.tolist() == [[row, EACH + row] for row in range(EACH)]
    assert ((found.kinds == KINDS.index("mirrored")) == (change == "mirrored")).all()
    assert (found.scores <= 1).all()


def studio_shot(roof: int, colour: tuple[int, int, int]) -> Image.Image:
    """Return a car on white whose pose is always the same."""
    image = Image.new("RGB", (150, 100), "white")
    draw = ImageDraw.Draw(image)
    draw.polygon([(35, 50), (50, roof), (100, roof), (120, 50)], fill=colour, outline="black", width=2)
    draw.rounded_rectangle((15, 48, 138, 75), 10, fill=colour, outline="black", width=2)
    for x in (40, 110):
        draw.ellipse((x - 13, 62, x + 13, 88), fill="black")
        draw.ellipse((x - 6, 69, x + 6, 81), fill="gray")
    return image


def test_pictures_that_look_alike_are_no_copies() -> None:
    """Another roof, or another paint on the same car, is another picture, and so are flat ones of other colours."""
    shots = [studio_shot(20, (200, 30, 30)), studio_shot(34, (200, 30, 30)), studio_shot(20, (30, 40, 200))]
    flat = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black", "red")]
    assert found_in([*map(saved, shots), *flat]).pairs.tolist() == []


def test_equal_thumbnails_are_paired_with_the_first() -> None:
    """A thousand placeholders are 999 pairs, not half a million; rows that are not looked at are in none."""
    thumbnails = np.repeat(thumbnail(photograph(0))[None], 1001, axis=0)
    found = find_copies(thumbnails, np.arange(1, 1001))
    assert found.pairs.tolist() == [[1, row] for row in range(2, 1001)]
    assert set(found.kinds.tolist()) == {KINDS.index("equal")}
    assert (found.scores == 1).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_are_enough(count: int) -> None:
    """No image, or one, is no pair; an image and its mirrored copy are one."""
    pair = [photograph(0), CHANGES["mirrored"](photograph(0), np.random.default_rng(0))]
    thumbnails = np.array([thumbnail(image) for image in pair[:count]], np.uint8).reshape(-1, 64, 64, 3)
    assert find_copies(thumbnails, np.arange(count)).pairs.tolist() == [[0, 1]] * (count == 2)


def test_threads_do_not_show() -> None:
    """One thread finds what three find."""
    images = [photograph(seed) for seed in range(40)]
    thumbnails = np.stack([thumbnail(image) for image in [*images, *(saved(image, 30) for image in images)]])
    one, three = (find_copies(thumbnails, np.arange(80), workers) for workers in (1, 3))
    assert len(one.pairs) == 40
    for name in ("pairs", "kinds", "scores"):
        assert np.array_equal(getattr(one, name), getattr(three, name))


def test_four_times_the_images_take_about_four_times_as_long() -> None:
    """Comparing all with all would take sixteen times as long; copies far apart in a large set are proposed."""
    coarse = np.random.default_rng(0).integers(0, 256, (4800, 8, 8), np.uint8)
    small = coarse.repeat(4, axis=1).repeat(4, axis=2)
    small[-1] = small[0, :, ::-1]
    seconds = []
    with threadpool_limits(1), ThreadPoolExecutor(1) as threads:
        for count in (1200, 4800):
            start = time.process_time()
            proposals = propose(small[:count], threads)
            seconds.append(time.process_time() - start)
    assert seconds[1] < 10 * seconds[0]
    assert [0, 4799] in np.sort(proposals.pairs, axis=1).tolist()


def digit(seed: int) -> Image.Image:
    """Return a seven, drawn with an unsteady hand."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (112, 112), 0)
    points = np.array([(28, 19), (82, 19), (46, 91)]) + rng.normal(0, 4, (3, 2))
    ImageDraw.Draw(image).line([tuple(point) for point in points.tolist()], 255, int(rng.integers(6, 13)), "curve")
    return image.resize((28, 28))


def test_drawn_digits_are_no_copies_but_recompressed_ones_are() -> None:
    """Two sevens of one hand differ; a seven that was saved again does not."""
    sevens = [digit(seed) for seed in range(100)]
    found = found_in([*sevens, saved(sevens[0].resize((112, 112)))])
    assert found.pairs.tolist() == [[0, 100]]
