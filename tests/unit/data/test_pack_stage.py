"""A pack is made once, whole or not at all, on any number of threads."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from helpers import events_of
from numpy.typing import NDArray
from PIL import Image

from carcls.data.decode import read_square
from carcls.data.index import Copies
from carcls.data.layouts import read_layout
from carcls.data.manifest import Manifest
from carcls.data.pack import _VERSION, PIXELS, get_index, get_pack
from carcls.errors import OutputError
from carcls.stages import StageStore

MANY = 240


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a manifest of 240 noisy pictures in two classes, 2 of them empty files."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("many")
    for number in range(MANY):
        path = root / f"class{number % 2}" / f"{number:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        noise = rng.integers(0, 255, size=(6, 9, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((90, 60)).save(path)
        if number % 100 == 50:
            path.write_bytes(b"")
    return read_layout(root).with_contents()


def pixels_of(pack: Path) -> NDArray[np.uint8]:
    """Return the pixels of a pack."""
    return np.load(pack / PIXELS, mmap_mode="r")


def making_leftovers(store: StageStore) -> list[str]:
    """Return what a maker left in the packs' folder, locks aside."""
    return [path.name for path in store.root.glob("pack/*") if path.suffix != ".lock"]


def test_rows_of_the_pack_are_the_images_of_the_manifest(many: Manifest, tmp_path: Path) -> None:
    """Row i is image i as read alone; unreadable rows are zeros, no copies of each other, and have their reason."""
    pack = get_pack(many, 0.0, 24, StageStore(tmp_path), workers=2)
    pixels = pixels_of(pack)
    assert (pixels.shape, pixels.dtype) == ((MANY, 24, 24, 3), np.uint8)
    for row in (0, 7, 133, MANY - 1):
        assert np.array_equal(pixels[row], read_square(many.root / many.images[row].path, 24))
    empty = [row for row, image in enumerate(many.images) if (many.root / image.path).stat().st_size == 0]
    index = get_index(many, 0.0, pack, StageStore(tmp_path))
    assert index.broken == tuple((row, "the file is empty") for row in empty)
    assert not pixels[empty].any()
    assert not np.isin(index.copies.pairs, empty).any()


def test_neither_threads_nor_the_size_show_in_what_is_found(many: Manifest, tmp_path: Path) -> None:
    """One thread and three make the same pack; whichever size is packed first, copies are the same."""
    packs, found = [], []
    for size, workers in ((16, 1), (16, 3), (40, 2)):
        store = StageStore(tmp_path / f"{size}-{workers}")
        packs.append(get_pack(many, 0.0, size, store, workers=workers))
        found.append(get_index(many, 0.0, packs[-1], store).copies)
    assert np.array_equal(pixels_of(packs[0]), pixels_of(packs[1]))
    assert all(np.array_equal(found[0].pairs, other.pairs) for other in found[1:])
    assert not list(tmp_path.rglob("thumbnails.npy"))


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
        for file in (PIXELS, "copies.npy", "index.json"):
            assert (pack / file).read_bytes() == (reference / file).read_bytes()


def test_copies_are_looked_for_once(many: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another size that is decoded later has the copies that the first one found."""
    store = StageStore(tmp_path)
    index = get_index(many, 0.0, get_pack(many, 0.0, 16, store), store)
    monkeypatch.setattr("carcls.data.pack.find_copies", lambda *_: pytest.fail("looked for again"))
    later = get_pack(many, 0.0, 24, store)
    assert np.array_equal(Copies.load(later / "copies.npy").pairs, index.copies.pairs)


def test_a_size_that_another_process_makes_is_left_to_it(many: Manifest, tmp_path: Path) -> None:
    """Neither does this one wait for it, nor are the others kept back."""
    store = StageStore(tmp_path)
    other = store.folder("pack", {"manifest": many.digest, "margin": 0.0, "size": 24, "version": _VERSION})
    other.parent.mkdir(parents=True)
    with FileLock(f"{other}.lock"):
        made = get_pack(many, 0.0, 16, store, also=[24, 40])
    assert pixels_of(made).shape[1] == 16
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


def test_progress_rises_to_the_number_of_images(many: Manifest, tmp_path: Path) -> None:
    """The bar starts at nothing, never falls and ends full."""
    seen: list[tuple[int, int]] = []
    get_pack(many, 0.0, 16, StageStore(tmp_path), progress=lambda *counts: seen.append(counts), workers=2)
    assert (seen[0], seen[-1]) == ((0, MANY), (MANY, MANY))
    assert seen == sorted(seen)


KILLED_HALFWAY = """
import os, signal, sys
from pathlib import Path
from carcls.data.layouts import read_layout
from carcls.data.pack import get_pack
from carcls.stages import StageStore

die = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done else None
get_pack(read_layout(Path(sys.argv[1])).with_contents(), 0.0, 16, StageStore(sys.argv[2]), progress=die, workers=2)
"""


def test_killed_maker_leaves_no_stage(many: Manifest, tmp_path: Path) -> None:
    """After kill -9 there is no pack, and the next call makes it whole."""
    command, store = [sys.executable, "-c", KILLED_HALFWAY, str(many.root), str(tmp_path)], StageStore(tmp_path)
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list(store.root.glob("pack/*/key.json"))
    pack = get_pack(many, 0.0, 16, store)
    assert np.array_equal(pixels_of(pack)[-1], read_square(many.root / many.images[-1].path, 16))
    assert making_leftovers(store) == [pack.name]


def test_full_disk_is_found_before_decoding(many: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that cannot fit is refused with the room it needs, and leaves nothing."""
    monkeypatch.setattr("carcls.data.pack.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    store = StageStore(tmp_path)
    with pytest.raises(OutputError, match="GiB free for decoded images"):
        get_pack(many, 0.0, 64, store)
    assert making_leftovers(store) == []
