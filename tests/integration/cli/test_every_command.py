"""Every command as people type it: through the entry point, in a process of its own, wherever its words go to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from helpers import commands_of, draw_pictures, export_with_gallery, free_port

from sweeps.cli.app import carsweep as root

ENTRY = Path(sys.executable).parent / "carsweep"
FAST = [
    *("--data", "pictures", "--name", "mine", "--trials", "1"),
    *("--set", "backbone=efficientnet_lite0", "image_size=32", "epochs=1", "experiments=[]", "unfreezing=frozen"),
]
# Of a locale that has none of the signs, a narrow terminal, and a container without a home.
POOR = {"PYTHONIOENCODING": "ascii", "COLUMNS": "40", "HOME": None}
LATIN = {"PYTHONIOENCODING": "latin-1"}
Environment = Mapping[str, str | None]


@dataclass(frozen=True)
class Case:
    """What people do with a command.

    Attributes:
        typical: words that end well beside the finished sweep ``mine``.
        mistake: words that do not.
        json: whether it takes ``--json``.
        looks: whether it only looks at a folder of runs.
    """

    typical: list[str]
    mistake: list[str]
    json: bool = True
    looks: bool = False


# Weights that are here: a plan is refused as its run would be.
PLAN = ["--data", "pictures", "--dry-run", "--set", "backbone=efficientnet_lite0"]
CASES = {
    "data": Case(["pictures", "--no-labels", "--set", "image_size=32"], ["nowhere"]),
    # A finished sweep is answered from its files: the whole screen of a sweep's end, without trials.
    "run transfer": Case(FAST, ["--trials", "0"]),
    "run retrieval": Case(PLAN, ["--set", "k=x"]),
    "run scratch": Case(["--data", "pictures", "--dry-run"], ["--set", "k=3"]),
    "run all": Case(PLAN, ["--data", "nowhere"]),
    "reproduce": Case(PLAN, ["transfer/finetund"]),
    "resume": Case(["mine"], ["mien"]),
    "stop": Case(["mine"], ["mien"], json=False),
    "finish": Case(["mine"], ["mien"]),
    "status": Case(["mine"], ["mien"], looks=True),
    "runs": Case([], ["mine"], looks=True),
    "compare": Case(["mine", "--top", "3"], ["mien"], looks=True),
    "diff": Case(["mine", "mine"], ["mine", "mien"], looks=True),
    "report": Case(["mine"], ["mien"]),
    "explain": Case(["dropout"], ["dropuot"]),
    "completion": Case(["bash"], ["tcsh"], json=False),
    "predict": Case(["transfer", "pictures/test"], ["transfer", "nowhere"]),
    "similar": Case(["pictures/test", "--model", "kept"], ["nowhere"]),
    "export": Case(["given", "--to", "safetensors", "--model", "kept"], ["pictures", "--to", "pt2"]),
    "promote": Case(["transfer", "--dry-run"], ["transfr"]),
    "history": Case(["transfer"], ["transfr"], looks=True),
    "rollback": Case(["transfer", "--to", "1"], ["transfr"]),
    "gc": Case(["--disk", "1GB"], ["--keep", "2"]),
    "delete": Case(["mine", "--dry-run"], ["mien"]),
    "tracking repair": Case(["mine"], ["mien"]),
    "list": Case(["experiments"], ["experiment"], json=False, looks=True),
}

# Where their words go, commands are alike: each in its typical use, some as JSON, one for its help.
PRINTED = [
    *((words, []) for words in CASES),
    *((words, ["--json"]) for words in ("run transfer", "run all", "status", "compare", "gc")),
    ("run transfer", ["--help"]),
]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures and ``runs``, where a sweep was run in the poorest surroundings there are."""
    folder = tmp_path_factory.mktemp("every command")
    export_with_gallery(folder / "kept", draw_pictures(folder / "pictures", classes=3))
    done = carsweep(folder, "run", "transfer", *FAST, environment=POOR)
    assert done.returncode == 0, done.stderr
    assert_quiet(done.stdout + done.stderr)
    assert "Registered as carsweep-transfer, version 1" in done.stdout
    return folder


