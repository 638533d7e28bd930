"""What is wrong with a spec, in sentences that begin with the path of the setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from carcls.config import TrialConfig
from carcls.errors import SpecError, nearest
from sweeps.documented import find_experiment
from sweeps.space import Choice, Domain, FloatDomain, IntDomain, parse_domain
from sweeps.space_conditions import when_mistakes
from sweeps.spec_layers import TRIAL_SETTINGS

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


def sentences(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return one sentence a mistake, in our words instead of pydantic's.

    Args:
        error: what building ``model`` raised.
        model: the class that was built; its field names complete "did you mean".
        prefix: path of the model in the spec, ``early_stopping.`` for instance; empty at the top.
    """
    found = []
    for detail in error.errors(include_url=False):
        path = ".".join(str(part) for part in detail["loc"])
        found.append(f"{prefix}{path}: {_sentence(detail, model)}")
    return found


def _sentence(detail: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, location = detail["type"], detail["loc"]
    name = str(location[-1]) if location else ""
    if kind == "value_error":
        return str(detail["ctx"]["error"]).removeprefix(f"{name} ")
    if kind == "missing":
        return "must be given."
    if kind == "extra_forbidden":
        return f"must be a known key, got {name!r}." + nearest(name, _fields_at(model, location[:-1]))
    expected = str(detail.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ")
    got = f", got {detail['input']!r}."
    if kind in _RULES:
        rule = _RULES[kind].format(**{**detail.get("ctx", {}), "expected": expected})
        hint = nearest(detail["input"], expected.split(", ")) if isinstance(detail["input"], str) and expected else ""
        return f"must be {rule}{got}" + hint.split(" Known:", maxsplit=1)[0]
    if kind.split("_")[0] in _KINDS:
        return f"must be {_KINDS[kind.split('_')[0]]}{got}"
    return f"must be valid ({detail['msg'].lower()}){got}"


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
        return {}, [f"search: must be a mapping from settings to domains, got {search!r}."]
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
    return domains, mistakes


def _domain_of(name: str, value: Any, path: str) -> Domain:
    kind = TrialConfig.model_fields[name].annotation
    if isinstance(value, FloatDomain | IntDomain | Choice):
        return value
    domain = parse_domain(value, path, integer=kind is int)
    if kind not in (int, float) and not isinstance(domain, Choice):
        rule = "true or false" if kind is bool else "a name"
        raise SpecError([f"{path}: must be a list of choices, since {name} is {rule}, got {value!r}."])
    return domain


def trial_mistakes(
    config: Mapping[str, Any],
    fixed: Mapping[str, Any],
    search: Mapping[str, Domain],
    experiments: Sequence[str],
    starts: Sequence[Mapping[str, Any]] = (),
    *,
    bare: frozenset[str] = frozenset(),
) -> list[str]:
    """Build a real TrialConfig of every setting, every domain's ends and every experiment; return what went wrong.

    Args:
        config: base settings.
        fixed: settings of every trial.
        search: domains by setting.
        experiments: names of documented experiments.
        starts: settings of the trials that come next.
        bare: fixed settings that the user named without ``fixed.`` in front, as on the command line.
    """
    mistakes: list[str] = []
    for section, settings in (("config", config), ("fixed", fixed)):
        for name, value in settings.items():
            path = name if section == "fixed" and name in bare.intersection(TRIAL_SETTINGS) else f"{section}.{name}"
            mistakes += setting_mistakes(name, value, path)
    for name, domain in search.items():
        for path, value in _labelled_ends(f"search.{name}", domain):
            mistakes += setting_mistakes(name, value, path)
    mistakes += when_mistakes(search, setting_mistakes)
    for place, settings in enumerate(starts):
        for name, value in settings.items():
            mistakes += setting_mistakes(name, value, f"starts[{place}].{name}")
    return mistakes + _experiment_mistakes(experiments, fixed)


def setting_mistakes(name: str, value: Any, path: str) -> list[str]:
    """Return what a TrialConfig says against ``name`` being ``value``, in sentences that begin with ``path``."""
    unknown = _unknown_setting(path, name)
    if unknown:
        return unknown
    kind = TrialConfig.model_fields[name].annotation
    if isinstance(value, bool) and kind in (int, float):
        return [f"{path}: must be {'a whole number' if kind is int else 'a number'}, got {value!r}."]
    try:
        TrialConfig.model_validate({name: value})
    except ValidationError as error:
        hint = f" To search over several values say search.{name}." if isinstance(value, list | dict) else ""
        return [f"{path}: {_sentence(detail, TrialConfig)}{hint}" for detail in error.errors(include_url=False)]
    return []


def _unknown_setting(path: str, name: str) -> list[str]:
    if name in TRIAL_SETTINGS:
        return []
    return [f"{path}: must be a setting of a trial, got {name!r}." + nearest(str(name), TRIAL_SETTINGS)]


def _labelled_ends(path: str, domain: Domain) -> Iterator[tuple[str, Any]]:
    if isinstance(domain, Choice):
        yield from ((f"{path}[{index}]", choice) for index, choice in enumerate(domain.choices))
    else:
        yield from zip((f"{path}.low", f"{path}.high"), domain.ends(), strict=True)


def _experiment_mistakes(experiments: Sequence[str], fixed: Mapping[str, Any]) -> list[str]:
    usable = {name: value for name, value in fixed.items() if not setting_mistakes(name, value, name)}
    mistakes: list[str] = []
    for index, name in enumerate(experiments):
        path = f"experiments[{index}]"
        if name in experiments[:index]:
            mistakes.append(f"{path}: must differ from the ones before, got {name!r} twice.")
        try:
            settings = find_experiment(name).settings
            TrialConfig.model_validate({**settings, **usable})
        except ValidationError as error:
            mistakes += [f"{path}: {text}" for text in sentences(error, TrialConfig)]
        except ValueError as error:
            mistakes.append(f"{path}: {str(error).removeprefix('experiment ')}")
    return mistakes


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
