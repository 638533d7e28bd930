"""A thousand wrong specs: each is answered at once, in sentences that name the place and the remedy, never a traceback.

The packaged specs are damaged and words of the command line made up, each by its own seed. What happens to be valid all
the same is checked to be a spec, and does not count.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from helpers import spec_of_yaml

from carcls.catalog import FAMILIES
from carcls.config import default_of
from carcls.errors import InputError
from sweeps.cli import run as run_commands
from sweeps.cli.app import carsweep
from sweeps.cli.exits import DONE, MISTAKE, run_command
from sweeps.run.remembered import recall
from sweeps.run.status import sweeps_in
from sweeps.spec.loading import edit_spec, load_spec, packaged_specs
from sweeps.spec.spec import SECTIONS, SWEEP_SETTINGS, SweepSpec
from sweeps.spec.values import TRIAL_SETTINGS

WRONG_SPECS = 1000
# CPU time: several times that of the slowest answer, and far from the minutes that a parser without limits takes.
MOST_SECONDS = 10.0
# A path, an option or a file, with a line where the file is no YAML.
PLACE = re.compile(r"\S.*?(: must | must |: line |Invalid value for)|Invalid value for '--")
NOISE = ("Traceback", "internal error", "pydantic", "Input should", "validation error", "Error:", "0x7f", "yaml.org")
MANY = "… and more mistakes: mend these first."

PACKAGED = {name: text for name, text in packaged_specs().items() if name in FAMILIES}
NAMES = [*TRIAL_SETTINGS, *SWEEP_SETTINGS, *SECTIONS]
NUMBERS = [10**30, 2**63, -(2**63), 10**400, float("nan"), float("inf"), -float("inf"), 1e308, 1e-320, -0.0, 0.5, 7]
TEXTS = ["", " ", "ä", "🚗", "٣", "2:1", "yes", "null", "1e5", "a\nb", "\x1b[31m", "\ud800", "x" * 5000, "x", "a.b"]
TREES = [[], {}, [[]], [None], list(range(2000)), [[[[[[[[[[[[]]]]]]]]]]]], {"a": {"b": {"c": {}}}}]
PIECES = ["\t", ":", "[", "}", "- ", "'", '"', "&a ", "*a", "!!int ", "%", "@", "\0", "?", "<<", "a"]
RAW = ["", "[", "{", "'", '"', "*x", "&a [*a]", "!!int x", "%", "@", "#", "---", "a: b: c", "[" * 900, "{<<: 3}"]
BYTES = [b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" + bytes(30), "trials: 3".encode("utf-16"), b"note: \xe4", bytes(9)]
OPTIONS = ["trials", "hours", "epochs-budget", "price", "max-cost", "disk", "cpus-per-trial", "seed", "gpus-per-trial"]
OPTIONS += ["concurrency", "confirm", "name", "objective", "constraint"]
OF_OPTIONS = ["-1", "0x0", "accuracy,f2", "predict_ms <= ", "1/gpu-hour + 2/gpu-hour"]


@dataclass(frozen=True)
class Case:
    """A wrong spec: a family, a file's content, and words; ``places`` may name the mistake."""

    family: str
    content: bytes | None = None
    words: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


def letters(dice: Random) -> str:
    """Return a few characters of any script."""
    return "".join(
        chr(dice.choice((dice.randrange(32, 127), dice.randrange(0xD800)))) for _ in range(dice.randrange(9))
    )


def scalar(dice: Random) -> Any:
    """Return a value that is wrong nearly everywhere."""
    numbers = (dice.randint(-3, 3), dice.randint(-(10**40), 10**40), dice.gauss(0, 1e9), dice.choice(NUMBERS))
    return dice.choice((None, True, False, *numbers, dice.choice(TEXTS), letters(dice)))


def junk(dice: Random, depth: int = 3) -> Any:
    """Return something of any form."""
    inner = [junk(dice, depth - 1) for _ in range(dice.randrange(4))] if depth else []
    return dice.choice((scalar(dice), scalar(dice), dice.choice(TREES), inner, {letters(dice): one for one in inner}))


