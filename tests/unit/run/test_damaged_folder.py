"""Damaged files in a sweep's folder: every command answers in a line, and one sweep hides no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import run_study, study_spec

from sweeps.cli.exits import DONE, MISTAKE
from sweeps.spec.sweep_file import SWEEP, write_file
from sweeps.study.journal import JOURNAL
from sweeps.study.study import Study

COMMANDS = ("status mine", "runs", "resume mine --dry-run", "gc --dry-run", "stop mine", "status mine --json")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with two sweeps of three trials."""
    out = tmp_path_factory.mktemp("whole")
    for name in ("mine", "other"):
        spec = study_spec(name=name, trials=3)
        write_file(out / name, "sweep", None, [spec])
        with Study.open(out / name, spec) as study:
            run_study(study, lambda asked: {"val_accuracy": asked.config.dropout})
    return out


def change(content: bytes) -> bytes:
    """Change a letter in the middle of a word that stays one."""
    middle = content.index(b"cross_entropy") + 6
    return content[:middle] + b"X" + content[middle + 1 :]


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "begun with bytes that are no text": lambda content: b"\xff\xfe\x00" + content[3:],
    "of zeros": lambda content: bytes(len(content)),
    "empty": lambda _: b"",
    "changed": change,
}


@pytest.mark.parametrize(
    ("file", "how"), [(file, how) for file in (SWEEP, JOURNAL) for how in SPOILT if (file, how) != (SWEEP, "changed")]
)
def test_commands_answer_in_a_line(whole: Path, tmp_path: Path, run: Run, file: str, how: str) -> None:
    """Either the damage does not matter to a command, or it names the file and exits with 2; nothing is a bug."""
    out = Path(shutil.copytree(whole, tmp_path / "runs"))
    path = out / "mine" / file
    path.write_bytes(SPOILT[how](path.read_bytes()))
    for command in COMMANDS:
        code, told, error = run(*command.split())
        assert code in (DONE, MISTAKE), error
        if code == MISTAKE:
            assert error.count("\n") == 1
            assert file in error
            assert not command.startswith("runs")
        elif command == "runs":
            assert "other" in told


def test_status_as_json_holds_the_counts(whole: Path, run: Run) -> None:
    """A sweep with trials is one JSON object, whatever its counts are."""
    code, told, _ = run("status", "mine", "--json", "--out", whole)
    (sweep,) = json.loads(told)["sweeps"]
    assert (code, sweep["counts"], sweep["twins"]) == (DONE, {"complete": 3}, [])
