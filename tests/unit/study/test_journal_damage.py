"""A journal that a disk changed: whoever reads it says so in a line, and nobody believes another record."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import zlib
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from helpers import ask, asked_of, study_spec

from carcls.errors import InputError
from carcls.outcome import Measurement
from sweeps.cli.app import carsweep
from sweeps.cli.exits import MISTAKE, run_command
from sweeps.interrupts import interruptible
from sweeps.spec.sweep_file import write_file
from sweeps.study.journal import JOURNAL
from sweeps.study.records import read_history
from sweeps.study.study import Study
from sweeps.trial import TrialRecord

COMMANDS = ("status mine", "status mine --json", "resume mine --dry-run", "gc --dry-run")
spec_of = partial(study_spec, name="mine")


def go_on(folder: Path, trials: int) -> None:
    """Run what is left; the second trial fails, and can be tried again."""
    with Study.open(folder, spec_of(trials=trials)) as study:
        for asked in asked_of(study):
            study.report(asked.number, Measurement(1, {"val_accuracy": asked.config.dropout / 2}))
            if asked.number == 1:
                study.tell_failed(asked.number, "the disk is full", "disk_full")
            else:
                study.tell_complete(asked.number, {"metrics": {"val_accuracy": asked.config.dropout}, "epochs": 10})


def plain(folder: Path) -> list[TrialRecord]:
    """Return what the journal of a folder tells of its trials, but for when they began."""
    return [replace(record, began=0.0) for record in read_history(folder).records]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a sweep of three trials."""
    out = tmp_path_factory.mktemp("runs")
    write_file(out / "mine", "sweep", None, [spec_of(trials=3)])
    go_on(out / "mine", 3)
    return out


@pytest.fixture
def content(runs: Path) -> bytes:
    """Its journal."""
    return (runs / "mine" / JOURNAL).read_bytes()


def flipped(content: bytes, bits: Iterable[int]) -> list[bytes]:
    """Return the bytes with each of the bits the other way round."""
    number, size = int.from_bytes(content), len(content)
    return [(number ^ 1 << bit).to_bytes(size) for bit in bits]


def some_bits(content: bytes, sample: int) -> list[bytes]:
    """Return the bytes with one of ``sample`` bits the other way round."""
    return flipped(content, random.Random(0).sample(range(8 * len(content)), sample))


def moved_lines(content: bytes) -> list[bytes]:
    """Return the journal without each of its lines but the last, with each one doubled, and with each two swapped."""
    lines = content.splitlines(keepends=True)
    pairs = [(i, j) for i in range(len(lines)) for j in range(i)]
    swapped = [[lines[{i: j, j: i}.get(place, place)] for place in range(len(lines))] for i, j in pairs]
    without = [lines[:i] + lines[i + 1 :] for i in range(len(lines) - 1)]
    doubled = [lines[: i + 1] + lines[i:] for i in range(len(lines))]
    return [b"".join(changed) for changed in [*without, *doubled, *swapped]]


def test_every_change_is_told_to_readers_and_drivers(content: bytes, tmp_path: Path) -> None:
    """Of flipped bits, and lost, doubled and swapped lines, none is read, and the message names file and remedy.

    Neither a sweep that is run again nor one that is resumed goes on with it, and the file stays as it is.
    """
    last_line = flipped(content, range(8 * (len(content) - content[:-1].rindex(b"\n") - 1)))
    for place, changed in enumerate([*some_bits(content, 1000), *last_line, *moved_lines(content)]):
        (tmp_path / JOURNAL).write_bytes(changed)
        with pytest.raises(InputError, match=r"damaged one at .*study.journal \(line \d+: .*head -n LINES"):
            read_history(tmp_path)
        if place % 10 < 2:
            with pytest.raises(InputError, match="head -n LINES"):
                Study.open(tmp_path, spec_of(trials=3), edits=None if place % 2 else [])
        assert (tmp_path / JOURNAL).read_bytes() == changed


def test_commands_tell_it_in_a_line(
    runs: Path, content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line with the file and the remedy; a list of all sweeps says it beside the sweep's name."""
    out = Path(shutil.copytree(runs, tmp_path / "runs"))
    for changed in [*some_bits(content, 10), *random.Random(2).sample(moved_lines(content), 10)]:
        (out / "mine" / JOURNAL).write_bytes(changed)
        for command in COMMANDS:
            assert run_command(carsweep, [*command.split(), "--out", str(out)]) == MISTAKE
            (told,) = capfd.readouterr().err.splitlines()
            assert JOURNAL in told
            assert "head -n LINES" in told
        run_command(carsweep, ["runs", "--out", str(out)])
        assert JOURNAL in "".join(capfd.readouterr())


def test_half_a_line_is_cut_off_and_a_whole_one_never(runs: Path, content: bytes, tmp_path: Path) -> None:
    """What a killed writer left has no end; readers leave it alone, the next driver removes it and goes on."""
    before = content[: content[:-1].rindex(b"\n") + 1]
    journal = tmp_path / JOURNAL
    for length in range(1, len(content) - len(before)):
        journal.write_bytes(content[: len(before) + length])
        read_history(tmp_path)
        assert journal.stat().st_size == len(before) + length
    Study.open(tmp_path, spec_of(trials=3)).close()
    assert journal.read_bytes() == before
    go_on(tmp_path, 3)
    assert plain(tmp_path) == plain(runs / "mine")


def test_a_second_ctrl_c_while_a_line_is_written_spoils_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first asks the sweep to stop, the second raises wherever the driver is, but not between line and sum."""
    monkeypatch.setattr("sweeps.interrupts._SAME_SECONDS", -1.0)
    monkeypatch.setattr("sweeps.study.journal.SYNC_SECONDS", 0.0)
    sync = os.fsync

    def interrupted(descriptor: int) -> None:
        sync(descriptor)
        monkeypatch.setattr(os, "fsync", sync)
        signal.raise_signal(signal.SIGINT)

    with Study.open(tmp_path, spec_of(trials=3)) as study, interruptible(lambda: False):
        asked = ask(study)
        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            study.report(asked.number, Measurement(1, {"val_accuracy": 0.5}))
        study.release()
    (record,) = read_history(tmp_path).records
    assert record.epochs == 1


def unchained(content: bytes) -> bytes:
    """Return the journal as carsweep wrote it before sums were chained: each line with a checksum of its own."""
    logs = [{k: v for k, v in json.loads(line).items() if k != "sum"} for line in content.splitlines()]
    texts = [json.dumps(log, separators=(",", ":")) for log in logs]
    return b"".join(f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'.encode() for text in texts)


def test_a_journal_of_an_older_version_goes_on_and_is_chained_from_there(
    runs: Path, content: bytes, tmp_path: Path
) -> None:
    """It tells what it told, changes of its lines are noticed, and so is a line lost where the two kinds meet."""
    old, journal = unchained(content), tmp_path / JOURNAL
    journal.write_bytes(old)
    assert plain(tmp_path) == plain(runs / "mine")
    go_on(tmp_path, 5)
    both = journal.read_bytes()
    assert both.startswith(old)
    assert plain(tmp_path)[:3] == plain(runs / "mine")
    assert [record.status for record in plain(tmp_path)].count("complete") == 4
    rest = both[len(old) :]
    lost = b"".join(old.splitlines(keepends=True)[:-1]) + rest
    for changed in [*some_bits(both, 300), lost, *(old + moved for moved in moved_lines(rest))]:
        journal.write_bytes(changed)
        with pytest.raises(InputError, match="head -n LINES"):
            read_history(tmp_path)
