"""The store of stages: made once, complete or absent, one maker at a time, unfinished work kept when asked."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import events_of

from carcls.stages import StageStore, seconds_of, write_json
from carcls.stages_disk import list_store

KEY = {"data": "abc", "size": 64}


def _write(folder: Path, text: str = "made") -> None:
    (folder / "content").write_text(text)


def _slow_maker(root: Path) -> None:
    def make(folder: Path) -> None:
        with (root / "makers").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        _write(folder)

    StageStore(root).get_or_make("slow", KEY, make)


def _endless_maker(root: Path) -> None:
    def make(folder: Path) -> None:
        _write(folder, "half")
        (root / "at work").touch()
        time.sleep(60)

    StageStore(root).get_or_make("endless", KEY, make, keep=True)


def _started(maker: Callable[[Path], None], root: Path) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=maker, args=(root,))
    process.start()
    return process


def _at_work(maker: Callable[[Path], None], root: Path) -> BaseProcess:
    """Return a process that makes a stage and will not get done."""
    process = _started(maker, root)
    while not (root / "at work").exists():
        assert process.exitcode is None
        time.sleep(0.02)
    return process


def test_a_stage_is_made_once_and_then_found(tmp_path: Path) -> None:
    """The second question is answered from the store, and the log says so; another key or kind is another stage."""
    store = StageStore(tmp_path)
    first = store.get_or_make("kind", KEY, _write)
    second = store.get_or_make("kind", dict(reversed(KEY.items())), lambda _: pytest.fail("made again"))
    assert first == second
    assert (second / "content").read_text() == "made"
    assert [event.event for event in events_of(store)] == ["made", "reused"]
    assert (
        len({first, store.get_or_make("kind", {**KEY, "size": 65}, _write), store.get_or_make("o", KEY, _write)}) == 3
    )


def test_what_another_is_making_can_be_left_to_it(tmp_path: Path) -> None:
    """Whoever has something else to do does not wait; once nobody is at it, the same question makes it."""
    store = StageStore(tmp_path)
    final = store.folder("kind", KEY)
    final.parent.mkdir()
    with FileLock(f"{final}.lock"):
        assert not store.make_if_free("kind", KEY, lambda _: pytest.fail("two makers"))
    assert store.make_if_free("kind", KEY, _write)
    assert store.make_if_free("kind", KEY, lambda _: pytest.fail("made again"))
    store.forget("kind", KEY)
    store.forget("kind", KEY)
    assert not list(final.parent.glob("*[!k]"))
    assert store.make_if_free("kind", KEY, _write)


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """After an error there is no stage, no half of one, and the next maker starts afresh."""
    store = StageStore(tmp_path)

    def fail(folder: Path) -> None:
        _write(folder, "half")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        store.get_or_make("kind", KEY, fail)
    assert not store.has("kind", KEY)
    folder = store.get_or_make("kind", KEY, lambda work: _write(work, str(len(list(work.iterdir())))))
    assert (folder / "content").read_text() == "0"


def test_unfinished_work_is_found_by_the_next_maker(tmp_path: Path) -> None:
    """A resumable maker that died by kill -9 leaves its folder to the next, and its lock to nobody."""
    maker = _at_work(_endless_maker, tmp_path)
    maker.kill()
    maker.join()
    store, found = StageStore(tmp_path), list[str]()
    assert not store.has("endless", KEY)
    folder = store.get_or_make("endless", KEY, lambda work: found.append((work / "content").read_text()), keep=True)
    assert found == ["half"]
    assert store.has("endless", KEY)
    assert (folder / "content").exists()


def test_processes_that_ask_together_make_it_once(tmp_path: Path) -> None:
    """Of three processes that want the same stage, one makes it and the others wait and find it."""
    processes = [_started(_slow_maker, tmp_path) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len((tmp_path / "makers").read_text().splitlines()) == 1
    assert sorted(event.event for event in events_of(StageStore(tmp_path))) == ["made", "reused", "reused"]


def test_what_links_lead_to_is_not_of_the_store(tmp_path: Path) -> None:
    """Whoever makes room by what the store lists finds no folder of somebody else in it."""
    for folder in ("theirs/work", "store/kind/made"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "store" / "linked").symlink_to(tmp_path / "theirs")
    (tmp_path / "store" / "kind" / "linked").symlink_to(tmp_path / "theirs" / "work")
    assert [stored.name for stored in list_store(tmp_path / "store")] == ["kind/made"]


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A value that cannot be written leaves the file that was there."""
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n "a": 1\n}'


def test_what_was_used_is_told_once_with_what_finding_it_saved(tmp_path: Path) -> None:
    """Whoever made a stage saves nothing by finding it; another finds it often, and saves its making once."""

    def make(folder: Path) -> None:
        time.sleep(0.2)
        _write(folder)

    maker, finder = StageStore(tmp_path), StageStore(tmp_path)
    for store in (maker, maker, finder, finder):
        store.get_or_make("kind", KEY, make)
    folder = maker.folder("kind", KEY)
    assert maker.take_used() == {f"kind/{folder.name}": None}
    assert finder.take_used() == {f"kind/{folder.name}": seconds_of(folder)}
    assert 0.2 <= seconds_of(folder) < 5
    assert finder.take_used() == {}
    for store in (maker, finder):
        store.get_or_make("other", KEY, _write)
    for store in (maker, finder):
        store.forget("other", KEY)
        assert store.take_used() == {}


def _two_deep(root: Path) -> None:
    """Make a stage that is made of another one; the first to come says so, and never gets done."""
    store = StageStore(root)

    def lower(folder: Path) -> None:
        try:
            (root / "at work").touch(exist_ok=False)
        except FileExistsError:
            _write(folder)
        else:
            time.sleep(60)

    def upper(folder: Path) -> None:
        _write(folder, (store.get_or_make("lower", KEY, lower) / "content").read_text())

    store.get_or_make("upper", KEY, upper)
    with (root / "done").open("a") as file:
        file.write("x")


def test_when_all_wait_and_the_maker_is_killed_the_next_one_makes_it(tmp_path: Path) -> None:
    """Three wait for a stage whose maker hangs two stages deep; its claim ends with it, and one of them takes over."""
    first = _at_work(_two_deep, tmp_path)
    waiting = [_started(_two_deep, tmp_path) for _ in range(3)]
    time.sleep(1.0)
    assert not (tmp_path / "done").exists()
    first.kill()
    for process in waiting:
        process.join(30)
    assert [process.exitcode for process in waiting] == [0, 0, 0]
    assert (tmp_path / "done").read_text() == "xxx"
    assert sorted(event.event for event in events_of(StageStore(tmp_path))) == ["made", "made", "reused", "reused"]
