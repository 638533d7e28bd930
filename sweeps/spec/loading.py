"""Where a spec comes from: layers over a packaged YAML, or over the spec that a sweep was begun with.

packaged YAML  <  --spec FILE  <  --set KEY=VALUE  <  options of the command line        (later ones win)

A layer is a partial spec, as plain values. A later layer has the last word: fixing a setting, or giving it in
``config``, takes it out of the search; ``null`` takes away what an earlier layer gave.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from carcls.catalog import FAMILIES
from carcls.config import NEIGHBOUR_SETTINGS, TrialConfig
from carcls.errors import SpecError, nearest, shown
from sweeps.spec.mistakes import Mistakes, nearest_setting
from sweeps.spec.space import Choice
from sweeps.spec.spec import COMPLETE, SECTIONS, SWEEP_SETTINGS, SweepSpec, Tree
from sweeps.spec.values import TRIAL_SETTINGS
from sweeps.spec.yaml_text import is_plain_text, read_packaged, read_tree, read_value

SPECS_FOLDER = Path(__file__).parent / "presets"
_ALSO_CALLED = {"space": "search", "images": "data.images"}
_MOST_BYTES = 100_000
_LONGEST_KEY = 100
_TEXT = {
    "name",
    "note",
    "confirm",
    "price",
    "disk",
    "data",
    "images",
    "data.path",
    "data.images",
    "data.label",
    "data.name",
} | {name for name in TRIAL_SETTINGS if TrialConfig.model_fields[name].annotation is str}


def load_spec(
    family: str,
    *,
    spec_file: Path | None = None,
    sets: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    demo: bool = False,
) -> SweepSpec:
    """Return the spec that the packaged YAML, a file, ``--set`` and the command line's options make together.

    Without a spec file and without a data set of the user's, the demo preset is where it starts.

    Args:
        family: which family of trials.
        spec_file: a user's YAML; may be partial, or say ``complete: true``: then nothing packaged is laid under it.
        sets: ``KEY=VALUE`` texts; see carcls.config.TrialConfig for the keys that need no path.
        overrides: spec fields or settings of trials by name (``trials``, ``data``, ``weights``, …); None says nothing.
        demo: start from the demo preset whatever else is given.

    Raises:
        SpecError: all mistakes together, each beginning with its path.
    """
    if family not in FAMILIES:
        raise SpecError([f"family: must be a known one, got {shown(family)}." + nearest(family, FAMILIES)])
    mistakes, said = Mistakes(), Tree()
    if spec_file:
        with mistakes:
            said = read_tree(_text_of(Path(spec_file)), Path(spec_file).name)
    words = _layers_of_words(sets, overrides or {}, mistakes)
    own_data = any(isinstance(layer.get("data"), Mapping) and layer["data"].get("path") for layer in words)
    small = demo or not (spec_file or own_data)
    complete = said.pop(COMPLETE, False)
    if not isinstance(complete, bool):
        mistakes.note(f"{COMPLETE}: must be true or false, got {shown(complete)}.")
    base = {**said, "family": family} if complete else _packaged(family)
    return _lay_over(base, [*([_packaged(f"demo-{family}")] if small else []), said, *words], mistakes)


def edit_spec(spec: SweepSpec, sets: Sequence[str], overrides: Mapping[str, Any]) -> SweepSpec:
    """Return the spec with ``--set`` texts and options laid over it.

    Raises:
        SpecError: all mistakes together, each beginning with its path.
    """
    mistakes = Mistakes()
    return _lay_over(spec.to_tree(), _layers_of_words(sets, overrides, mistakes), mistakes)


def _lay_over(tree: Tree, layers: Sequence[Tree], mistakes: Mistakes) -> SweepSpec:
    """Return the spec of a tree with all layers over it; none may turn the sweep into one of another family."""
    family = tree["family"]
    for layer in layers:
        got = layer.get("family", family)
        if got != family:
            remedy = f" For that one say carsweep run {got}." if got in [*FAMILIES] else ""
            mistakes.note(f"family: must be {family}, which is what was asked for, got {shown(got)}.{remedy}")
        foreign = () if FAMILIES[family].neighbours else NEIGHBOUR_SETTINGS  # they would be silently without effect
        said = set().union(*(_names_in(layer.get(section)) for section in ("config", "fixed", "search")))
        for name in (name for name in foreign if name in said):
            reason = f"must be left out, since the {family} family has no neighbours"
            mistakes.note(f"{name}: {reason}. For those say carsweep run retrieval.")
        tree = {**_merge(tree, layer, mistakes), "family": family}
    with mistakes:
        spec = SweepSpec.from_tree(tree)
    mistakes.raise_all()
    return spec


# What a file says


def _text_of(path: Path) -> str:
    """Return what the file says; never more than a spec can have, be it a pipe, a device or a model's weights."""
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
    names = sorted(found.name for found in itertools.islice((path if is_folder else path.parent).glob("*.y*ml"), 100))
    if is_folder:
        return f" Name a file in it, such as {path / names[0]}." if names else ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return "" if close in ([], [path.name]) else f" Did you mean {path.with_name(close[0])}?"


# What the command line says


