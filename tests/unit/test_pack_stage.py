"""A pack is made once, whole or not at all, on any number of threads."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from helpers import events_of
from PIL import Image

from carcls.data.decode import read_square
from carcls.data.manifest import Manifest
from carcls.data.pack import get_index, get_pack
from carcls.data.stanford import read_manifest
from carcls.errors import OutputError
from carcls.stages import StageStore

MANY = 240


def write_images(root: Path, count: int) -> Manifest:
    """Write noisy pictures in two classes; one file in each hundred is empty."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = root / f"class{number % 2}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 100 == 50:
            path.write_bytes(b"")
        else:
            noise = rng.integers(0, 255, size=(6, 9, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((90, 60)).save(path)
    return read_manifest(root)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a manifest of 240 images, 2 of them empty files."""
    return write_images(tmp_path_factory.mktemp("many"), MANY)


def making_leftovers(store: StageStore) -> list[str]:
    """Return what a maker left in the packs' folder, locks aside."""
    return [path.name for path in store.root.glob("pack/*") if path.suffix != ".lock"]


def test_rows_of_the_pack_are_the_images_of_the_manifest(many: Manifest, tmp_path: Path) -> None:
    """Row i is image i as read alone; unreadable rows are zeros; the map is read-only."""
    pack = get_pack(many, 0.0, 24, StageStore(tmp_path), workers=2)
    assert pack.pixels.shape == (MANY, 24, 24, 3)
    assert pack.pixels.dtype == np.uint8
    assert not pack.pixels.flags.writeable
    for row in (0, 7, 133, MANY - 1):
        assert np.array_equal(pack.pixels[row], read_square(many.root / many.images[row].path, 24))
    empty = [row for row, image in enumerate(many.images) if (many.root / image.path).stat().st_size == 0]
    index = get_index(many, 0.0, pack, StageStore(tmp_path))
    assert index.broken == tuple((row, "the file is empty") for row in empty)
    assert not pack.pixels[empty].any()


def test_one_thread_and_several_make_the_same_pack(many: Manifest, tmp_path: Path) -> None:
    """How many workers decode shows nowhere in the result."""
    stores = [StageStore(tmp_path / name) for name in ("alone", "pool")]
    packs = [get_pack(many, 0.0, 16, store, workers=workers) for store, workers in zip(stores, (1, 3), strict=True)]
    assert np.array_equal(packs[0].pixels, packs[1].pixels)
    indexes = [get_index(many, 0.0, pack, store) for pack, store in zip(packs, stores, strict=True)]
    assert np.array_equal(indexes[0].fingerprints, indexes[1].fingerprints)


def test_fingerprints_do_not_depend_on_the_size(many: Manifest, tmp_path: Path) -> None:
    """Whichever size is packed first, the same images count as near-duplicates."""
    indexes = []
    for size in (16, 40):
        store = StageStore(tmp_path / str(size))
        indexes.append(get_index(many, 0.0, get_pack(many, 0.0, size, store), store))
    assert np.array_equal(indexes[0].fingerprints, indexes[1].fingerprints)


def test_second_call_decodes_nothing(many: Manifest, tmp_path: Path) -> None:
    """The same manifest, margin and size are answered from the store; another size is decoded."""
    store = StageStore(tmp_path)
    calls: list[tuple[int, int]] = []
    get_pack(many, 0.0, 16, store)
    get_pack(many, 0.0, 16, store, progress=lambda *counts: calls.append(counts))
    get_pack(many, 0.0, 20, store)
    assert not calls
    assert [event.event for event in events_of(store)] == ["made", "reused", "made"]


def test_all_wanted_sizes_are_decoded_in_one_pass(many: Manifest, tmp_path: Path) -> None:
    """The packs are those of each size alone; a size that is there is not made again; nobody decodes later."""
    store, alone = StageStore(tmp_path / "together"), StageStore(tmp_path / "alone")
    get_pack(many, 0.0, 16, store)
    seen: list[tuple[int, int]] = []
    get_pack(many, 0.0, 24, store, also=[16, 40], progress=lambda *counts: seen.append(counts), workers=2)
    assert seen.count((MANY, MANY)) == 1
    assert [event.event for event in events_of(store) if event.event == "made"] == ["made"] * 3
    for size in (16, 24, 40):
        pack = get_pack(many, 0.0, size, store, progress=lambda *_: pytest.fail("decoded again"))
        reference = get_pack(many, 0.0, size, alone)
        assert np.array_equal(pack.pixels, reference.pixels)
        for file in ("fingerprints.npy", "index.json"):
            assert (pack.folder / file).read_bytes() == (reference.folder / file).read_bytes()


def test_a_size_that_another_process_makes_is_left_to_it(many: Manifest, tmp_path: Path) -> None:
    """Neither does this one wait for it, nor are the others kept back."""
    store = StageStore(tmp_path)
    other = store.folder("pack", {"manifest": many.digest, "margin": 0.0, "size": 24, "version": 1})
    other.parent.mkdir(parents=True)
    with FileLock(f"{other}.lock"):
        made = get_pack(many, 0.0, 16, store, also=[24, 40])
    assert made.size == 16
    assert sum(event.event == "made" for event in events_of(store)) == 2
    assert not other.exists()


@pytest.mark.parametrize("also", [[], [24]])
def test_interrupting_leaves_nothing(many: Manifest, tmp_path: Path, also: list[int]) -> None:
    """Ctrl-C while one or several sizes are decoded removes all of them, and ends the threads."""

    def interrupt(done: int, total: int) -> None:
        if 0 < done < total:
            raise KeyboardInterrupt

    store, before = StageStore(tmp_path), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        get_pack(many, 0.0, 16, store, also=also, progress=interrupt, workers=2)
    assert making_leftovers(store) == []
    assert threading.active_count() == before


@pytest.mark.parametrize("count", [60, MANY])
def test_progress_rises_to_the_number_of_images(tmp_path: Path, count: int) -> None:
    """The bar starts at nothing, never falls and ends full, of few images and of many."""
    seen: list[tuple[int, int]] = []
    manifest = write_images(tmp_path / "data", count)
    get_pack(
        manifest,
        0.0,
        16,
        StageStore(tmp_path / "s"),
        progress=lambda done, total: seen.append((done, total)),
        workers=2,
    )
    assert seen[0] == (0, count)
    assert seen[-1] == (count, count)
    assert seen == sorted(seen)


KILLED_HALFWAY = """
import os, signal, sys
from pathlib import Path
from carcls.data.pack import get_pack
from carcls.data.stanford import read_manifest
from carcls.stages import StageStore

def die(done, total):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)

get_pack(read_manifest(Path(sys.argv[1])), 0.0, 16, StageStore(Path(sys.argv[2])), progress=die, workers=2)
"""


def test_killed_maker_leaves_no_stage(many: Manifest, tmp_path: Path) -> None:
    """After kill -9 there is no pack, and the next call makes it whole."""
    store = StageStore(tmp_path)
    command = [sys.executable, "-c", KILLED_HALFWAY, str(many.root), str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list(store.root.glob("pack/*/key.json"))
    pack = get_pack(many, 0.0, 16, store)
    assert np.array_equal(pack.pixels[-1], read_square(many.root / many.images[-1].path, 16))
    assert making_leftovers(store) == [pack.folder.name]


def test_full_disk_is_found_before_decoding(many: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that cannot fit is refused with the room it needs, and leaves nothing."""
    monkeypatch.setattr("carcls.data.pack.shutil.disk_usage", lambda _: _Usage())
    store = StageStore(tmp_path)
    with pytest.raises(OutputError, match="GiB free for decoded images"):
        get_pack(many, 0.0, 64, store)
    assert making_leftovers(store) == []


class _Usage:
    free = 1000
