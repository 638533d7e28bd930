"""A thousand wrong specs: each is answered at once, in sentences that name the place and the remedy, never a traceback.

Hypothesis damages the packaged specs and makes up words of the command line. What happens to be valid all the same is
checked to be a spec, and does not count.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from helpers import spec_of_yaml
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from carcls.errors import InputError
from sweeps.cli import run as run_commands
from sweeps.cli.app import carsweep
from sweeps.cli.exits import DONE, MISTAKE, run_command
from sweeps.run.remembered import recall
from sweeps.run.status import sweeps_in
from sweeps.spec.loading import edit_spec, load_spec, packaged_specs
from sweeps.spec.spec import FAMILIES, SECTIONS, SWEEP_SETTINGS, SweepSpec
from sweeps.spec.sweep_file import Kind, write_file
from sweeps.spec.values import TRIAL_SETTINGS

WRONG_SPECS = 1000
# CPU time: of the slowest answer, on a machine that does other things as well.
MOST_SECONDS = 3.0
# A path, an option or a file, with a line where the file is no YAML.
PLACE = re.compile(r"\S.*?(: must | must |: line |Invalid value for)|Invalid value for '--")
NOISE = ("Traceback", "internal error", "pydantic", "Input should", "validation error", "Error:", "0x7f", "yaml.org")
MANY = "… and more mistakes: mend these first."

PACKAGED = {name: text for name, text in packaged_specs().items() if name in FAMILIES}
TREES = {name: yaml.safe_load(text) for name, text in PACKAGED.items()}


@dataclass(frozen=True)
class Case:
    """A wrong spec: the kind of its mistake, a family, a file's content, and words; ``places`` may name the mistake."""

    kind: str
    family: str
    content: bytes | None = None
    words: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


# --- values that are wrong nearly everywhere

numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(-(10**40), 10**40),
    st.sampled_from([10**30, 2**63, -(2**63), 10**400, float("nan"), float("inf"), -float("inf"), 1e308, 1e-320, -0.0]),
    st.floats(),
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", " ", "ä", "🚗", "٣", "2:1", "yes", "null", "1e5", "a\nb", "\x1b[31m", "\ud800", "x" * 5000]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
junk = st.one_of(
    scalars,
    st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=3)),
        max_leaves=8,
    ),
    st.sampled_from([[], {}, [[]], [None], list(range(2000)), [[[[[[[[[[[[]]]]]]]]]]]], {"a": {"b": {"c": {}}}}]),
)


def misspellings(word: str) -> st.SearchStrategy[str]:
    """Return the word with a letter lost, doubled, swapped or foreign, or written in capitals."""
    places = st.integers(0, max(0, len(word) - 1))
    return st.one_of(
        places.map(lambda at: word[:at] + word[at + 1 :]),
        places.map(lambda at: word[: at + 1] + word[at:]),
        places.map(lambda at: word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]),
        st.tuples(places, st.characters()).map(lambda pair: word[: pair[0]] + pair[1] + word[pair[0] + 1 :]),
        st.just(word.upper()),
        st.just(f"{word} "),
        st.just(word.replace("_", "-")),
    )


# --- wrong files


