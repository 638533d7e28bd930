"""Damaged files in a sweep's folder: every command answers in a line, and one sweep hides no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.cli.app import carsweep
from sweeps.cli.exits import DONE, MISTAKE, run_command
from sweeps.spec.space import Range
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import SWEEP, write_file
from sweeps.study.journal import JOURNAL
from sweeps.study.study import Study

COMMANDS = ("status mine", "runs", "resume mine --dry-run", "gc --dry-run", "stop mine", "status mine --json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with two sweeps of three trials."""
    out = tmp_path_factory.mktemp("whole")
    for name in ("mine", "other"):
        spec = SweepSpec.model_validate(
            {"family": "transfer", "name": name, "trials": 3, "search": {"dropout": Range(0.0, 0.5)}}
        )
        write_file(out / name, "sweep", None, [spec])
        with Study.open(out / name, spec) as study:
            while (asked := study.ask()) is not None:
                study.tell_complete(asked.number, {"val_accuracy": asked.config.dropout}, 1, 1.0, {})
    return out


def cut(content: bytes) -> bytes:
    """Lose the second half."""
    return content[: len(content) // 2]


def blot(content: bytes) -> bytes:
    """Begin with bytes that are no text."""
    return b"\xff\xfe\x00" + content[3:]


def blank(content: bytes) -> bytes:
    """Keep the length only."""
    return bytes(len(content))


def change(content: bytes) -> bytes:
    """Change a letter in the middle of a word that stays one."""
    middle = content.index(b"cross_entropy") + 6
    return content[:middle] + b"X" + content[middle + 1 :]


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        *((file, spoil) for file in (SWEEP, JOURNAL) for spoil in (cut, blot, blank, lambda _: b"")),
        (JOURNAL, change),
    ],
)
def test_commands_answer_in_a_line(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], file: str, spoil: Callable[[bytes], bytes]
) -> None:
    """Either the damage does not matter to a command, or it names the file and exits with 2; nothing is a bug."""
    out = Path(shutil.copytree(whole, tmp_path / "runs"))
    path = out / "mine" / file
    path.write_bytes(spoil(path.read_bytes()))
    for command in COMMANDS:
        code = run_command(carsweep, [*command.split(), "--out", str(out)])
        said = capfd.readouterr()
        assert code in (DONE, MISTAKE), said.err
        if code == MISTAKE:
            told = said.err.splitlines()
            assert len(told) == 1
            assert file in told[0]
            assert not command.startswith("runs")
        elif command == "runs":
            assert "other" in said.out


def test_status_as_json_holds_the_counts(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A sweep with trials is one JSON object, whatever its counts are."""
    assert run_command(carsweep, ["status", "mine", "--json", "--out", str(whole)]) == DONE
    (sweep,) = json.loads(capfd.readouterr().out)["sweeps"]
    assert (sweep["counts"], sweep["twins"]) == ({"complete": 3}, [])
