"""How a spec comes together: the packaged YAML, then a user's file, then ``--set``, then options of the command line.

A layer is a partial spec, as plain values. A later layer has the last word: fixing a setting, or giving it in
``config``, takes it out of the search; ``null`` takes away what an earlier layer gave.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carcls.config import TrialConfig
from carcls.errors import SpecError, nearest, shown
from sweeps.spec.mistakes import nearest_setting
from sweeps.spec.spec import SECTIONS, SWEEP_SETTINGS, Tree
from sweeps.spec.values import TRIAL_SETTINGS
from sweeps.spec.yaml_text import is_plain_text, read_tree, read_value

_ALSO_CALLED = {"space": "search"}
_MOST_BYTES = 100_000
_LONGEST_KEY = 100
_TEXT = {"name", "note", "confirm", "price", "disk", "data", "data.path", "data.name"} | {
    name for name in TRIAL_SETTINGS if TrialConfig.model_fields[name].annotation is str
}


def layer_of_file(path: Path | None, mistakes: list[str]) -> Tree:
    """Return the layer that a YAML file says; none says nothing. What is wrong with it is added to ``mistakes``."""
    try:
        return read_tree(_text_of(path), path.name) if path else {}
    except SpecError as error:
        mistakes += error.mistakes
        return {}


def _text_of(path: Path) -> str:
    """Return what the file says; never more than a spec can have, be it a pipe, a device or a model's weights."""
    reason = ""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) <= _MOST_BYTES:
            return content.decode("utf-8")
        reason = f"it has more than {_MOST_BYTES // 1000} kB"
    except UnicodeDecodeError:
        reason = "it is no text in UTF-8"
    except (OSError, ValueError) as error:  # ValueError: a path with a character that no path has
        reason = (getattr(error, "strerror", None) or str(error)).lower()
    raise SpecError([f"--spec: must be a readable YAML file, got {shown(str(path))}: {reason}.{_file_meant(path)}"])


def _file_meant(path: Path) -> str:
    """Return the remedy for a path that is no file, where there is a specification that may have been meant."""
    is_folder = os.path.isdir(path)  # noqa: PTH112 - unlike Path's, no error for a path that cannot be
    if not is_folder and os.path.exists(path):  # noqa: PTH110
        return ""
    names = sorted(found.name for found in itertools.islice((path if is_folder else path.parent).glob("*.y*ml"), 100))
    if is_folder:
        return f" Name a file in it, such as {path / names[0]}." if names else ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.with_name(close[0])}?" if close else ""


def layer_of_sets(sets: Sequence[str], mistakes: list[str]) -> Tree:
    """Return the layer that ``KEY=VALUE`` texts say; what is wrong with them is added to ``mistakes``."""
    layer: Tree = {}
    for text in sets:
        try:
            _assign(layer, *_read_set(text))
        except ValueError as error:
            mistakes.append(f"--set {text.partition('=')[0].strip()[:_LONGEST_KEY]}: {error}")
    return layer


def _read_set(text: str) -> tuple[str, Any]:
    key, _, raw = (part.strip() for part in text.partition("="))
    value = read_value(raw)
    says_nothing = value is None and raw.lower() not in ("null", "~")
    if says_nothing or "" in key.split(".") or len(key) > _LONGEST_KEY:
        raise ValueError(f"must be KEY=VALUE, such as dropout=0.3, got {shown(text)}.")
    # A sweep may be called 2024, and a schedule may look like a number.
    return key, raw if key in _TEXT and isinstance(value, bool | int | float) else value


def layer_of_overrides(overrides: Mapping[str, Any], mistakes: list[str]) -> Tree:
    """Return the layer that command-line options say; those that are None say nothing. Mistakes as above."""
    layer: Tree = {}
    for key, value in overrides.items():
        try:
            if isinstance(value, str) and not is_plain_text(value):
                raise ValueError(f"must be text in UTF-8 without control characters, got {shown(value)}.")
            if value is not None:
                _assign(layer, key, value)
        except ValueError as error:
            mistakes.append(f"{key}: {error}")
    return layer


def _assign(layer: Tree, key: str, value: Any) -> None:
    """Put ``value`` where ``key`` points in ``layer``.

    A bare setting of the trials goes to ``fixed``; ``data`` with a text is the data set's path; dots address the tree.

    Raises:
        ValueError: the key points nowhere.
    """
    head, *rest = key.split(".")
    head = _ALSO_CALLED.get(head, head)
    if not rest and head in TRIAL_SETTINGS:
        head, rest = "fixed", [head]
    elif head == "data" and not rest and not isinstance(value, Mapping):
        rest = ["path"]
    if not rest and head not in (*SWEEP_SETTINGS, *SECTIONS):
        known = (*TRIAL_SETTINGS, *SWEEP_SETTINGS, *SECTIONS)
        raise ValueError(
            f"must be a setting of the trials or of the sweep, got {shown(head)}." + nearest_setting(head, known)
        )
    if rest and head not in SECTIONS:
        raise ValueError(f"must begin with a section of the spec, got {shown(head)}." + nearest(head, SECTIONS))
    *sections, name = (head, *rest)
    for part in sections:
        if not isinstance(layer.get(part), dict):
            layer[part] = {}
        layer = layer[part]
    layer[name] = value


def merge(tree: Tree, layer: Tree, mistakes: list[str]) -> Tree:
    """Return ``tree`` with ``layer`` laid over it; contradictions found on the way are added to ``mistakes``."""
    merged = {**tree, **{key: value for key, value in layer.items() if key not in SECTIONS}}
    for section in SECTIONS:
        merged[section] = _merge_section(section, tree.get(section), layer.get(section))
    fixed, search, config = (names_in(layer.get(section)) for section in ("fixed", "search", "config"))
    mistakes += [
        f"search.{name}: must not be fixed and searched at once; leave one of the two out."
        for name in sorted(fixed & search)
    ]
    mistakes += [
        f"config.{name}: must not be given where {name} is fixed for every trial (to "
        f"{shown(merged['fixed'][name])}); fix it to the new value with --set {name}=VALUE, or take it from fixed."
        for name in sorted((config & names_in(merged["fixed"])) - fixed - search)
    ]
    if isinstance(merged["search"], dict):
        taken = (fixed | config) - search
        merged["search"] = {name: domain for name, domain in merged["search"].items() if name not in taken}
    return merged


def _merge_section(section: str, old: Any, new: Any) -> Any:
    if new is None:
        return old
    # What is no mapping goes on as it is: the spec says what is wrong with it.
    if not isinstance(new, Mapping) or not isinstance(old or {}, Mapping):
        return new
    merged = {**(old or {}), **new}
    if section == "search":
        merged |= {name: _merge_domain((old or {}).get(name), domain) for name, domain in new.items()}
    if section != "data":
        merged = {name: value for name, value in merged.items() if value is not None}
    return merged


def _merge_domain(old: Any, new: Any) -> Any:
    ranges = all(isinstance(domain, Mapping) and "choices" not in domain for domain in (old, new))
    return {**old, **new} if ranges else new


def names_in(section: Any) -> set[str]:
    """Return the names that a section gives a value; none when it is no mapping."""
    return {name for name, value in section.items() if value is not None} if isinstance(section, Mapping) else set()
