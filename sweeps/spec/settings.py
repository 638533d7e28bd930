"""Every setting that can be named: what it means, its values, what each family has for it and searches.

All of it is read off the models that check a spec, the packaged specs and the documented experiments.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from carcls.catalog import FAMILIES
from carcls.config import MATTERS, TrialConfig
from carcls.data.config import DataConfig
from sweeps.spec.documented import applies_to, experiments_of
from sweeps.spec.fields import EarlyStopping
from sweeps.spec.space import read_domain
from sweeps.spec.spec import SweepSpec
from sweeps.spec.values import TRIAL_SETTINGS
from sweeps.spec.yaml_text import read_packaged

Part = Literal["trial", "data", "early_stopping", "sweep"]
Source = Literal["documented", "packaged spec", "carsweep's default"]
_PRESETS = Path(__file__).parent / "presets"
_MODELS: Mapping[Part, type[BaseModel]] = {
    "trial": TrialConfig,
    "data": DataConfig,
    "early_stopping": EarlyStopping,
    "sweep": SweepSpec,
}
# Nobody comes near to higher limits of numbers.
_BEYOND = 1e6
_KINDS = {"integer": "a whole number", "number": "a number", "string": "text"}
# Sections of a spec in which a setting of trials may stand; `search` was called `space` at first.
_SECTIONS = ("config", "fixed", "search", "space")
# More settings than these that matter in the same trials are not related by that.
_MOST_TOGETHER = 6


@dataclass(frozen=True, slots=True)
class InFamily:
    """What a family has for a setting.

    Attributes:
        default: of searched trials, in the family's packaged spec.
        source: who says so: all documented experiments of the family; else carsweep, for any family; else the family's
            packaged spec.
        search: the domain in the packaged spec as YAML has it; None where it is not searched.
        documented: value by experiment.
    """

    default: Any
    source: Source
    search: Any
    documented: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        path: what it is called: ``dropout``, ``data.margin``, ``trials``.
        part: what it is a setting of.
        meaning: in a few sentences.
        values: which ones it takes, in words.
        choices: values that can be typed as they are.
        families: by family, those in which it means something.
        matters: in which trials it matters, each a condition; empty where it matters in all.
        related: paths of settings that it depends on, or that depend on it.
    """

    path: str
    part: Part
    meaning: str
    values: str
    choices: tuple[str, ...]
    families: Mapping[str, InFamily]
    matters: tuple[str, ...] = ()
    related: tuple[str, ...] = ()


