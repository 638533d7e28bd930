"""The command line: quick help, exit codes, and one line for each mistake."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from helpers import commands_of, draw_pictures

from carcls.errors import DataError, SpecError
from sweeps.cli.app import carsweep
from sweeps.cli.exits import run_command
from sweeps.cli.options import repeat_set
from sweeps.cli.output import callable_name, resume_command

HEAVY = {"torch", "ray", "mlflow", "optuna", "pandas"}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return two class folders of pictures."""
    return draw_pictures(tmp_path / "pictures", classes=2, train=4, test=2)


def loaded_by(*arguments: str) -> tuple[set[str], int]:
    """Run ``carsweep`` in a process of its own; return the heavy libraries it loaded, and its exit code."""
    script = (
        "import sys\n"
        "from sweeps.cli.app import carsweep\n"
        "from sweeps.cli.exits import run_command\n"
        "code = run_command(carsweep, sys.argv[1:])\n"
        "print('LOADED', code, *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    words = done.stdout.rsplit("LOADED ", 1)[1].split()
    return HEAVY & set(words[1:]), int(words[0])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--help", 0),
        ("run --help", 0),
        ("run transfer --help", 0),
        ("--version", 0),
        ("run transfer --set dropout=1.5", 2),
        ("run transfer --dry-run --set backbone=efficientnet_lite0 --data {data} --out {data}/runs", 0),
    ],
)
def test_what_runs_nothing_loads_nothing_heavy(words: str, code: int, data: Path) -> None:
    """Help, mistakes and plans cost no import of torch, ray, mlflow, optuna or pandas."""
    assert loaded_by(*words.format(data=data).split()) == (set(), code)
    assert not (data / "runs").exists()


