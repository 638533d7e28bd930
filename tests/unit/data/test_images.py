"""From pixels to batches: normalised exactly, prepared ahead to the same numbers, and stopped cleanly."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch

from carcls.data.augment import Augmentation
from carcls.training.images import ImageSource, View, answering_batch, batches
from carcls.training.preload import preloaded

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FULL = Augmentation(crop="resized", window=1.0, crop_scale=0.3, flip=True, rotation=20.0, jitter=0.3)


def _source(count: int = 41, side: int = 96) -> ImageSource:
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ImageSource(pixels, MEAN, STD, torch.device("cpu"))


def _ahead_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_an_unchanged_batch_is_the_pixels_normalised() -> None:
    """Without a view, a batch is (pixels / 255 - mean) / std in channels_last order."""
    source, rows = _source(), np.array([40, 3, 3, 17])
    batch = source.batch(rows)
    expected = (source.pixels[rows].astype(np.float64) / 255 - MEAN) / STD
    np.testing.assert_allclose(batch.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_every_image_gets_its_own_changes() -> None:
    """The same picture in every row comes out different in every row, and alike in the next batch of the same rows."""
    pixels = np.repeat(_source(1).pixels, 12, axis=0)
    source, view = ImageSource(pixels, MEAN, STD, torch.device("cpu")), View(FULL, seed=1, epoch=0)
    batch = source.batch(np.arange(12), view)
    gaps = torch.cdist(batch.flatten(1), batch.flatten(1)) + torch.eye(12) * 1e9
    assert gaps.min() > 1.0
    assert torch.equal(source.batch(np.arange(12), view), batch)
    for other in (View(FULL, seed=1, epoch=1), View(FULL, seed=2, epoch=0)):
        assert not torch.equal(source.batch(np.arange(12), other), batch)


@pytest.mark.parametrize("view", [None, View(FULL, seed=5, epoch=2)])
@pytest.mark.parametrize("side", [33, 224])
def test_batches_made_ahead_are_those_made_when_asked_for(view: View | None, side: int) -> None:
    """Bit for bit, though the thread that makes them ahead has one core and other blocks of images."""
    source = _source(side=side)
    parts = [source_rows[::-1].copy() for source_rows in batches(41, 16)]
    with closing(source.stream(parts, view)) as stream:
        ahead = list(stream)
    assert len(ahead) == 3
    for rows, batch in zip(parts, ahead, strict=True):
        assert torch.equal(batch, source.batch(rows, view))


def test_results_come_in_order_and_one_is_always_ahead() -> None:
    """While the consumer holds one result, the next one is made, and no further one is."""
    made: list[int] = []
    second = threading.Event()

    def make(item: int) -> int:
        made.append(item)
        if item == 1:
            second.set()
        return item * item

    with closing(preloaded(make, range(5))) as results:
        assert next(results) == 0
        assert second.wait(timeout=10)
        assert made == [0, 1]
        assert list(results) == [1, 4, 9, 16]


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_several_threads_keep_the_order(ahead: int) -> None:
    """However long each result takes, they come in the order of their items."""
    slow = preloaded(lambda item: (time.sleep(0.02 * (item % 3 == 0)), item)[1], range(20), ahead)
    assert list(slow) == list(range(20))


def test_what_goes_wrong_in_the_background_is_raised_in_its_place() -> None:
    """Results before it arrive; then its own exception; and no thread is left."""
    results = preloaded(lambda item: 12 // (2 - item), range(5))
    assert [next(results), next(results)] == [6, 12]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert _ahead_threads() == []


def test_a_consumer_that_fails_ends_the_thread() -> None:
    """An exception in the loop closes the stream: its thread is gone, and what was not started is never made."""
    made: list[int] = []

    def consume() -> None:
        with closing(preloaded(lambda item: made.append(item), range(100))) as results:
            for _ in results:
                raise RuntimeError("the loss is not finite")

    with pytest.raises(RuntimeError, match="the loss"):
        consume()
    assert _ahead_threads() == []
    assert len(made) <= 2


def test_threads_of_the_computation_are_left_as_they_were() -> None:
    """The background thread computes on one core; neither its consumer nor threads to come are slowed by that."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        seen = list(preloaded(lambda _: torch.get_num_threads(), range(3)))
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (seen, torch.get_num_threads(), later) == ([1, 1, 1], 2, [2])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_a_network_that_lacks_memory_answers_fewer_images_at_a_time(error: Exception) -> None:
    """Half as many and half of that, from then on, until it suffices: every image is answered once and in order."""
    source, most, asked = _source(70, side=112), answering_batch(torch.device("cpu"), 112), list[int]()

    def network(images: torch.Tensor) -> torch.Tensor:
        asked.append(len(images))
        if len(images) > 9:
            raise error
        return images.mean((1, 2, 3))

    rows = np.arange(70)[::-1].copy()
    with closing(source.through(network, rows, "fp32")) as answers:
        found = torch.cat(list(answers))
    torch.testing.assert_close(found, source.batch(rows).mean((1, 2, 3)))
    assert [count for count in asked if count > 9] == [count for count in (most, most // 2, most // 4) if count > 9]


@pytest.mark.parametrize(("error", "tries"), [(torch.OutOfMemoryError("CUDA out of memory."), 6), (ValueError("?"), 1)])
def test_what_fewer_images_do_not_mend_is_raised(error: Exception, tries: int) -> None:
    """Where not even one image can be answered, and at once where something else is wrong."""
    source, asked, threads = _source(32, side=112), list[int](), torch.get_num_threads()

    def network(images: torch.Tensor) -> None:
        asked.append(len(images))
        raise error

    torch.set_num_threads(1)
    try:
        with pytest.raises(type(error)), closing(source.through(network, np.arange(32), "fp32")) as answers:
            next(answers)
    finally:
        torch.set_num_threads(threads)
    assert len(asked) == tries
    assert asked[-1] == (1 if tries > 1 else 32)
