"""YAML as specs use it: safe, with line numbers in complaints, and without the surprises of YAML 1.1.

PyYAML reads ``1e-4`` as text, ``2:1`` as 121 and ``off`` as false. Here a number is a number, only ``true`` and
``false`` are truth values, and a key that is written twice is a mistake. So are tags, aliases, control characters and
deep nesting, so that a hostile text is refused as fast as any.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from carcls.errors import SpecError, shown

_DEEPEST = 10
_LONGEST_KEY = _MOST_DIGITS = 100
_PLAIN_VALUES = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML keeps its resolvers on the class

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self.depth += 1
        problem = _problem_of(event, self.depth)
        if problem:
            raise yaml.composer.ComposerError(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            problem = _problem_of_key(key_node, found)
            if problem:
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
            found[key_node.value] = self.construct_object(value_node, deep=deep)
        return found


def _problem_of(event: yaml.NodeEvent, depth: int) -> str:
    """Return why a spec cannot have this value, or nothing."""
    if depth > _DEEPEST:
        return f"a spec is at most {_DEEPEST} levels deep"
    if event.anchor is not None:
        return f"a spec has no anchors and aliases such as {shown(event.anchor)}; write the value out"
    tag = getattr(event, "tag", None)
    if tag is not None:
        short = shown(tag.replace("tag:yaml.org,2002:", "!!"))
        return f"a spec has no tags such as {short}; write the value alone"
    if not isinstance(event, yaml.ScalarEvent):
        return ""
    if not is_plain_text(event.value):
        return f"text has no control characters, got {shown(event.value)}"
    if event.style is None and len(event.value) > _MOST_DIGITS and event.value.lstrip("-+").isdigit():
        return f"a whole number has at most {_MOST_DIGITS} digits"
    return ""


def _problem_of_key(node: yaml.Node, known: Mapping[str, Any]) -> str:
    """Return why a mapping cannot have this key beside those that are ``known``, or nothing."""
    if not isinstance(node, yaml.ScalarNode) or not 0 < len(node.value.strip()) <= _LONGEST_KEY:
        return "a key must be a plain word"
    if node.style is None and ":" in node.value:
        return f"a colon is followed by a space, got {shown(node.value)}"
    if node.value == "<<":
        return "a spec has no merge key <<; write its settings out"
    return f"the key {shown(node.value)} is given twice" if node.value in known else ""


def is_plain_text(text: str) -> bool:
    """Tell whether a text can be written to a file in UTF-8 and to a terminal; it may have several lines.

    >>> is_plain_text("Škoda\\n"), is_plain_text("\\x1b[31m"), is_plain_text("\\ud800")
    (True, False, False)
    """
    return all(letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cs") for letter in text)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else."""


for _kind, _pattern in _PLAIN_VALUES.items():
    # The dumper keeps YAML 1.1's rules as well, so that text which either version misreads is quoted.
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), None)
# PyYAML's own takes 010 for 8.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def read_tree(text: str, source: str) -> dict[str, Any]:
    """Return the mapping that ``text`` says; empty for an empty text.

    Args:
        text: YAML.
        source: what complaints call it, such as the file's name.

    Raises:
        SpecError: the text is not YAML (the message says the line), or not a mapping.
    """
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a safe one
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError([f"{source}: {where}must be YAML, but {_problem(error)}."]) from None
    if not isinstance(tree, dict | None):
        raise SpecError([f"{source}: must be a mapping such as 'trials: 20', got {shown(tree)}."])
    return tree or {}


def read_packaged(path: Path) -> dict[str, Any]:
    """Return what a file that comes with carsweep says; libyaml reads it ten times as fast, where PyYAML has it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tree: dict[str, Any] = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - both are safe
    return tree


def read_value(text: str) -> Any:
    """Return the scalar, list or mapping that one value on the command line says.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a safe one
    except yaml.YAMLError as error:
        raise ValueError(
            f"must be YAML such as 0.3, [0.1, 0.2] or 'a text', got {shown(text)}: {_problem(error)}."
        ) from None


def write_value(value: Any) -> str:
    """Return one value as YAML on one line, which ``read_value`` reads back.

    >>> write_value({"low": 1e-4, "log": True}), write_value("2:1"), write_value(None)
    ('{low: 0.0001, log: true}', "'2:1'", 'null')
    """
    value = [*value] if isinstance(value, tuple) else value
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text.strip().removesuffix("...").strip()


def write_tree(tree: Mapping[str, Any]) -> str:
    """Return ``tree`` as YAML that ``read_tree`` reads back to the same values."""
    text: str = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _problem(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error).splitlines()[0]
    problem = str(error.problem or error.context).removeprefix("but ")
    if "'\\t'" in problem:
        problem += "; indent with spaces"
    # What PyYAML calls the end of the text.
    return problem.replace("'\\x00'", "its end").replace("'<stream end>'", "its end")
