"""Words that a shell completes: in real shells, and by what carsweep answers them."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweeps.cli.completing import VARIABLE
from sweeps.spec.settings import settings
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import write_file

HEAVY = {"torch", "ray", "mlflow", "optuna", "pandas", "sklearn", "scipy"}
# How a shell is started bare, and what a user has in the file that it reads first.
SHELLS = {
    "bash": (
        ["--norc", "--noprofile", "-i"],
        "bind 'set enable-bracketed-paste off'; eval \"$(carsweep completion bash)\"",
    ),
    "zsh": (["-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(carsweep completion zsh)"'),
    "fish": (["--no-config", "-i"], "carsweep completion fish | source"),
}
HOME = "\x01"  # Ctrl-A
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|\(B)")
TYPED = {
    "carsweep sta": "carsweep status",
    "carsweep run tra": "carsweep run transfer",
    "carsweep list set": "carsweep list settings",
    "carsweep status mi": "carsweep status mine",
    "carsweep reproduce transfer/frozen-": "carsweep reproduce transfer/frozen-augmented",
    "carsweep run transfer --set drop": "carsweep run transfer --set dropout=",
    "carsweep run retrieval --set vote=sof": "carsweep run retrieval --set vote=softmax",
    "carsweep run transfer --set crop=none flip=t": "carsweep run transfer --set crop=none flip=true",
    "carsweep resume mine --set search.dropout.hi": "carsweep resume mine --set search.dropout.high=",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the sweep ``mine``, where ``carsweep`` is on the PATH."""
    write_file(tmp_path / "runs" / "mine", "sweep", None, [SweepSpec(family="transfer")])
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "carsweep"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sweeps.cli "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def terminal_of(shell: str) -> Iterator[int]:
    """Start a shell in a terminal of its own; yield the terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update({"TERM": "xterm", "COLUMNS": "200", "PS1": "$ "})
        os.execvp(shell, [shell, *SHELLS[shell][0]])  # noqa: S606 - what is tested
    try:
        yield terminal
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)


def shown_until(terminal: int, wanted: str, seconds: float = 60.0) -> str:
    """Return what a terminal shows, without its colours, until it matches ``wanted``, or for so long."""
    shown, end = "", time.monotonic() + seconds
    while not re.search(wanted, plain := _ESCAPES.sub("", shown)) and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return plain


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.usefixtures("folder")
def test_a_shell_completes_commands_families_sweeps_settings_and_values(shell: str) -> None:
    """After the line in its start file, Tab ends each word as it is meant, and the line goes on where it should."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    with terminal_of(shell) as terminal:
        os.write(terminal, f"{SHELLS[shell][1]}; echo re''ady\r".encode())
        assert "ready" in shown_until(terminal, "ready")
        for number, (line, completed) in enumerate(TYPED.items()):
            # the line is told by echo, rather than run
            os.write(terminal, f"{line}\tX{HOME}echo {number}: \r".encode())
            said = re.escape(f"{completed}{'' if completed.endswith('=') else ' '}X")
            shown = shown_until(terminal, rf"{number}: .*X\s")
            assert re.search(rf"{number}: {said}", shown), shown


def answer(folder: Path, line: str) -> list[str]:
    """Return the words that carsweep tells bash for a line."""
    words = line.split(" ")
    asked = {VARIABLE: "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-m", "sweeps.cli"]
    done = subprocess.run(command, env={**os.environ, **asked}, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [told.partition(",")[2] for told in done.stdout.split()]


def test_keys_are_those_of_the_family_that_is_run(folder: Path) -> None:
    """Scratch has a depth and no k; a family of the job that is resumed is not known, so all are offered."""
    scratch, resumed = (answer(folder, f"carsweep {words} --set ") for words in ("run scratch", "resume mine"))
    assert {"depth=", "data.margin=", "trials=", "search."} <= {*scratch}
    assert "k=" not in scratch
    assert {f"{path}=" for path, setting in settings().items() if setting.values != "a mapping"} <= {*resumed}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("carsweep run transfer --set crop = ", ["none", "random", "resized"]),
        ("carsweep run transfer --set crop = r", ["random", "resized"]),
        ("carsweep run transfer --set flip=", ["true", "false"]),
        ("carsweep run transfer --set dropout=", ["0.0", "0.5", "0.7"]),
        ("carsweep run transfer --set search.crop=", ["null", "[none,random,resized]"]),
        ("carsweep compare mine ", []),
        ("carsweep list settings ", ["transfer", "retrieval", "scratch"]),
        ("carsweep explain predict", ["predict_time"]),
        ("carsweep run transfer --confi", ["--confirm"]),
        ("carsweep status nothing", []),
    ],
)
def test_words_that_are_offered(line: str, words: list[str], folder: Path) -> None:
    """Bash gives a word in parts at =, and is told the part that follows."""
    assert answer(folder, line) == words


@pytest.mark.parametrize("line", ["carsweep ", "carsweep status ", "carsweep run transfer --set ", "carsweep explain "])
def test_completion_loads_nothing_heavy(line: str, folder: Path) -> None:
    """Torch, Ray, MLflow and the like take seconds; nobody waits so long for a key."""
    asked = {VARIABLE: "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    script = "import sys, sweeps.cli\ntry: sweeps.cli.main()\nfinally: print('LOADED', *sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, **asked}, cwd=folder, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.rpartition("LOADED")[2].split()}
    assert done.stdout
    assert HEAVY & loaded == set()
    assert ("pydantic" in loaded) == ("set" in line or "explain" in line)