def places_in(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a tree but its root."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places_in(value, (*path, key))


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """Return what stands at a path."""
    for key in path:
        tree = tree[key]
    return tree


def named(path: tuple[Any, ...]) -> str:
    """Return the part of a path that a message must name: the setting, or the field of the sweep."""
    return str(path[1] if path[0] in SECTIONS and len(path) > 1 else path[0])


def written(tree: Any) -> bytes:
    """Return a tree as a file."""
    text: str = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    return text.encode("utf-8", "surrogatepass")


trees = st.sampled_from(sorted(TREES)).map(lambda name: copy.deepcopy(TREES[name]))


@st.composite
def damaged_trees(draw: st.DrawFn, kind: str) -> Case:
    """Put something else in the place of a value, misspell a key, or add one that is unknown or belongs elsewhere."""
    tree = draw(trees)
    family, paths = tree["family"], list(places_in(tree))
    if kind == "replaced":
        path = draw(st.sampled_from(paths))
        at(tree, path[:-1])[path[-1]] = draw(junk)
    elif kind == "misspelt":
        old = draw(st.sampled_from([path for path in paths if isinstance(path[-1], str)]))
        path = (*old[:-1], draw(misspellings(old[-1])))
        parent = at(tree, old[:-1])
        parent[path[-1]] = parent.pop(old[-1])
    else:
        parent_path = draw(st.sampled_from([(), *(path for path in paths if isinstance(at(tree, path), dict))]))
        new = draw(st.one_of(texts, st.sampled_from([*TRIAL_SETTINGS, *SWEEP_SETTINGS, *SECTIONS]), st.integers(-9, 9)))
        path = (*parent_path, new)
        at(tree, parent_path)[new] = draw(junk)
    return Case(kind, family, written(tree), places=(named(path), "mine.yaml"))


domains = st.one_of(
    st.fixed_dictionaries(
        {"low": numbers, "high": numbers},
        optional={"log": st.booleans(), "int": st.booleans(), "step": numbers, "choices": junk, "when": junk},
    ),
    st.lists(scalars, max_size=4),
    st.builds(lambda choices: {"choices": choices}, junk),
    junk,
)


@st.composite
def bad_domains(draw: st.DrawFn) -> Case:
    """Search over something that is no domain, or not one of that setting."""
    name = draw(st.sampled_from(TRIAL_SETTINGS))
    family = draw(st.sampled_from(["transfer", "retrieval", "scratch"]))
    return Case("domain", family, written({"search": {name: draw(domains)}}), places=(name, "mine.yaml"))


@st.composite
def bad_conditions(draw: st.DrawFn) -> Case:
    """Search under a condition on an unknown setting, on itself, or on a value that the other one cannot have."""
    name = draw(st.sampled_from(TRIAL_SETTINGS))
    other = draw(st.one_of(st.sampled_from(TRIAL_SETTINGS).flatmap(misspellings), st.sampled_from(TRIAL_SETTINGS)))
    values = draw(st.one_of(junk, st.just("x"), st.lists(scalars, max_size=3)))
    domain = {"choices": [SweepSpec(family="transfer").trial_config({}).model_dump()[name]], "when": {other: values}}
    return Case("condition", "transfer", written({"search": {name: domain}}), places=(name, "mine.yaml"))


@st.composite
def broken_text(draw: st.DrawFn) -> Case:
    """Cut a spec's text, repeat a part of it, or put what YAML chokes on into it."""
    name = draw(st.sampled_from(sorted(PACKAGED)))
    family, text = TREES[name]["family"], PACKAGED[name]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    where = draw(st.integers(0, len(lines) - 1))
    line = lines[where]
    column = draw(st.integers(0, len(line)))
    piece = draw(
        st.sampled_from(["\t", ":", "[", "}", "- ", "'", '"', "&a ", "*a", "!!int ", "%", "@", "\0", "?", "<<", "a"])
    )
    damaged = draw(
        st.sampled_from(
            [line[:column] + piece + line[column:], line[:column], f"{line}\n{line}", piece + line, f" {line}", piece]
        )
    )
    content = "\n".join([*lines[:where], damaged, *lines[where + 1 :]])
    return Case("broken text", family, content.encode())


binaries = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" + bytes(30), "trials: 3".encode("utf-16"), b"note: \xe4", bytes(9)]
    ),
    st.text(min_size=1, max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
).map(lambda content: Case("binary", "transfer", content))


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
    "tag": lambda size: (
        f"trials: !!{['int', 'float', 'bool', 'timestamp', 'binary', 'python/name:os.system'][size % 6]} x"
    ),
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


@st.composite
def hostile(draw: st.DrawFn) -> Case:
    """Ask for more than any spec needs."""
    kind, size = draw(st.sampled_from(sorted(HOSTILE))), draw(st.integers(0, 3000))
    return Case("hostile", draw(st.sampled_from(["transfer", "scratch"])), HOSTILE[kind](size).encode())


# --- wrong words

