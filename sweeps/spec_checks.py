"""From what YAML says to the fields of a spec, or to all mistakes in it together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from carcls.errors import SpecError, shown
from sweeps.spec_layers import SECTIONS, TRIAL_SETTINGS, Tree
from sweeps.spec_mistakes import first_ones, parse_search, sentences, shortened, trial_mistakes


def checked_fields(
    tree: Tree, model: type[BaseModel], *, bare: frozenset[str] = frozenset(), mistakes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what ``model`` is built from.

    Args:
        tree: plain values, as YAML says them.
        model: the class of specs.
        bare: fixed settings that the user named without ``fixed.`` in front.
        mistakes: found before.

    Raises:
        SpecError: all mistakes together, each beginning with its path.
    """
    found = list(mistakes)
    search, search_mistakes = parse_search(_given(tree, "search", {}))
    config, fixed = (_section(tree, name, found) for name in ("config", "fixed"))
    experiments = _list_of(tree, "experiments", str, "names", found)
    starts = _list_of(tree, "starts", Mapping, "mappings from settings to values", found)
    own = {"config": config, "fixed": fixed, "search": search, "experiments": tuple(experiments)}
    own["starts"] = tuple(dict(settings) for settings in starts)
    rest = {key: {} if value is None and key in SECTIONS else value for key, value in tree.items() if key not in own}
    found += first_ones(_field_mistakes(rest, model))
    found += search_mistakes
    found += first_ones(trial_mistakes(config, fixed, search, experiments, starts, bare=bare))
    if found:
        raise SpecError(shortened(found))
    return {**rest, **own}


def _given(tree: Tree, name: str, default: Any) -> Any:
    return default if tree.get(name) is None else tree[name]


def _section(tree: Tree, name: str, mistakes: list[str]) -> dict[str, Any]:
    section = _given(tree, name, {})
    if isinstance(section, Mapping):
        return dict(section)
    mistakes.append(f"{name}: must be a mapping from settings to values, got {shown(section)}.")
    return {}


def _list_of(tree: Tree, name: str, kind: type, of_what: str, mistakes: list[str]) -> list[Any]:
    items = _given(tree, name, [])
    if isinstance(items, list) and all(isinstance(item, kind) for item in items):
        return items
    remedy = f" Put it in brackets: [{shown(items)[1:-1]}]." if kind is str and isinstance(items, str) else ""
    mistakes.append(f"{name}: must be a list of {of_what}, got {shown(items)}.{remedy}")
    return []


def _field_mistakes(fields: Tree, model: type[BaseModel]) -> Iterator[str]:
    for key in fields:
        if key in TRIAL_SETTINGS:
            yield f"{key}: must be under config, fixed or search, since it is a setting of a trial."
    try:
        model.model_validate({key: value for key, value in fields.items() if key not in TRIAL_SETTINGS})
    except ValidationError as error:
        yield from sentences(error, model)