def carsweep(
    folder: Path,
    *words: str,
    environment: Environment = {},  # noqa: B006
    through: Sequence[str] = (),
    stdout: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, perhaps through another; an environment's None takes a name away."""
    whole = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run(
        [*through, str(ENTRY), *words],
        cwd=folder,
        env=whole,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
        timeout=300,
    )


def assert_quiet(text: str) -> None:
    """Nothing in what was printed is a library's cry."""
    for cry in ("Traceback", "Exception ignored", "UnicodeEncodeError", "internal error", "Error:"):
        assert cry not in text


def test_no_command_is_left_out() -> None:
    """A new command gets its case here; ``ui`` has tests of its own."""
    assert {words for words, _ in commands_of(root)} == {*CASES, "ui", "serve"}


@pytest.mark.parametrize("words", CASES)
def test_a_typical_use_ends_well_whatever_can_be_shown(words: str, place: Path) -> None:
    """In ASCII and Latin-1, at 40 columns and without a home nothing is cut short, and no library cries; so is help."""
    case = CASES[words]
    for environment in (POOR, LATIN):
        done = carsweep(place, *words.split(), *case.typical, environment=environment)
        assert done.returncode == 0, done.stderr
        assert_quiet(done.stdout + done.stderr)
        assert done.stdout
    shown = carsweep(place, *words.split(), "--help", environment=POOR)
    assert (shown.returncode, shown.stderr, shown.stdout.startswith(f"Usage: carsweep {words}")) == (0, "", True)


@pytest.mark.parametrize("words", CASES)
def test_a_mistake_is_one_line_and_json_is_one_object(words: str, place: Path) -> None:
    """A mistake is told on stderr in one line that begins with the program's name; --json gives one object anyway."""
    case = CASES[words]
    for given, code in ((case.typical, 0), (case.mistake, 2)):
        done = carsweep(place, *words.split(), *given, *(["--json"] if case.json else []))
        assert done.returncode == code, done.stderr
        if case.json:
            assert isinstance(json.loads(done.stdout), dict)
        assert_quiet(done.stderr)
        if given is case.mistake:
            assert case.json or not done.stdout
            assert done.stderr.startswith("carsweep: ")
            assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("where", ["a reader that has gone", "a full disk"])
@pytest.mark.parametrize(("words", "more"), PRINTED, ids=str)
def test_what_cannot_be_printed_is_no_traceback(words: str, more: list[str], where: str, place: Path) -> None:
    """It is told on stderr in one line, with where a result is kept; a list that ``head`` has cut short in none."""
    if where == "a full disk":
        if not Path("/dev/full").exists():
            pytest.skip("the system has no /dev/full")
        writer = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, writer = os.pipe()
        os.close(reader)
    done = carsweep(place, *words.split(), *CASES[words].typical, *more, stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    assert_quiet(done.stderr)
    told = [line for line in done.stderr.splitlines() if line.startswith("carsweep: ")]
    is_result = words in ("run transfer", "resume", "finish") and "--help" not in more
    assert len(told) == (1 if is_result or where == "a full disk" else 0)
    if told:
        assert ("No space left on device" if where == "a full disk" else "Broken pipe") in told[0]
    if is_result:
        assert "kept in runs/mine" in told[0]
        assert told[0].endswith("finish mine" if words == "finish" else "resume mine")


def test_a_closed_stdout_and_a_full_stderr_cost_no_result(place: Path) -> None:
    """What tells of progress may go nowhere; a stdout that was never there is told as one that is full."""
    closed = carsweep(place, "resume", "mine", through=("sh", "-c", '"$0" "$@" >&-'))
    assert closed.returncode == 1
    assert "stdout cannot be written (Bad file descriptor). The result is kept" in closed.stderr
    for where in ("2>&-", "2>/dev/full"):
        quiet = carsweep(place, "resume", "mine", through=("sh", "-c", f'"$0" "$@" {where}'))
        assert quiet.returncode == 0
        assert "Registered as carsweep-transfer" in quiet.stdout


@pytest.mark.parametrize("words", [words for words, case in CASES.items() if case.looks])
def test_who_only_looks_needs_no_right_to_write(words: str, place: Path) -> None:
    """On a folder that is mounted read-only, commands that only look answer as they do elsewhere."""
    mount = "mount --bind runs runs && mount -o remount,ro,bind runs && ! touch runs/new 2>/dev/null"
    inside = ("unshare", "-m", "sh", "-c")
    if subprocess.run([*inside, mount], cwd=place, capture_output=True, check=False).returncode:
        pytest.skip("no folder can be mounted read-only here: that needs root")
    command, wide = [*words.split(), *CASES[words].typical], {"COLUMNS": "100"}
    done = carsweep(place, *command, environment=wide, through=(*inside, f'{mount} && "$0" "$@"'))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == carsweep(place, *command, environment=wide).stdout


@pytest.mark.parametrize(
    "words",
    [
        ["run", "transfer", "--data", "pictures", "--tracking-uri", "http://ann:pa55word@127.0.0.1:9"],
        ["run", "transfer", "--data", "pictures", "--tracking-uri", "nosql://ann:pa55word@127.0.0.1:9"],
        ["run", "transfer", "--data", "pictures", "--address", "http://ann:pa55word@127.0.0.1:9"],
        ["run", "transfer", "--data", "pictures", "--weights", "http://ann:pa55word@127.0.0.1:9/w.pth"],
        ["resume", "mine", "--tracking-uri", "http://ann:pa55word@127.0.0.1:9"],
        ["promote", "transfer", "--tracking-uri", "postgresql://ann:pa55word@127.0.0.1:9/runs"],
        ["ui", "--tracking-uri", "http://ann:pa55word@127.0.0.1:9"],
        ["ui", "--tracking-uri", "http://127.0.0.1:9/?token=pa55word"],
    ],
    ids=" ".join,
)
def test_a_password_in_an_address_is_never_shown(words: list[str], place: Path, tmp_path: Path) -> None:
    """Neither stdout, stderr, nor a file that the command leaves has the password."""
    shutil.copytree(place, tmp_path / "copy")
    done = carsweep(tmp_path / "copy", *words, environment={"CARSWEEP_DEBUG": "1"})
    assert "pa55word" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    kept = [path for path in (tmp_path / "copy").rglob("*") if path.is_file() and b"pa55word" in path.read_bytes()]
    assert kept == []


def test_the_lines_after_next_can_be_pasted(place: Path) -> None:
    """A shell takes each as it stands: the model answers for an image, its runs are shown, and it is promoted."""
    shown = carsweep(place, "resume", "mine").stdout
    lines = shown[shown.index("Next:") :].splitlines()[1:4]
    said = {line.split("carsweep ")[1].split()[0]: line for line in lines}
    assert list(said) == ["predict", "ui", "promote"]
    assert "--model carsweep-transfer/1" in said["predict"]
    assert said["ui"].endswith("carsweep ui mine")
    shell = partial(subprocess.run, cwd=place, capture_output=True, text=True, check=False, timeout=120)
    for command, answer in (("predict", "Make Model"), ("promote", "Version 1 of carsweep-transfer")):
        done = shell(["sh", "-c", said[command]])
        assert (done.returncode, answer in done.stdout) == (0, True), done.stderr
    # Its usual port may be another's here.
    pages = [*("sh", "-c"), f"exec {said['ui']} --port {free_port()}"]
    with subprocess.Popen(pages, cwd=place, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert any(line.startswith("Open http://127.0.0.1") for line in server.stdout)
        server.send_signal(signal.SIGINT)


def children_of(pid: int) -> list[int]:
    """Return all processes below one, by the system's own table."""
    direct = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
    return [*direct, *(below for child in direct for below in children_of(child))]


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda signal: signal.name)
def test_ui_ends_its_server(number: signal.Signals, place: Path) -> None:
    """Whatever asks it to end, it ends well, and no process that it started is left."""
    port, nowhere = free_port(), subprocess.DEVNULL
    shown = subprocess.Popen([ENTRY, "ui", "--port", str(port)], cwd=place, stdout=nowhere, stderr=nowhere)
    below: list[int] = []
    try:
        deadline = time.monotonic() + 180
        while not below:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                below = children_of(shown.pid)
            assert shown.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        shown.send_signal(number)
        assert shown.wait(30) == 0
        assert [pid for pid in below if is_alive(pid)] == []
    finally:
        for pid in (shown.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