def test_help_answers_in_under_four_tenths_of_a_second() -> None:
    """The best of seven tries is under 0.4 s, so that a busy machine does not fail it."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "sweeps.cli", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.4


@pytest.mark.parametrize(("words", "begins"), [(["--version"], "carsweep "), (["--help"], "Usage: carsweep ")])
def test_a_checkout_that_is_not_installed_has_the_command(words: list[str], begins: str, tmp_path: Path) -> None:
    """`python -m sweeps` is carsweep, also where only the sources and click are there."""
    for name in ("click", "carcls", "sweeps"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (tmp_path / name).symlink_to(Path(spec.origin).parent)
    command = [sys.executable, "-S", "-m", "sweeps", *words]  # without site-packages
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith(begins)


MISTAKES = {
    "no address to notify": (["--notify", "slack.com/x"], "--notify must be an address such as https://host/path"),
    "dropout out of range": (["--set", "dropout=1.5"], "dropout"),
    "one and a half GPUs": (["--gpus-per-trial", "1.5"], "gpus_per_trial: must be a whole number above 1"),
    "reading without a plan": (["--read"], "--read goes with --dry-run"),
    "missing data": (["--data", "nowhere"], "nowhere"),
    "data without images": (["--data", "folder"], "folder"),
    "an output folder that cannot be made": (["--data", "pictures", "--out", "mine.yaml/runs"], "mine.yaml/runs"),
    "not a number": (["--trials", "many"], "many"),
    "unknown option": (["--trails", "3"], "--trails"),
    "a word of no option": (["--set", "dropout", "0.3"], "Settings are KEY=VALUE, such as --set dropout=0.3."),
    "a word too many": (["extra"], "argument (extra). See 'carsweep"),
    "a number for a list": (["--set", "starts=3"], "must be a list of mappings from settings to values, got 3."),
    "a spec of no option": (["mine.yaml"], "A spec is given by --spec mine.yaml."),
    "a spec that is misspelt": (["--spec", "mien.yaml"], "no such file or directory. Did you mean mine.yaml?"),
    "a folder for a spec": (["--spec", "folder"], "is a directory. Name a file in it, such as folder/other.yaml."),
    "a condition that never holds": (
        ["--set", "search.dropout={low: 0.1, high: 0.5, when: {optimizer: adma}}"],
        "search.dropout.when.optimizer: must be one of adam, adamw, sgd, got 'adma'. Did you mean adam?",
    ),
    "a spec of another family": (["--spec", "other.yaml"], "For that one say carsweep run retrieval."),
    "a spec that is a picture": (["--spec", "picture.yaml"], "it is no text in UTF-8."),
    "a spec without an end": (["--spec", "/dev/zero"], "it has more than 100 kB."),
    "broken YAML": (["--spec", "broken.yaml"], "line"),
    "an unknown key in a spec": (["--spec", "unknown.yaml"], "search.dropuot"),
    "weights that cannot be had": (["--data", "pictures", "--weights", "nowhere.pth"], "nowhere.pth"),
    "a tracking server that does not answer": (
        ["--data", "pictures", "--tracking-uri", "http://127.0.0.1:9"],
        "tracking server http://127.0.0.1:9 must answer",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
@pytest.mark.usefixtures("data")
def test_a_mistake_is_one_line_and_exit_code_2(case: str, run: Run) -> None:
    """Each mistake is told in one line that names what is wrong, or was meant; exit code 2, nothing made or printed."""
    Path("mine.yaml").write_text("trials: 3\n", encoding="utf-8")
    Path("other.yaml").write_text("family: retrieval\n", encoding="utf-8")
    Path("broken.yaml").write_text("trials: [3\n", encoding="utf-8")
    Path("unknown.yaml").write_text("search:\n  dropuot: {low: 0.0, high: 0.5}\n", encoding="utf-8")
    Path("picture.yaml").write_bytes(b"\x89PNG\r\n")
    Path("folder").mkdir()
    Path("folder/other.yaml").touch()
    arguments, named = MISTAKES[case]
    code, out, err = run("run", "transfer", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("carsweep: ")
    assert err.count("\n") == 1
    assert named in err
    assert not any(Path("runs").glob("*"))


def test_several_mistakes_are_told_together_one_a_line(run: Run) -> None:
    """Nobody has to find mistakes one by one."""
    code, _, err = run("run", "transfer", "--set", "dropout=1.5", "epochs=0", "--trials", "0")
    assert (code, err.count("carsweep: "), err.count("\n")) == (2, 3, 3)


@pytest.mark.parametrize("job", ["run all", "reproduce"])
def test_a_wrong_name_of_a_job_hides_no_other_mistake(job: str, run: Run) -> None:
    """The name is told once, not for each family, beside what else is wrong."""
    code, _, err = run(*job.split(), "--name", "a/b", "--set", "epochs=0", "--dry-run")
    assert (code, err.count("a/b"), err.count("epochs: must be"), err.count("\n")) == (2, 1, 1, 2)


def test_a_misspelt_command_is_answered_with_the_nearest(run: Run) -> None:
    """So is one of a group."""
    assert run("statsu")[2] == "carsweep: No such command 'statsu'. Did you mean 'status'? See 'carsweep --help'.\n"
    assert "Did you mean 'transfer'?" in run("run", "transfr")[2]


def test_json_is_one_object(run: Run, data: Path) -> None:
    """Of a plan its numbers; of a mistake {"error": …}, and stderr has the same words."""
    words = ("--dry-run", "--json", "--trials", "5", "--weights", "random")
    code, out, _ = run("run", "transfer", "--data", str(data), *words)
    plan = json.loads(out)
    assert (code, plan["trials"], plan["images_read"]) == (0, 5, False)
    assert "resnet50 starts from random weights: nothing is transferred." in plan["notes"]
    code, out, err = run("run", "transfer", "--json", "--trials", "0")
    assert (code, list(json.loads(out))) == (2, ["error"])
    assert json.loads(out)["error"] in err


def failing(error: BaseException) -> click.Command:
    """Return a command that raises ``error``."""

    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def command(as_json: bool) -> None:  # noqa: ARG001 - only accepted
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("data must exist."), 2),
        (SpecError(["trials: must be 1.", "seed: must be 0."]), 2),
        (click.UsageError("no such option."), 2),
        (RuntimeError("surprise"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_code_tells_whose_fault_it_was(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 is the user's mistake, 1 is ours, 130 is Ctrl-C; a traceback only of an internal error under CARSWEEP_DEBUG."""
    assert run_command(failing(error), []) == code
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("CARSWEEP_DEBUG", "1")
    run_command(failing(error), [])
    assert ("Traceback" in capsys.readouterr().err) == (code == 1)


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["run", "transfer", "--data", ""], "--data"),
        (["run", "transfer", "--out=", "--dry-run"], "--out"),
        (["data", ""], "data"),
        (["data", ".", "-o", ""], "-o"),
        (["serve", "--model", ""], "--model"),
        (["delete", ""], "delete"),
        ([""], "carsweep"),
    ],
)
def test_a_variable_of_the_shell_that_is_unset_is_told(words: list[str], place: str, run: Run, tmp_path: Path) -> None:
    """Else ``--data "$CARS"`` would train on the current folder, and ``data "$CARS"`` tell of the demo cars."""
    code, out, err = run(*words)
    assert (code, out, err.count("\n"), [*tmp_path.iterdir()]) == (2, "", 1, [])
    assert f"Empty argument after {place!r}. Is a variable of the shell unset?" in err