keys = st.one_of(
    st.sampled_from(TRIAL_SETTINGS),
    st.sampled_from([*SWEEP_SETTINGS, *SECTIONS]),
    st.sampled_from([*TRIAL_SETTINGS, *SWEEP_SETTINGS]).flatmap(misspellings),
    st.builds("{}.{}".format, st.sampled_from([*SECTIONS, "space", "serch", ""]), st.sampled_from(TRIAL_SETTINGS)),
    st.builds(
        "search.{}.{}".format, st.sampled_from(TRIAL_SETTINGS), st.sampled_from(["low", "hihg", "when.x", "", "."])
    ),
    st.builds("data.{}".format, st.sampled_from(["margin", "path", "validation_fraction", "split_seed", "magin"])),
    st.builds("early_stopping.{}".format, st.sampled_from(["enabled", "min_epochs", "reduction", "redution"])),
    texts,
)
values = st.one_of(
    junk.map(lambda value: yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n")),
    st.sampled_from(
        ["", "[", "{", "'", '"', "*x", "&a [*a]", "!!int x", "%", "@", "#", "---", "a: b: c", "[" * 900, "{<<: 3}"]
    ),
    st.text(max_size=12),
)


@st.composite
def wrong_sets(draw: st.DrawFn) -> Case:
    """Say ``--set`` with a wrong key, or with a wrong value."""
    key, value = draw(keys), draw(values)
    words = (
        "--set",
        draw(st.sampled_from([f"{key}={value}", f"{key}={value}", f"{key} = {value}", f"{key}", f"={value}"])),
    )
    return Case("--set", draw(st.sampled_from(["transfer", "retrieval", "scratch"])), words=words)


OPTIONS = ("--trials", "--hours", "--epochs-budget", "--price", "--max-cost", "--disk", "--cpus-per-trial", "--seed")
OPTIONS += ("--gpus-per-trial", "--concurrency", "--confirm", "--name", "--objective", "--constraint")
wrong_options = st.builds(
    lambda option, value: Case(
        "option", "transfer", words=(option, value), places=(option, option.strip("-").replace("-", "_"))
    ),
    st.sampled_from(OPTIONS),
    st.one_of(
        numbers.map(str),
        texts,
        st.sampled_from(["-1", "0x0", "accuracy,f2", "predict_ms <= ", "1/gpu-hour + 2/gpu-hour"]),
    ),
)

CASES = (
    damaged_trees("replaced"),
    damaged_trees("misspelt"),
    damaged_trees("added"),
    bad_domains(),
    bad_conditions(),
    broken_text(),
    binaries,
    hostile(),
    wrong_sets(),
    wrong_options,
)


# --- what is said of them


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


def test_a_thousand_wrong_specs_give_a_thousand_clear_messages(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files and words, damaged in ten ways: exit code 2, places and remedies in short lines, and all of it at once."""
    folder = tmp_path_factory.mktemp("specs")
    told: set[Case] = set()
    valid: set[Case] = set()

    @settings(
        max_examples=WRONG_SPECS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(*CASES))
    def each(case: Case) -> None:
        if case in told | valid:
            reject()
        answer = ask(case, folder)
        if answer.spec is not None:
            check_valid(answer.spec)
            valid.add(case)
            reject()
        check_told(case, answer)
        told.add(case)

    each()
    kinds = Counter(case.kind for case in told)
    assert len(told) >= WRONG_SPECS
    assert len(kinds) == len(CASES)
    assert min(kinds.values()) >= WRONG_SPECS // (4 * len(CASES))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_spec_is_answered_at_once(kind: str, tmp_path: Path) -> None:
    """Bombs, endless nesting and enormous numbers cost no more than a moment, even the largest that are read at all."""
    case = Case("hostile", "transfer", HOSTILE[kind](5000).encode())
    check_told(case, ask(case, tmp_path))


def test_what_is_right_is_not_called_wrong(tmp_path: Path) -> None:
    """The test above tells right from wrong: every packaged spec passes as valid."""
    for name, text in PACKAGED.items():
        answer = ask(Case("none", TREES[name]["family"], text.encode()), tmp_path)
        assert (answer.code, answer.err) == (DONE, "")
        assert answer.spec is not None
        check_valid(answer.spec)


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(case=wrong_sets())
def test_wrong_words_change_no_sweep_that_goes_on(case: Case) -> None:
    """``carsweep resume --set`` takes a word, or tells the mistake; there is no third way."""
    spec = load_spec(case.family)
    with contextlib.suppress(InputError):
        check_valid(edit_spec(spec, case.words[1:], {}))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs that holds a sweep and a job, as they begin."""
    out = tmp_path_factory.mktemp("runs")
    spec = load_spec("transfer", overrides={"name": "mine"})
    for kind in get_args(Kind):
        write_file(out / kind, kind, None, [spec])
        (out / f"older-{kind}").mkdir()
        (out / f"older-{kind}" / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
        said = {"kind": kind, "tracking_uri": None, "tracking_uri_is_secret": False, "specs": [spec.to_yaml()]}
        (out / f"older-{kind}" / "command.json").write_text(json.dumps(said), encoding="utf-8")
    return out


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(
    file=st.sampled_from(
        ["sweep/sweep.json", "all/job.json", "reproduce/job.json"]
        + [f"older-{kind}/{name}" for kind in get_args(Kind) for name in ("spec.yaml", "command.json")]
    ),
    share=st.floats(0, 1),
    garbage=st.one_of(st.none(), st.binary(max_size=20), scalars.map(lambda value: repr(value).encode())),
)
def test_a_damaged_folder_is_told_or_read(kept: Path, file: str, share: float, garbage: bytes | None) -> None:
    """What a sweep keeps of its spec, lost, or cut anywhere and followed by anything: read or told, no traceback."""
    whole = (kept / file).read_bytes()
    if garbage is None:
        (kept / file).unlink()
    else:
        (kept / file).write_bytes(whole[: int(share * len(whole))] + garbage)
    try:
        for read in (recall, sweeps_in):
            with contextlib.suppress(InputError):
                read(kept, file.partition("/")[0])
    finally:
        (kept / file).write_bytes(whole)


@pytest.mark.parametrize("said", ["[]", "3", '{"kind": "all", "specs": 3}', '{"kind": "all", "specs": [null]}', "{"])
def test_a_damaged_command_is_one_mistake(kept: Path, said: str) -> None:
    """A job's file of another form is told with the remedy."""
    (kept / "damaged").mkdir(exist_ok=True)
    (kept / "damaged" / "command.json").write_text(said, encoding="utf-8")
    with pytest.raises(InputError, match=r"must be as carsweep wrote it, got .* Remove that file\."):
        recall(kept, "damaged")
