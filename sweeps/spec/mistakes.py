"""Mistakes, all reported at once; what pydantic says of a spec is said in our words, beginning with a path."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from carcls.errors import InputError, SpecError, nearest, shown
from sweeps.spec.values import TRIAL_SETTINGS, PartError, value_of
from sweeps.spec.yaml_text import read_value, write_value

# So many mistakes are reported at once; nobody mends more of them before the next try.
MOST_MISTAKES = 20
# What must be, by the name that pydantic has for a mistake, or the first word of it.
_RULES = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "literal_error": "one of {expected}",
    "finite_number": "a finite number",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    **dict.fromkeys(("dict", "model", "mapping"), "a mapping"),
    **dict.fromkeys(("list", "tuple"), "a list"),
}
# What is in a mapping or a list.
_HOLDS = dict.fromkeys(("config", "fixed"), " from settings to values")
_HOLDS |= {
    "search": " from settings to domains",
    "experiments": " of names",
    "starts": " of mappings from settings to values",
}
# What was meant by a text or a truth value in place of a mapping.
_MEANT = {
    "data": " Name the folder: data: {path: FOLDER}.",
    "early_stopping": " To turn it off say early_stopping: {enabled: false}.",
}


def shortened(mistakes: Iterable[str]) -> list[str]:
    """Return each mistake once; where they are too many, the first ones and a line that says so."""
    different = list(dict.fromkeys(itertools.islice(mistakes, 2 * MOST_MISTAKES)))
    more = ["… and more mistakes: mend these first."] if len(different) > MOST_MISTAKES else []
    return different[:MOST_MISTAKES] + more


class Mistakes:
    """What is wrong so far: ``with mistakes:`` around a check notes what it raises, and goes on.

    Attributes:
        found: in the order in which they were found.
    """

    def __init__(self) -> None:
        self.found: list[InputError] = []

    def __enter__(self) -> None:
        """Begin a check."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        """Note the mistake that the check has found."""
        if isinstance(error, InputError):
            self.found.append(error)
        return isinstance(error, InputError)

    def note(self, mistake: str) -> None:
        """Note a sentence, which begins with its path."""
        self.found.append(SpecError([mistake]))

    def raise_all(self) -> None:
        """Raise what was found, each sentence once.

        Raises:
            InputError: the only mistake, or all of them as a SpecError.
        """
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            several = (error.mistakes if isinstance(error, SpecError) else (str(error),) for error in self.found)
            raise SpecError(shortened(itertools.chain.from_iterable(several)))


def nearest_setting(name: str, known: Sequence[str] = TRIAL_SETTINGS) -> str:
    """End a message on an unknown setting, as ``nearest`` does."""
    return nearest(name.replace("learning_rate", "lr"), known)


def sentences(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """Say each mistake that pydantic found in building ``model``, whose field names complete "did you mean"."""
    for detail in error.errors(include_url=False):
        location, cause = detail["loc"], detail.get("ctx", {}).get("error")
        path = _path(location)
        if isinstance(cause, PartError):
            yield from cause.mistakes
        elif detail["type"] == "value_error":
            yield _own_words(str(cause), path, location) + _meant(location, detail["input"])
        elif detail["type"] == "extra_forbidden":
            yield f"{path}: {_unknown(location, model)}"
        else:
            yield f"{path}: {_sentence(detail, location)}"


def _path(location: Sequence[Any]) -> str:
    """Return where a mistake is, as a user finds it: a fixed setting by its name, as it is fixed on the command line.

    >>> _path(("search", "crop", "choices", 1)), _path(("search", "k", "low")), _path(("fixed", "k"))
    ('search.crop[1]', 'search.k.low', 'k')
    """
    path = ""
    for part in location:
        path = f"{path.removesuffix('.choices')}[{part}]" if isinstance(part, int) else f"{path}.{part}"
    return path.removeprefix(".").removeprefix("fixed.")


def _own_words(text: str, path: str, location: Sequence[Any]) -> str:
    """Say what a check of ours said: what it names is what stands at the path, or is a part of it.

    >>> _own_words("low must be at most high", "search.k", ("search", "k"))
    'search.k.low: must be at most high'
    """
    name, _, rule = text.partition(" ")
    if name == "must":
        return f"{path}: {text}"
    return f"{path}: {rule}" if name in location else f"{path}.{name}: {rule}"


def _unknown(location: Sequence[Any], model: type[BaseModel]) -> str:
    """Say what is wrong with a key that nothing is known by."""
    *parents, name = map(str, location)
    if not parents and name in TRIAL_SETTINGS:
        return "must be under config, fixed or search, since it is a setting of a trial."
    field = model.model_fields[parents[0]].annotation if parents else model
    if isinstance(field, type) and issubclass(field, BaseModel):
        return f"must be a known key, got {shown(name)}." + nearest(name, field.model_fields)
    if name in model.model_fields:
        return f"must be a setting of a trial, and {name} is the sweep's. Say {name} at the top of the spec."
    return f"must be a setting of a trial, got {shown(name)}." + nearest_setting(name)


def _sentence(detail: Mapping[str, Any], location: Sequence[Any]) -> str:
    """Say one of pydantic's own mistakes, without its path."""
    kind, name, value, limits = detail["type"], str(location[-1]), detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "must be given, as in {low: 0.0, high: 0.7}." if name in ("low", "high") else "must be given."
    expected = str(limits.get("expected", "")).replace("'", "").replace(" or ", ", ")
    rule = _RULES.get(kind) or _RULES.get(kind.split("_")[0], f"valid ({detail['msg'].lower()})")
    remedy = ""
    if expected and isinstance(value, str):
        remedy = nearest(value, expected.split(", ")).split(" Known:", maxsplit=1)[0]
    elif rule == "a mapping":
        remedy = _MEANT.get(name, "")
    elif rule == "a list" and isinstance(value, str):
        remedy = f" Put it in brackets: [{shown(value)}]."
    remedy = _meant(location, value) or remedy
    rule = rule.format(**{**limits, "expected": expected}) + _HOLDS.get(name, "")
    return f"must be {rule}, got {shown(value)}.{remedy}"