def test_help_fits_into_80_columns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No example is too wide for a plain terminal, and no line ends in blanks."""
    monkeypatch.setenv("COLUMNS", "80")
    for command in (*(words for words, _ in commands_of(carsweep)), "run", "tracking", ""):
        code, out, _ = run(*command.split(), "--help")
        wrong = [line for line in out.splitlines() if len(line) > 80 or line != line.rstrip()]
        assert (command, code, wrong) == (command, 0, [])


def test_help_says_what_a_command_does_and_no_other(run: Run) -> None:
    """A spec is of one family, so run all does not offer it; a dry run of resume prints no plan."""
    assert "Print what would change" in run("resume", "--help")[1]
    assert "--spec" in run("run", "transfer", "--help")[1]
    assert "--spec" not in run("run", "all", "--help")[1]


def test_set_takes_all_the_words_that_follow_it() -> None:
    """--set a=1 b=2 means --set a=1 --set b=2, up to the next option."""
    words = ["--set", "a=1", "b=2", "--trials", "3", "--set", "c=-3"]
    assert repeat_set(words) == ["--set", "a=1", "--set", "b=2", "--trials", "3", "--set", "c=-3"]


def test_the_command_that_goes_on_can_be_typed_as_it_is() -> None:
    """It begins with a program that is there, and names a folder of runs that is not the usual one."""
    for out, expected in ((Path("runs"), "resume x"), (Path("my runs"), "resume x --out 'my runs'")):
        program, words = resume_command("x", out).split(" ", 1)
        assert words == expected
        assert shutil.which(program)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("backbones", "efficientnet_lite0"), ("experiments", "transfer/finetuned"), ("specs", "demo-transfer")],
)
def test_list_names_what_there_is(kind: str, expected: str, run: Run) -> None:
    """Backbones, experiments and specs are listed by the names that options take."""
    code, out, _ = run("list", kind)
    assert code == 0
    assert expected in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ui", "--out must be a folder with runs, got 'runs'"),
        ("promote transfr", "'transfr' is not one of 'transfer', 'retrieval', 'scratch'"),
        ("promote transfer --out nowhere", "--out must be a folder with runs, got 'nowhere'"),
        ("promote transfer --tracking-uri sqlite:///no.db", "--tracking-uri must name an existing database"),
    ],
)
def test_what_is_not_there_is_neither_shown_nor_promoted(words: str, said: str, run: Run, tmp_path: Path) -> None:
    """A store that is not there and an unknown family are told in a line; no database is made."""
    code, _, err = run(*words.split())
    assert (code, err.count("\n"), said in err) == (2, 1, True)
    assert list(tmp_path.iterdir()) == []


def test_python_is_named_so_that_it_has_the_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python on the PATH to which this environment's own is a link is another one: it knows nothing of carsweep."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "python").symlink_to(Path(sys.executable).resolve())
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert Path(callable_name("python")).absolute() == Path(sys.executable).with_name("python")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert callable_name("python") == "python"
