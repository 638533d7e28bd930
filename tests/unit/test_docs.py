"""The documents do not lie: commands and options that exist, a version that is this one, fields that are written."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from helpers import commands_of

from carcls.data.config import DataSummary
from sweeps.cli.app import carsweep
from sweeps.cli.options import repeat_set
from sweeps.results.leaderboard import COLUMNS, Leaderboard
from sweeps.results.result import Compared, Registered, SweepResult, TestEvaluation
from sweeps.run.comparison import COLUMNS as SWEEP_COLUMNS
from sweeps.run.status import COLUMNS as STATUS_COLUMNS
from sweeps.spec.loading import edit_spec, load_spec
from sweeps.study.confirmation import Confirmed
from sweeps.tables import Column
from sweeps.trial import TrialRecord

ROOT = Path(__file__).resolve().parents[2]
TRIAL = TrialRecord(0, None, {}, {}, "complete", {}, 1, 1.0)
RESULT = SweepResult("", "", "", DataSummary("", "", 0, 0, {}), Leaderboard((TRIAL,)), 0, None, None, "", 0.0).as_dict()
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/cli.md", "docs/extending.md", "cluster/README.md"]

# Keys of JSON that are still written beside those which took their place.
OLD_KEYS = set(re.findall(r"^\| `(\w+)` \| `\w+` \|", (ROOT / "docs" / "json.md").read_text(encoding="utf-8"), re.M))

# Of version 0.1: what is gone, by section and name, and what its users do instead.
DROPPED: dict[str, str] = {
    "carsweep submit": "`ray job submit`, which Ray documents, runs the same command on the head (cluster/README.md)",
    **dict.fromkeys(
        ("carsweep stages", "carsweep stages: `--json`"),
        "what it saved is told by the end of each sweep and `carsweep status`; sizes by `carsweep gc --dry-run`",
    ),
}


def read(name: str) -> str:
    """Return the text of a document."""
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("words", "command"), list(commands_of(carsweep, "carsweep ")), ids=str)
def test_each_command_and_option_is_documented(words: str, command: click.Command) -> None:
    """docs/cli.md has a section for every command, and a line for every option of it, or names whose they are."""
    section = section_of(words)
    assert section
    if re.search(r"the options of\s+`carsweep run transfer`", section):
        section += section_of("carsweep run transfer")
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [o.opts[0] for o in options if f"`{o.opts[0]}" not in section] == []


def section_of(words: str) -> str:
    """Return what docs/cli.md says under a command's heading."""
    return read("docs/cli.md").partition(f"## {words}\n")[2].partition("\n## ")[0]


def test_no_command_option_or_failure_kind_of_version_0_1_is_gone() -> None:
    """What docs/cli.md promised at b4f6d8d it promises now; what is dropped stands in DROPPED with a user's reason."""
    old = (ROOT / "tests" / "fixtures" / "b4f6d8d" / "cli.md").read_text(encoding="utf-8")
    gone = []
    for heading, text in re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", old, flags=re.MULTILINE | re.DOTALL):
        if heading in DROPPED:
            continue
        now = section_of(heading)
        codes = {word for line in re.findall(r"^\| (.*?) \|", text, flags=re.MULTILINE) for word in line.split(", ")}
        codes |= set(re.findall(r"`(?:[A-Z]+_[A-Z_]+|--[a-z-]+)`", text)) - {"option", "kind", "exit code"}
        gone += [f"{heading}: {code}" for code in sorted(codes) if code not in now and not set(code) <= {"-"}]
        gone += [] if now else [heading]
    assert [name for name in gone if name not in DROPPED] == []
    assert len(DROPPED) <= 5


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_documents_are_accepted(document: str) -> None:
    """Every carsweep command that a document shows is one that the command line parses."""
    for line in re.findall(r"^    (?:\.venv/bin/)?(carsweep .*?)(?:  +#.*)?$", read(document), flags=re.MULTILINE):
        words = shlex.split(line)[1:]
        parse(words[: words.index(">")] if ">" in words else words)


def parse(words: list[str]) -> None:
    """Parse a command line without running it."""
    command: click.Command = carsweep
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, words
        command, words = found, words[1:]
    command.make_context(command.name, repeat_set(words))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_in_documents_exist(document: str) -> None:
    """Every `make` that a document shows is a target of the Makefile."""
    shown = set(re.findall(r"^    make ([a-z-]+)", read(document), flags=re.MULTILINE))
    assert shown <= set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/json.md", "docs/decisions.md", "docs/python.md"])
def test_links_and_paths_in_documents_exist(document: str) -> None:
    """A link to a file leads to a file."""
    targets = re.findall(r"\]\(([^)#:]+)\)", read(document))
    assert [t for t in targets if not ((ROOT / document).parent / t).exists()] == []


def test_changelog_begins_with_this_version() -> None:
    """The newest entry is the version in pyproject.toml."""
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert re.findall(r"^## (\S+)", read("CHANGELOG.md"), flags=re.MULTILINE)[0] == version


@pytest.mark.parametrize(
    ("prefix", "part"),
    [
        ("", tuple(RESULT)),
        ("data.", DataSummary),
        ("trials[].", tuple(RESULT["trials"][0])),
        ("best.", tuple(RESULT["best"])),
        ("confirmed[].", Confirmed),
        ("comparison[].", Compared),
        ("test.", TestEvaluation),
        ("registered.", Registered),
    ],
)
def test_each_field_of_the_object_is_documented(prefix: str, part: type | tuple[str, ...]) -> None:
    """docs/json.md names every field that --json writes."""
    table = "\n".join(line for line in read("docs/json.md").splitlines() if line.startswith("| `"))
    keys = part if isinstance(part, tuple) else [field.name for field in fields(part)]
    names = [key for key in keys if key not in OLD_KEYS]
    parent = next((line for line in table.splitlines() if line.startswith(f"| `{prefix[:-1]}`")), "") if prefix else ""
    missing = [n for n in names if f"`{prefix}{n}`" not in table and f"`{n}`" not in parent and f"`{n}." not in table]
    assert [name for name in missing if f"`{name}[]." not in table] == []


@pytest.mark.parametrize(
    ("begins", "ends", "columns"),
    [
        ("`OUT/SWEEP/leaderboard.json` has", "\n\n", COLUMNS),
        ("| `groups[].sweeps[]` |", "\n", SWEEP_COLUMNS),
        ("## Status", "\n## ", STATUS_COLUMNS),
    ],
)
def test_each_column_is_documented(begins: str, ends: str, columns: Sequence[Column[Any]]) -> None:
    """docs/json.md names every key of a leaderboard's rows, of sweeps side by side, and of a sweep's status."""
    part = read("docs/json.md").split(begins)[1].split(ends)[0]
    assert [column.key for column in columns if f"`{column.key}`" not in part] == []
    assert {column.was for column in columns if column.was} <= OLD_KEYS


@pytest.mark.parametrize("source", ["README.md", "docs/cli.md", "sweeps/cli/run.py"])
def test_settings_that_resume_is_shown_with_change_a_sweep(source: str) -> None:
    """What an example sets is not what a sweep has anyway."""
    shown = re.findall(r"^ +carsweep resume .*--set (\S+(?: \S+=\S+)*)", read(source), flags=re.MULTILINE)
    assert shown
    for setting in " ".join(shown).split():
        for family in ("transfer", "retrieval", "scratch"):
            spec = load_spec(family)
            assert edit_spec(spec, [setting], {}) != spec, (family, setting)