def _layers_of_words(sets: Sequence[str], overrides: Mapping[str, Any], mistakes: Mistakes) -> tuple[Tree, Tree]:
    """Return the layers that ``KEY=VALUE`` texts and options say; options that are None say nothing."""
    of_sets, of_options = Tree(), Tree()
    for text in sets:
        try:
            _assign(of_sets, *_read_set(text))
        except ValueError as error:
            mistakes.note(f"--set {text.partition('=')[0].strip()[:_LONGEST_KEY]}: {error}")
    for key, value in overrides.items():
        if isinstance(value, str) and not is_plain_text(value):
            mistakes.note(f"{key}: must be text in UTF-8 without control characters, got {shown(value)}.")
        elif value is not None:
            try:
                _assign(of_options, key, value)
            except ValueError as error:
                mistakes.note(f"{key[:_LONGEST_KEY]}: {error}")
    return of_sets, of_options


def _read_set(text: str) -> tuple[str, Any]:
    key, _, raw = (part.strip() for part in text.partition("="))
    value = read_value(raw)
    says_nothing = value is None and raw.lower() not in ("null", "~")
    if says_nothing or "" in key.split(".") or len(key) > _LONGEST_KEY:
        raise ValueError(f"must be KEY=VALUE, such as dropout=0.3, got {shown(text)}.")
    # A sweep may be called 2024, and a schedule may look like a number.
    return key, raw if key in _TEXT and isinstance(value, bool | int | float) else value


def _assign(layer: Tree, key: str, value: Any) -> None:
    """Put ``value`` where ``key`` points in ``layer``.

    A bare setting of the trials goes to ``fixed``; ``data`` with a text is the data set's path; dots address the tree.

    Raises:
        ValueError: the key points nowhere.
    """
    head, *rest = key.split(".")
    head, *rest = (*_ALSO_CALLED.get(head, head).split("."), *rest)
    known = SECTIONS if rest else (*TRIAL_SETTINGS, *SWEEP_SETTINGS, *SECTIONS)
    if head not in known:
        rule = "begin with a section of the spec" if rest else "be a setting of the trials or of the sweep"
        raise ValueError(f"must {rule}, got {shown(head)}." + nearest_setting(head, known))
    if not rest and head in TRIAL_SETTINGS:
        head, rest = "fixed", [head]
    elif head == "data" and not rest and not isinstance(value, Mapping):
        rest = ["path"]
    *sections, name = (head, *rest)
    for part in sections:
        if not isinstance(layer.get(part), dict):
            layer[part] = {}
        layer = layer[part]
    layer[name] = value


# A layer over a tree


def _merge(tree: Tree, layer: Tree, mistakes: Mistakes) -> Tree:
    """Return ``tree`` with ``layer`` laid over it; contradictions found on the way are noted."""
    merged = {**tree, **{key: value for key, value in layer.items() if key not in SECTIONS}}
    for section in SECTIONS:
        merged[section] = _merge_section(section, tree.get(section), layer.get(section))
    fixed, search, config = (_names_in(layer.get(section)) for section in ("fixed", "search", "config"))
    both = _names_in(tree.get("fixed")) & _names_in(tree.get("search"))  # fixed in the documented experiments only
    for name in sorted((fixed & search) - both):
        mistakes.note(f"search.{name}: must not be fixed and searched at once; leave one of the two out.")
    for name in sorted((config & _names_in(merged["fixed"])) - fixed - search):
        mistakes.note(
            f"config.{name}: must not be given where {name} is fixed for every trial (to "
            f"{shown(merged['fixed'][name])}); fix it to the new value with --set {name}=VALUE, or take it from fixed."
        )
    if isinstance(merged["search"], dict):
        taken = (fixed | config) - search
        merged["search"] = {name: domain for name, domain in merged["search"].items() if name not in taken}
    return merged


def _merge_section(section: str, old: Any, new: Any) -> Any:
    if new is None:
        return old
    if section == "data" and isinstance(new, str):
        new = {"path": new}
    # What is no mapping goes on as it is: the spec says what is wrong with it.
    if not isinstance(new, Mapping) or not isinstance(old or {}, Mapping):
        return new
    merged = {**(old or {}), **new}
    if section == "search":
        for name, domain in new.items():
            both = ((old or {}).get(name), domain)
            ranges = [said for said in both if isinstance(said, Mapping) and "choices" not in said]
            if len(ranges) == len(both):
                merged[name] = {**ranges[0], **ranges[1]}
    return merged if section == "data" else {name: value for name, value in merged.items() if value is not None}


def _names_in(section: Any) -> set[str]:
    """Return the names that a section gives a value; none when it is no mapping."""
    return {name for name, value in section.items() if value is not None} if isinstance(section, Mapping) else set()


# What comes with carsweep


def packaged_specs() -> dict[str, str]:
    """Return the texts of the specs that come with carsweep, by name; the first comment is the command that runs it."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(SPECS_FOLDER.glob("*.yaml"))}


def _packaged(name: str) -> Tree:
    return read_packaged(SPECS_FOLDER / f"{name}.yaml")


def cut_neighbours(spec: SweepSpec, gallery: int) -> SweepSpec:
    """Return the spec without those choices of k that exceed the gallery, where nobody gave them; else the spec."""
    domain = spec.search.get("k")
    if not isinstance(domain, Choice):
        return spec
    fitting = tuple(k for k in domain.choices if int(k) <= gallery)
    packaged = (_packaged(name)["search"].get("k") for name in (spec.family, f"demo-{spec.family}"))
    if fitting in ((), domain.choices) or domain.plain() not in packaged:
        return spec
    return spec.model_copy(update={"search": {**spec.search, "k": replace(domain, choices=fitting)}})


def with_neighbours_of(before: SweepSpec, spec: SweepSpec) -> SweepSpec:
    """Return the spec with no more neighbours than those that the same sweep was begun with, which its gallery has."""
    neighbours = before.search.get("k")
    return spec if neighbours is None else cut_neighbours(spec, int(max(neighbours.ends())))
