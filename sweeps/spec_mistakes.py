"""What is wrong with a spec, in our words instead of pydantic's: sentences that begin with the path of the setting."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from carcls.config import TrialConfig
from carcls.errors import nearest, shown

# The seed is the sweep's, and the family is what is run.
TRIAL_SETTINGS = tuple(name for name in TrialConfig.model_fields if name not in ("family", "seed"))
# So many mistakes are told at once; nobody mends more of them before the next try.
MOST_MISTAKES = 20
_RULES = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "literal_error": "one of {expected}",
    "finite_number": "a finite number",
}
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text"}
_KINDS |= {"dict": "a mapping", "model": "a mapping", "mapping": "a mapping", "list": "a list", "tuple": "a list"}
# What was meant by a text or a truth value in place of a mapping.
_MEANT = {
    "data": " Name the folder: data: {path: FOLDER}.",
    "early_stopping": " To turn it off say early_stopping: {enabled: false}.",
}


def first_ones(mistakes: Iterable[str]) -> list[str]:
    """Return the first mistakes, so many as can be told at once and one more; the others are not looked for."""
    return list(itertools.islice(mistakes, MOST_MISTAKES + 1))


def shortened(mistakes: Iterable[str]) -> list[str]:
    """Return each mistake once; where they are too many, the first ones and a line that says so."""
    different = list(dict.fromkeys(mistakes))
    more = ["… and more mistakes: mend these first."] if len(different) > MOST_MISTAKES else []
    return different[:MOST_MISTAKES] + more


def nearest_setting(name: str, known: Sequence[str] = TRIAL_SETTINGS) -> str:
    """End a message on an unknown setting, as ``nearest`` does."""
    return nearest(name.replace("learning_rate", "lr"), known)


def sentences(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """Say each mistake that building ``model`` raised; its field names complete "did you mean"."""
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
        name = str(location[-1]) if location else ""
        if detail["type"] != "extra_forbidden":
            yield f"{path}: {sentence(detail, name)}"
        elif path in TRIAL_SETTINGS:
            yield f"{path}: must be under config, fixed or search, since it is a setting of a trial."
        else:
            known = _fields_at(model, location[:-1])
            yield f"{path}: must be a known key, got {shown(name)}." + nearest(name, known)


def sentence(detail: Mapping[str, Any], name: str) -> str:
    """Say one of pydantic's mistakes in the value of ``name``, without its path."""
    kind = detail["type"]
    if kind == "value_error":
        return str(detail["ctx"]["error"]).removeprefix(f"{name} ")
    if kind == "missing":
        return "must be given."
    expected = str(detail.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ")
    got = f", got {shown(detail['input'])}."
    if kind in _RULES:
        rule = _RULES[kind].format(**{**detail.get("ctx", {}), "expected": expected})
        hint = nearest(detail["input"], expected.split(", ")) if isinstance(detail["input"], str) and expected else ""
        return f"must be {rule}{got}" + hint.split(" Known:", maxsplit=1)[0]
    if kind.split("_")[0] in _KINDS:
        rule = _KINDS[kind.split("_")[0]]
        return f"must be {rule}{got}{_MEANT.get(name, '') if rule == 'a mapping' else brackets(rule, detail['input'])}"
    return f"must be valid ({detail['msg'].lower()}){got}"


def brackets(rule: str, value: Any) -> str:
    """End a message on a text in the place of a list."""
    return f" Put it in brackets: [{shown(value)}]." if rule.startswith("a list") and isinstance(value, str) else ""


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    for part in location:
        inner = model.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
