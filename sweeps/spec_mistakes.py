"""What is wrong with a spec, in sentences that begin with the path of the setting."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from carcls.config import TrialConfig
from carcls.errors import SpecError, nearest, shown
from sweeps.documented import find_experiment
from sweeps.space import Choice, Domain, FloatDomain, IntDomain, parse_domain
from sweeps.space_conditions import when_mistakes
from sweeps.spec_layers import SWEEP_SETTINGS, TRIAL_SETTINGS, nearest_setting

# So many mistakes are told at once; nobody mends more of them before the next try.
_MOST_MISTAKES = 20
_RULES = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "literal_error": "one of {expected}",
    "finite_number": "a finite number",
    "missing": "given",
    "extra_forbidden": "a known key",
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
    return list(itertools.islice(mistakes, _MOST_MISTAKES + 1))


def shortened(mistakes: Iterable[str]) -> list[str]:
    """Return each mistake once; where they are too many, the first ones and a line that says so."""
    different = list(dict.fromkeys(mistakes))
    more = ["… and more mistakes: mend these first."] if len(different) > _MOST_MISTAKES else []
    return different[:_MOST_MISTAKES] + more


def sentences(error: ValidationError, model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Say each mistake in a sentence, in our words instead of pydantic's.

    Args:
        error: what building ``model`` raised.
        model: the class that was built; its field names complete "did you mean".
        prefix: path of the model in the spec, ``early_stopping.`` for instance; empty at the top.
    """
    for detail in error.errors(include_url=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
        yield f"{prefix}{path.removeprefix('.')}: {_sentence(detail, model)}"


def _sentence(detail: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, location = detail["type"], detail["loc"]
    name = str(location[-1]) if location else ""
    if kind == "value_error":
        return str(detail["ctx"]["error"]).removeprefix(f"{name} ")
    if kind == "missing":
        return "must be given."
    if kind == "extra_forbidden":
        return f"must be a known key, got {shown(name)}." + nearest(name, _fields_at(model, location[:-1]))
    expected = str(detail.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ")
    got = f", got {shown(detail['input'])}."
    if kind in _RULES:
        rule = _RULES[kind].format(**{**detail.get("ctx", {}), "expected": expected})
        hint = nearest(detail["input"], expected.split(", ")) if isinstance(detail["input"], str) and expected else ""
        return f"must be {rule}{got}" + hint.split(" Known:", maxsplit=1)[0]
    if kind.split("_")[0] in _KINDS:
        rule = _KINDS[kind.split("_")[0]]
        return f"must be {rule}{got}{_MEANT.get(name, '') if rule == 'a mapping' else _brackets(rule, detail['input'])}"
    return f"must be valid ({detail['msg'].lower()}){got}"


def _brackets(rule: str, value: Any) -> str:
    return f" Put it in brackets: [{shown(value)}]." if rule == "a list" and isinstance(value, str) else ""


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    for part in location:
        inner = model.model_fields[str(part)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def parse_search(search: Any) -> tuple[dict[str, Domain], list[str]]:
    """Return the domains that a spec's ``search`` says, by setting, and the mistakes in the others."""
    if not isinstance(search, Mapping):
        return {}, [f"search: must be a mapping from settings to domains, got {shown(search)}."]
    domains: dict[str, Domain] = {}
    mistakes: list[str] = []
    for name, value in search.items():
        path = f"search.{name}"
        unknown = _unknown_setting(path, name)
        try:
            if unknown:
                raise SpecError(unknown)
            domains[name] = _domain_of(name, value, path)
        except SpecError as error:
            mistakes += error.mistakes
        if len(mistakes) > _MOST_MISTAKES:
            break
    return domains, mistakes


def _domain_of(name: str, value: Any, path: str) -> Domain:
    kind = _kind_of(name)
    if isinstance(value, FloatDomain | IntDomain | Choice):
        return value
    domain = parse_domain(value, path, integer=kind is int)
    if kind not in (int, float) and not isinstance(domain, Choice):
        rule = "true or false" if kind is bool else "a name"
        raise SpecError([f"{path}: must be a list of choices, since {name} is {rule}, got {shown(value)}."])
    return domain


def trial_mistakes(
    config: Mapping[str, Any],
    fixed: Mapping[str, Any],
    search: Mapping[str, Domain],
    experiments: Sequence[str],
    starts: Sequence[Mapping[str, Any]] = (),
    *,
    bare: frozenset[str] = frozenset(),
) -> Iterator[str]:
    """Build a real TrialConfig of every setting, every domain's ends and every experiment; say what went wrong.

    Args:
        config: base settings.
        fixed: settings of every trial.
        search: domains by setting.
        experiments: names of documented experiments.
        starts: settings of the trials that come next.
        bare: fixed settings that the user named without ``fixed.`` in front, as on the command line.
    """
    for section, settings in (("config", config), ("fixed", fixed)):
        for name, value in settings.items():
            path = name if section == "fixed" and name in bare.intersection(TRIAL_SETTINGS) else f"{section}.{name}"
            yield from setting_mistakes(name, value, path)
    for name, domain in search.items():
        for path, value in _labelled_ends(f"search.{name}", domain):
            yield from setting_mistakes(name, value, path)
    yield from when_mistakes(search, setting_mistakes)
    for place, settings in enumerate(starts):
        for name, value in settings.items():
            yield from setting_mistakes(name, value, f"starts[{place}].{name}")
    yield from _experiment_mistakes(experiments, fixed)


def setting_mistakes(name: str, value: Any, path: str) -> list[str]:
    """Return what a TrialConfig says against ``name`` being ``value``, in sentences that begin with ``path``."""
    unknown = _unknown_setting(path, name)
    if unknown:
        return unknown
    kind = _kind_of(name)
    if isinstance(value, bool) and kind in (int, float):
        return [f"{path}: must be {'a whole number' if kind is int else 'a number'}, got {shown(value)}."]
    try:
        TrialConfig.model_validate({name: value})
    except ValidationError as error:
        hint = f" To search over several values say search.{name}." if isinstance(value, list | dict) else ""
        return [f"{path}: {_sentence(detail, TrialConfig)}{hint}" for detail in error.errors(include_url=False)]
    return []


def _kind_of(name: str) -> Any:
    """Return the type of a setting's values, None aside."""
    annotation = TrialConfig.model_fields[name].annotation
    kinds = (
        [kind for kind in get_args(annotation) if kind is not type(None)] if type(None) in get_args(annotation) else []
    )
    # Annotated[int, …] | None
    return get_args(kinds[0])[0] if kinds else annotation


def _unknown_setting(path: str, name: str) -> list[str]:
    if name in TRIAL_SETTINGS:
        return []
    if name in SWEEP_SETTINGS:
        return [f"{path}: must be a setting of a trial, and {name} is the sweep's. Say {name} at the top of the spec."]
    return [f"{path}: must be a setting of a trial, got {shown(name)}." + nearest_setting(name)]


def _labelled_ends(path: str, domain: Domain) -> Iterator[tuple[str, Any]]:
    if isinstance(domain, Choice):
        yield from ((f"{path}[{index}]", choice) for index, choice in enumerate(domain.choices))
    else:
        yield from zip((f"{path}.low", f"{path}.high"), domain.ends(), strict=True)


def _experiment_mistakes(experiments: Sequence[str], fixed: Mapping[str, Any]) -> Iterator[str]:
    usable = {name: value for name, value in fixed.items() if not setting_mistakes(name, value, name)}
    before: set[str] = set()
    for index, name in enumerate(experiments):
        path = f"experiments[{index}]"
        if name in before:
            yield f"{path}: must differ from the ones before, got {shown(name)} twice."
            continue
        before.add(name)
        try:
            settings = find_experiment(name).settings
            TrialConfig.model_validate({**settings, **usable})
        except ValidationError as error:
            yield from (f"{path}: {text}" for text in sentences(error, TrialConfig))
        except ValueError as error:
            yield f"{path}: {str(error).removeprefix('experiment ')}"


def normal_value(name: str, value: Any) -> Any:
    """Return the value as a TrialConfig holds it (1 becomes 1.0 where a number is meant), or as it is when invalid."""
    if setting_mistakes(name, value, name):
        return value
    return getattr(TrialConfig.model_validate({name: value}), name)


def normal_domain(name: str, domain: Domain) -> dict[str, Any]:
    """Return the fields of the domain that hold values of settings, with each as a TrialConfig holds it."""
    when = tuple((parent, tuple(normal_value(parent, value) for value in values)) for parent, values in domain.when)
    if isinstance(domain, Choice):
        return {"choices": tuple(normal_value(name, choice) for choice in domain.choices), "when": when}
    return {"when": when}