def _meant(location: Sequence[Any], value: Any) -> str:
    """Say what was meant by several values for one setting, or by one value where several are searched; or nothing.

    >>> _meant(("fixed", "head_lr"), "1e-3,1e-2"), _meant(("search", "k"), 3), _meant(("fixed", "crop"), "nne")
    (" To search these values say 'search.head_lr=[1e-3, 1e-2]'.", ' To fix it say k=3.', '')
    """
    section, name = location if len(location) == 2 else ("", "")
    if section not in ("fixed", "config", "search") or name not in TRIAL_SETTINGS:
        return ""
    texts = _values_in(value)
    if isinstance(value, dict) and "low" in value and section != "search":
        return f" To search it say 'search.{name}={write_value(value)}'."
    if not texts or not all(_is_value(name, text) for text in texts):
        return ""
    if len(texts) == 1:
        return f" To fix it say {name}={texts[0]}." if section == "search" else ""
    said = f"{{low: {texts[0]}, high: {texts[-1]}}}" if ".." in str(value) else f"[{', '.join(texts)}]"
    return f" To search these values say 'search.{name}={said}'."


def _values_in(value: Any) -> list[str]:
    """Return the values that were said: one, or those of a list, between commas, or both ends of a range."""
    if isinstance(value, str):
        return [text.strip() for text in re.split(r"\.\.+|,", value)]
    return [write_value(one) for one in (value if isinstance(value, list) else [value])]


def _is_value(name: str, text: str) -> bool:
    with suppress(ValueError):  # pydantic's own is one
        TypeAdapter(value_of(name)).validate_python(read_value(text))
        return True
    return False
