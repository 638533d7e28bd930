"""YAML as specs use it: safe, with line numbers in complaints, and without the surprises of YAML 1.1.

PyYAML reads ``1e-4`` as text, ``2:1`` as 121 and ``off`` as false. Here a number is a number, only ``true`` and
``false`` are truth values, and a key that is written twice is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from carcls.errors import SpecError

_PLAIN_VALUES = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML keeps its resolvers on the class

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if not isinstance(key_node, yaml.ScalarNode) or key in seen:
                problem = f"the key {key!r} is given twice" if key in seen else "a key must be a plain word"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return {str(key): value for key, value in super().construct_mapping(node, deep=deep).items()}

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        return int(node.value)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


for _tag, _pattern, _first in _PLAIN_VALUES:
    # The dumper keeps YAML 1.1's rules as well, so that text which either version misreads is quoted.
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_tree(text: str, source: str) -> dict[str, Any]:
    """Return the mapping that ``text`` says; empty for an empty text.

    Args:
        text: YAML.
        source: what complaints call it, such as the file's name.

    Raises:
        SpecError: the text is not YAML (the message says the line), or not a mapping.
    """
    try:
        tree = _load(text)
    except yaml.YAMLError as error:
        raise SpecError([f"{source}: {_complaint(error)}"]) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SpecError([f"{source}: must be a mapping such as 'trials: 20', got {tree!r}."])
    return tree


def read_value(text: str) -> Any:
    """Return the scalar, list or mapping that one value on the command line says.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return _load(text)
    except yaml.YAMLError as error:
        raise ValueError(_complaint(error)) from None


def write_tree(tree: Mapping[str, Any]) -> str:
    """Return ``tree`` as YAML that ``read_tree`` reads back to the same values."""
    text: str = yaml.dump(dict(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _load(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _complaint(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"must be YAML, but {str(error).splitlines()[0]}."
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}must be YAML, but {error.problem or error.context}."