@cache
def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what each field of a model means, as the attributes of its docstring say it.

    >>> meanings(DataConfig)["path"]
    'folder of the data set, or a table of images; null means the embedded demo cars.'
    """
    text = inspect.getdoc(model) or ""
    said = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", text.partition("Attributes:")[2], re.MULTILINE)
    return {name: re.sub(r"\bNone\b", "null", " ".join(words.replace("``", "").split())) for name, words in said}


@cache
def settings() -> Mapping[str, Setting]:
    """Return all settings by their paths, those of trials first."""
    return {setting.path: setting for part in _MODELS for setting in _of_part(part)}


def settings_about(key: str) -> tuple[Setting, ...]:
    """Return the settings that a key names: by its path, a path into a section of a spec, or a section.

    >>> [[found.path for found in settings_about(key)] for key in ("search.dropout.high", "cpus-per-trial", "nothing")]
    [['dropout'], ['cpus_per_trial'], []]
    """
    first, _, rest = key.replace("-", "_").partition(".")
    if first in _SECTIONS and rest:
        found = settings().get(rest.partition(".")[0])
        return (found,) if found and found.part == "trial" else ()
    path = "search" if first == "space" else f"{first}.{rest}".removesuffix(".")
    return tuple(setting for setting in settings().values() if path in (setting.path, setting.path.partition(".")[0]))


def domain_text(name: str, search: Any) -> str:
    """Write what a packaged spec searches for a setting.

    >>> domain_text("head_lr", {"low": 0.0001, "high": 0.01, "log": True})
    '0.0001 to 0.01, log'
    """
    return str(read_domain(name, search))


def _of_part(part: Part) -> Iterator[Setting]:
    model, prefix = _MODELS[part], "" if part in ("trial", "sweep") else f"{part}."
    said, schema = meanings(model), model.model_json_schema()["properties"]
    shared = ("family", "seed") if part == "trial" else ("family", "data", "early_stopping")
    for name in (name for name in model.model_fields if name not in shared):
        path = prefix + name
        families = {family: _in_family(family, part, name) for family in FAMILIES if applies_to(family, path)}
        values, choices = _values(schema[name])
        of_trial = part == "trial"
        related = (one for one in TRIAL_SETTINGS if of_trial and (one in _named_by(name) or name in _named_by(one)))
        matters = _conditions(name) if of_trial else ()
        yield Setting(path, part, said[name], values, choices, families, matters, tuple(related))


def _in_family(family: str, part: Part, name: str) -> InFamily:
    packaged, field = _packaged(family), _MODELS[part].model_fields[name]
    section = {"trial": packaged["config"], "sweep": packaged}.get(part, packaged.get(part, {}))
    own = field.get_default(call_default_factory=True)
    default = section.get(name, own)
    source: Source = "carsweep's default" if default == own else "packaged spec"
    if part != "trial":
        return InFamily(default, source, None, {})
    documented = {one.name: one.settings[name] for one in experiments_of(family) if name in one.settings}
    if documented and all(value == default for value in documented.values()):
        source = "documented"
    return InFamily(default, source, packaged["search"].get(name), documented)


@cache
def _packaged(family: str) -> dict[str, Any]:
    return read_packaged(_PRESETS / f"{family}.yaml")


def _values(schema: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return which values a JSON schema takes, in words, and those that can be typed as they are."""
    one = {**schema, **schema.get("anyOf", [{}])[0]}
    kind, examples = one.get("type"), one.get("examples", [])
    if kind == "array":
        inside, choices = _values(one["items"])
        return f"a list of {'mappings' if inside == 'a mapping' else inside}", choices
    listed = one.get("enum", ["true", "false"] if kind == "boolean" else [])
    words = " | ".join(listed) or f"{_KINDS.get(str(kind), 'a mapping')} {_limits(one)}".rstrip()
    words += f", such as {', '.join(examples)}" if examples else ""
    return words + (", or null" if "anyOf" in schema else ""), tuple(v for v in (*listed, *examples) if v.islower())


def _limits(schema: Mapping[str, Any]) -> str:
    """Write the limits of a number.

    >>> _limits({"minimum": 0.0, "maximum": 0.95}), _limits({"exclusiveMinimum": 0, "maximum": 10})
    ('from 0 to 0.95', 'above 0, at most 10')
    """
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = {key: f"{schema[key]:,.10g}" for key in words if schema.get(key, _BEYOND) < _BEYOND}
    if said.keys() == {"minimum", "maximum"}:
        return f"from {said['minimum']} to {said['maximum']}"
    return ", ".join(f"{words[key]} {limit}" for key, limit in said.items())


def _conditions(name: str) -> tuple[str, ...]:
    return tuple(words for names, words, _ in MATTERS if name in names)


@cache
def _named_by(name: str) -> frozenset[str]:
    """Return the settings that a setting of trials names in its meaning or conditions, or shares a condition with."""
    rules = [(names, words) for names, words, _ in MATTERS if name in names and len(names) <= _MOST_TOGETHER]
    named = [re.findall(r"\w+", words) for _, words in rules] + [re.findall(r"\w+_\w+", meanings(TrialConfig)[name])]
    return frozenset(chain(*named, *(names for names, _ in rules))) - {name}


def differences(before: SweepSpec, after: SweepSpec) -> dict[str, tuple[Any, Any]]:
    """Return what two specs have otherwise: path of a setting -> its value in the one and in the other.

    >>> spec = SweepSpec(family="transfer", trials=4)
    >>> differences(spec, spec.model_copy(update={"trials": 6}))
    {'trials': (4, 6)}
    """
    one, found = before.to_tree(), dict[str, tuple[Any, Any]]()
    for name, new in after.to_tree().items():
        old = one[name]
        if isinstance(old, dict) and isinstance(new, dict):
            found |= {f"{name}.{key}": (old.get(key), new.get(key)) for key in {**old, **new}}
        else:
            found[name] = old, new
    return {name: (old, new) for name, (old, new) in found.items() if old != new}
