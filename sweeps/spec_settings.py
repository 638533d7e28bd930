"""What a spec says of the settings of trials: each value and domain read once, as a TrialConfig holds it.

No rule of a TrialConfig is about two settings together. So trials whose settings were all read here are valid, and are
put together without another check.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from carcls.config import TrialConfig
from carcls.errors import SpecError, shown
from sweeps.documented import find_experiment
from sweeps.space import Choice, Domain, FloatDomain, IntDomain, parse_domain
from sweeps.space_conditions import when_mistakes
from sweeps.spec_mistakes import MOST_MISTAKES, TRIAL_SETTINGS, brackets, nearest_setting, sentence


@dataclass(slots=True)
class Reader:
    """One reading of a spec; each part is returned without what is wrong in it.

    Attributes:
        of_sweep: what the sweep itself has, which is no setting of trials.
        bare: fixed settings that the user named without ``fixed.`` in front, as on the command line.
        mistakes: found so far, each beginning with its path; where they are too many, reading ends early.
    """

    of_sweep: Collection[str]
    bare: frozenset[str] = frozenset()
    mistakes: list[str] = field(default_factory=list)

    def read(self, part: str, value: Any) -> Any:
        """Return ``config``, ``fixed``, ``search``, ``experiments`` or ``starts`` as a spec holds it."""
        match part:
            case "search":
                return self._search(self._mapping(part, value, "domains"))
            case "experiments":
                return self._experiments(self._list(part, value, str, "names"))
            case "starts":
                starts = self._list(part, value, Mapping, "mappings from settings to values")
                for place, settings in enumerate(starts):
                    self._settings(f"{part}[{place}]", settings)
                return tuple(dict(settings) for settings in starts)
        return self._settings(part, self._mapping(part, value, "values"))

    def _mapping(self, part: str, value: Any, of_what: str) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        self.mistakes.append(f"{part}: must be a mapping from settings to {of_what}, got {shown(value)}.")
        return {}

    def _list(self, part: str, value: Any, kind: type, of_what: str) -> list[Any]:
        if isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value):
            return list(value)
        remedy = brackets("a list", value) if kind is str else ""
        self.mistakes.append(f"{part}: must be a list of {of_what}, got {shown(value)}.{remedy}")
        return []

    def _settings(self, path: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for name, value in settings.items():
            is_bare = path == "fixed" and name in self.bare and name in TRIAL_SETTINGS
            for right in self._right(name, [(name if is_bare else f"{path}.{name}", value)]):
                read[name] = right
            if self._has_enough:
                break
        return read

    def _right(self, name: str, values: Iterable[tuple[str, Any]]) -> list[Any]:
        """Return those values (each with its path) that the setting can have, as a TrialConfig holds them."""
        right = []
        for path, value in values:
            try:
                self._require_setting(name, path)
                right.append(read_setting(name, value, path))
            except SpecError as error:
                self.mistakes += error.mistakes
            if self._has_enough:
                break
        return right

    def _require_setting(self, name: str, path: str) -> None:
        if name in TRIAL_SETTINGS:
            return
        if name in self.of_sweep:
            belongs = f"and {name} is the sweep's. Say {name} at the top of the spec."
            raise SpecError([f"{path}: must be a setting of a trial, {belongs}"])
        raise SpecError([f"{path}: must be a setting of a trial, got {shown(name)}." + nearest_setting(name)])

    @property
    def _has_enough(self) -> bool:
        return len(self.mistakes) > MOST_MISTAKES

    def _search(self, search: Mapping[str, Any]) -> dict[str, Domain]:
        domains: dict[str, Domain] = {}
        for name, value in search.items():
            path = f"search.{name}"
            try:
                self._require_setting(name, path)
                domains[name] = self._domain(name, _domain_of(name, value, path), path)
            except SpecError as error:
                self.mistakes += error.mistakes
            if self._has_enough:
                return domains
        self.mistakes += when_mistakes(domains)
        return domains

    def _domain(self, name: str, domain: Domain, path: str) -> Domain:
        """Return the domain with choices and conditions as a TrialConfig holds them.

        Raises:
            SpecError: two choices are the same setting.
        """
        changes: dict[str, Any] = {
            "when": tuple(
                (parent, tuple(self._right(parent, ((f"{path}.when.{parent}", value) for value in values))))
                for parent, values in domain.when
            )
        }
        if isinstance(domain, Choice):
            places = ((f"{path}[{place}]", choice) for place, choice in enumerate(domain.choices))
            changes["choices"] = tuple(self._right(name, places)) or domain.choices
        else:
            self._right(name, zip((f"{path}.low", f"{path}.high"), domain.ends(), strict=True))
        try:
            return replace(domain, **changes)
        except ValueError as error:
            raise SpecError([f"{path}.{str(error).replace(' ', ': ', 1)}"]) from None

    def _experiments(self, names: list[str]) -> tuple[str, ...]:
        known: list[str] = []
        for place, name in enumerate(names):
            try:
                if name in known:
                    raise ValueError(f"must differ from the ones before, got {shown(name)} twice.")
                known.append(find_experiment(name).name)
            except ValueError as error:
                self.mistakes.append(f"experiments[{place}]: {str(error).removeprefix('experiment ')}")
            if self._has_enough:
                break
        return tuple(known)


def read_setting(name: str, value: Any, path: str) -> Any:
    """Return the value as a TrialConfig holds it: 1 becomes 1.0 where a number is meant.

    Raises:
        SpecError: the setting cannot have this value; the sentence begins with ``path``.
    """
    kind = _kind_of(name)
    if isinstance(value, bool) and kind in (int, float):
        raise SpecError([f"{path}: must be {'a whole number' if kind is int else 'a number'}, got {shown(value)}."])
    try:
        return _adapter(name).validate_python(value)
    except ValidationError as error:
        hint = f" To search over several values say search.{name}." if isinstance(value, list | dict) else ""
        told = [f"{path}: {sentence(detail, name)}{hint}" for detail in error.errors(include_url=False)]
        raise SpecError(told) from None


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(TrialConfig.model_fields[name].rebuild_annotation())


def _kind_of(name: str) -> Any:
    """Return the type of a setting's values, None aside."""
    annotation = TrialConfig.model_fields[name].annotation
    # Annotated[int, …] | None
    return get_args(get_args(annotation)[0])[0] if type(None) in get_args(annotation) else annotation


def _domain_of(name: str, value: Any, path: str) -> Domain:
    kind = _kind_of(name)
    if isinstance(value, FloatDomain | IntDomain | Choice):
        return value
    domain = parse_domain(value, path, integer=kind is int)
    if kind not in (int, float) and not isinstance(domain, Choice):
        rule = "true or false" if kind is bool else "a name"
        raise SpecError([f"{path}: must be a list of choices, since {name} is {rule}, got {shown(value)}."])
    return domain