def misspelt(dice: Random, word: str) -> str:
    """Return the word with a letter lost, doubled, swapped or foreign, or written otherwise."""
    at = dice.randrange(len(word))
    before, letter, after = word[:at], word[at], word[at + 1 :]
    wrong = (before + after, before + 2 * letter + after, before + after[:1] + letter + after[1:])
    return dice.choice((*wrong, before + letters(dice) + after, word.upper(), f"{word} ", word.replace("_", "-")))


def paths_in(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a tree but its root."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from paths_in(value, (*path, key))


def written(tree: Any) -> bytes:
    """Return a tree as a file."""
    text: str = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    return text.encode("utf-8", "surrogatepass")


def damaged_tree(dice: Random) -> Case:
    """Put something else in the place of a value, misspell a key, or add one that is unknown or belongs elsewhere."""
    family = dice.choice(list(FAMILIES))
    tree = copy.deepcopy(yaml.safe_load(PACKAGED[family]))
    *above, name = dice.choice(list(paths_in(tree)))
    parent, value = tree, junk(dice)
    for key in above:
        parent = parent[key]
    way = dice.randrange(3) if isinstance(parent, dict) else 0
    if way == 1:
        name, value = misspelt(dice, name), parent.pop(name)
    elif way == 2:
        name = dice.choice((dice.choice(NAMES), letters(dice), -3))
    parent[name] = value
    path = (*above, name)
    place = path[1] if path[0] in SECTIONS and len(path) > 1 else path[0]
    return Case(family, written(tree), places=(str(place), "mine.yaml"))


def bad_domain(dice: Random) -> Case:
    """Search over something that is no domain, or not one of that setting, or under a condition that cannot be."""
    name, other = dice.choice(TRIAL_SETTINGS), dice.choice(TRIAL_SETTINGS)
    other = dice.choice((other, misspelt(dice, other)))
    whens = (junk(dice), {other: dice.choice((junk(dice), "x", [scalar(dice)]))})
    keys = {"log": dice.random() < 0.5, "int": True, "step": scalar(dice), "choices": junk(dice), "when": whens[1]}
    some = {key: value for key, value in keys.items() if dice.random() < 0.3}
    ends = {"low": dice.choice(NUMBERS), "high": dice.choice(NUMBERS)}
    when = {"choices": [default_of(name)], "when": dice.choice(whens)}
    domain = dice.choice(({**ends, **some}, when, when, [scalar(dice) for _ in range(3)], junk(dice)))
    return Case(dice.choice(list(FAMILIES)), written({"search": {name: domain}}), places=(name, "mine.yaml"))


def broken_text(dice: Random) -> Case:
    """Cut a spec's text, repeat a part of it, or put what YAML chokes on into it."""
    family = dice.choice(list(FAMILIES))
    lines = [line for line in PACKAGED[family].splitlines() if line and not line.startswith("#")]
    at, piece = dice.randrange(len(lines)), dice.choice(PIECES)
    line = lines[at]
    column = dice.randint(0, len(line))
    begun, rest = line[:column], line[column:]
    lines[at] = dice.choice((begun + piece + rest, begun, f"{line}\n{line}", piece + line, f" {line}", piece))
    return Case(family, "\n".join(lines).encode())


def binary(dice: Random) -> Case:
    """Name a file that is no text, or one of no spec."""
    text = (letters(dice) + dice.choice(TEXTS)).encode("utf-8", "surrogatepass")
    return Case("transfer", dice.choice((dice.randbytes(dice.randint(1, 60)), dice.choice(BYTES), text)))


def bomb(levels: int) -> str:
    """Return YAML whose aliases stand for 9 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + f"\nfixed: {{dropout: *a{levels - 1}}}\n"


HOSTILE: dict[str, Callable[[int], str]] = {
    "bomb": lambda size: bomb(min(size, 40) + 1),
    "self": lambda size: f"fixed: &a {{dropout: {'[' * (size % 5)}*a{']' * (size % 5)}}}",
    "merge key": lambda size: f"config: {{<<: {{dropout: {size}}}}}",
    "deep list": lambda size: f"search: {{dropout: {'[' * (size + 10)}{']' * (size + 10)}}}",
    "deep mapping": lambda size: "starts: " + "{a: " * (size + 10),
    "deep block": lambda size: "".join(f"{' ' * n}- \n" for n in range(min(size, 200) + 10)),
    "long number": lambda size: f"trials: {'9' * (size + 6)}",
    "long fraction": lambda size: f"search: {{dropout: {{low: 0, high: 0.{'9' * size}e{size}9}}}}",
    "tag": lambda size: f"trials: !!{['int', 'timestamp', 'binary', 'python/name:os.system'][size % 4]} x",
    "many keys": lambda size: "".join(f"k{n}: {n}\n" for n in range(size + 1)),
    "many settings": lambda size: "fixed: {" + "".join(f"k{n}: {n}, " for n in range(size + 1)) + "}",
    "many experiments": lambda size: f"experiments: [{'transfer/frozen, ' * (size + 2)}]",
    "many choices": lambda size: f"search: {{dropout: [{', '.join(str(n / 7) for n in range(size + 9))}]}}",
    "many values": lambda size: f"search: {{dropout: [{'0,' * (size * 9 + 2)}]}}",
    "many starts": lambda size: f"starts: [{'{dropout: 2}, ' * (size + 1)}]",
    "long text": lambda size: f"fixed: {{backbone: {'x' * (size * 30 + 1)}}}",
    "long key": lambda size: f"{'k' * (size + 101)}: 1",
    "too much": lambda size: f"note: {'x' * (100_000 + size)}",
    "documents": lambda size: "trials: 3\n---\n" * (size + 2),
}


def hostile(dice: Random) -> Case:
    """Ask for more than any spec needs."""
    return Case(dice.choice(list(FAMILIES)), HOSTILE[dice.choice(list(HOSTILE))](dice.randint(0, 3000)).encode())


def wrong_set(dice: Random) -> Case:
    """Say ``--set`` with a wrong key, or with a wrong value."""
    section, setting = dice.choice([*SECTIONS, "space", "serch", ""]), dice.choice(TRIAL_SETTINGS)
    inner = dice.choice(
        ("margin", "path", "magin", "min_epochs", "redution", f"{setting}.hihg", f"{setting}..", setting)
    )
    key = dice.choice((dice.choice(NAMES), misspelt(dice, dice.choice(NAMES)), f"{section}.{inner}", letters(dice)))
    value = yaml.safe_dump(junk(dice), default_flow_style=True, width=10_000).removesuffix("\n...\n")
    value = dice.choice((value, value, dice.choice(RAW), letters(dice)))
    word = dice.choice((f"{key}={value}", f"{key}={value}", f"{key} = {value}", key, f"={value}"))
    return Case(dice.choice(list(FAMILIES)), words=("--set", word))


def wrong_option(dice: Random) -> Case:
    """Give an option a wrong value."""
    option, value = dice.choice(OPTIONS), dice.choice((str(scalar(dice)), dice.choice(OF_OPTIONS)))
    return Case("transfer", words=(f"--{option}", value), places=(f"--{option}", option.replace("-", "_")))


KINDS = (damaged_tree, damaged_tree, bad_domain, broken_text, binary, hostile, wrong_set, wrong_option)


@dataclass(frozen=True)
class Answer:
    """What ``carsweep run`` says: exit code, both streams, the spec where it was valid, and CPU seconds."""

    code: int
    out: str
    err: str
    spec: SweepSpec | None
    seconds: float


def ask(case: Case, folder: Path) -> Answer:
    """Ask the command line for a plan; what follows a valid spec is not of interest here."""
    words = ["run", case.family, "--dry-run", *case.words]
    if case.content is not None:
        (folder / "mine.yaml").write_bytes(case.content)
        words += ["--spec", str(folder / "mine.yaml")]
    specs: list[SweepSpec] = []
    out, err = io.StringIO(), io.StringIO()
    begun = time.process_time()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(run_commands, "_plan", lambda command, *_, **__: specs.extend(command.specs))
        code = run_command(carsweep, words)
    return Answer(code, out.getvalue(), err.getvalue(), specs[0] if specs else None, time.process_time() - begun)


def check_told(case: Case, answer: Answer) -> None:
    """Check that a mistake was told as every mistake should be."""
    assert (answer.code, answer.out) == (MISTAKE, "")
    assert answer.seconds < MOST_SECONDS
    *lines, end = answer.err.split("\n")
    assert end == ""
    assert 1 <= len(lines) <= 21
    for line in lines:
        message = line.removeprefix("carsweep: ")
        assert message != line
        assert message.isprintable()
        assert not any(noise in message for noise in NOISE)
        if message != MANY:
            assert PLACE.match(message)
            assert message.endswith((".", "?"))
            # An unknown name without a near one is answered with all names.
            assert len(message.partition(" Known: ")[0]) <= 400
            assert len(message) <= 900
    assert not case.places or any(place in answer.err for place in map(escaped, case.places))


def escaped(text: str) -> str:
    """Return a text as a message shows it."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def check_valid(spec: SweepSpec) -> None:
    """Check that what was accepted is a spec that can be kept and told from others."""
    text = spec.to_yaml()
    assert spec_of_yaml(text.encode().decode()) == spec
    assert spec_of_yaml(text).digest == spec.digest


def test_a_thousand_wrong_specs_give_a_thousand_clear_messages(tmp_path: Path) -> None:
    """Files and words, damaged in many ways: exit code 2, places and remedies in short lines, and all of it at once."""
    for kind in KINDS:
        told: set[Case] = set()
        for seed in itertools.count():
            case = kind(Random(seed))
            answer = ask(case, tmp_path)
            if answer.spec is not None:
                check_valid(answer.spec)
            else:
                check_told(case, answer)
                told.add(case)
            if len(told) == WRONG_SPECS // len(KINDS):
                break
            assert seed < WRONG_SPECS


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_spec_is_answered_at_once(kind: str, tmp_path: Path) -> None:
    """Bombs, endless nesting and enormous numbers cost no more than a moment, even the largest that are read at all."""
    case = Case("transfer", HOSTILE[kind](5000).encode())
    check_told(case, ask(case, tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_right_is_not_called_wrong(family: str, tmp_path: Path) -> None:
    """The test above tells right from wrong: every packaged spec passes as valid."""
    answer = ask(Case(family, PACKAGED[family].encode()), tmp_path)
    assert (answer.code, answer.err) == (DONE, "")
    assert answer.spec is not None
    check_valid(answer.spec)


def test_wrong_words_change_no_sweep_that_goes_on() -> None:
    """``carsweep resume --set`` takes a word, or tells the mistake; there is no third way."""
    for seed in range(100):
        case = wrong_set(Random(seed))
        with contextlib.suppress(InputError):
            check_valid(edit_spec(load_spec(case.family), case.words[1:], {}))


@pytest.mark.parametrize("content", ["", "[]", "null", "{", "\xff", '{"kind": "all", "specs": 3}', '{"specs": [null]}'])
@pytest.mark.parametrize("name", ["sweep.json", "job.json", "command.json", "spec.yaml"])
def test_a_damaged_file_is_one_mistake(name: str, content: str, tmp_path: Path) -> None:
    """What a sweep or a job keeps of its spec, in this version or one before, is told with the remedy."""
    spec = tmp_path / "mine" / "spec.yaml"
    spec.parent.mkdir()
    spec.write_text("family: [")  # as damaged as what may stand beside it
    (tmp_path / "mine" / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"must be as carsweep wrote it, got .* (Remove that|Mend it|Put a copy)"):
        recall(tmp_path, "mine")
    assert sweeps_in(tmp_path) == ["mine"]
