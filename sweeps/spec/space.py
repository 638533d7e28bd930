"""What a sweep searches over: a domain for each setting, whose values are such as a TrialConfig takes.

A domain in YAML is a range, ``{low: 0.0, high: 0.7}`` (``log: true``, ``int: true`` and ``step: 2`` as needed), or a
list of choices, ``[adam, adamw]``, which may also be written ``{choices: [adam, adamw]}``. A domain in a mapping may
say ``when: {unfreezing: [full, "1:all"]}``: it is searched only in trials where the other setting has one of these.

A setting is no parameter of a trial where that does not hold, nor where it cannot matter, which ``TrialConfig.neutral``
knows: the learning rate of a frozen backbone. It has its base value then, is not shown, and teaches the sampler
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from functools import cache, partial
from graphlib import CycleError, TopologicalSorter
from random import Random
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from carcls.config import TrialConfig
from carcls.errors import nearest, shown
from sweeps.spec.values import TRIAL_SETTINGS, PartError, When, kind_of, mapping_reader, value_of

Value = TypeVar("Value", bound=str | int | float | bool)
Real = TypeVar("Real", bound=float)
_RANGE_KEYS = ("low", "high", "log", "int", "step", "when")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Range(Generic[Real]):
    """Numbers from ``low`` to ``high``, both included; equally likely per factor when ``log``.

    Without a ``step`` any number; with one the whole numbers ``low``, ``low + step``, … ``high``.

    Raises:
        ValueError: an end is not whole where there is a step; ``low`` is above ``high``; the step does not lead from
            one to the other; or ``log`` has a ``low`` that is not positive, or a step other than 1.
    """

    low: Real
    high: Real
    log: Annotated[bool, Field(strict=True)] = False
    step: Annotated[int, Field(strict=True, ge=1)] | None = None
    when: When = field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> Range[Real]:
        for name in ("low", "high") if self.step is not None else ():
            end: float = getattr(self, name)
            if end % 1:
                raise ValueError(f"{name} must be a whole number, got {end!r}.")
            object.__setattr__(self, name, int(end))  # pydantic's way, since the class is frozen
        if self.low > self.high:
            raise ValueError(f"low must be at most high ({self.high!r}), got {self.low!r}.")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true, got {self.low!r}.")
        if self.step is not None and (self.high - self.low) % self.step:
            raise ValueError(f"step must lead from {self.low} to {self.high} exactly, got {self.step!r}.")
        if self.log and self.step not in (None, 1):
            raise ValueError(f"step must be 1 where log is true, got {self.step!r}.")
        return self

    def ends(self) -> tuple[float, ...]:
        """Return the values that must be allowed for all of the domain to be: low and high."""
        return (self.low, self.high)

    def draw(self, random: Random) -> float:
        """Return a value at random."""
        if self.log:
            exact = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
            # exp(log(x)) may leave the range by a rounding error.
            inside = min(max(exact, float(self.low)), float(self.high))
            return inside if self.step is None else round(inside)
        if self.step is None:
            return random.uniform(self.low, self.high)
        return random.randrange(int(self.low), int(self.high) + 1, self.step)

    def plain(self) -> dict[str, Any]:
        """Return what YAML says for this domain."""
        whole = {} if self.step is None else {"int": True}
        step = {} if self.step in (None, 1) else {"step": self.step}
        log = {"log": True} if self.log else {}
        return {**whole, "low": self.low, "high": self.high, **log, **step, **_plain_when(self.when)}

    def __str__(self) -> str:
        whole = "" if self.step is None else ", whole" if self.step == 1 else f", whole, step {self.step}"
        return f"{self.low:g} to {self.high:g}{whole}" + (", log" if self.log else "")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Choice(Generic[Value]):
    """One of several values, without an order.

    Raises:
        ValueError: there is no choice, one of them is not a plain value, or two are equal.
    """

    choices: tuple[Value, ...]
    when: When = field(default_factory=dict)

    @model_validator(mode="after")
    def _differ(self) -> Choice[Value]:
        if not self.choices:
            raise ValueError("choices must name at least one value, got [].")
        seen: set[Value] = set()
        for choice in self.choices:
            if choice in seen:
                raise ValueError(f"choices must differ from each other, got {shown(choice)} twice.")
            seen.add(choice)
        return self

    def ends(self) -> tuple[Value, ...]:
        """Return the values that must be allowed for all of the domain to be: every choice."""
        return self.choices

    def draw(self, random: Random) -> Value:
        """Return a value at random."""
        return random.choice(self.choices)

    def plain(self) -> list[Value] | dict[str, Any]:
        """Return what YAML says for this domain."""
        return {"choices": list(self.choices)} | _plain_when(self.when) if self.when else list(self.choices)

    def __str__(self) -> str:
        return " | ".join(str(c).lower() if isinstance(c, bool) else str(c) for c in self.choices)


def _plain_when(when: When) -> dict[str, Any]:
    return {"when": {name: list(values) for name, values in when.items()}} if when else {}


Domain = Range[float] | Choice[Any]


@cache
def _adapter(kind: Any, name: str) -> TypeAdapter[Any]:
    """Return what reads domains of a kind for a setting. Made when it is asked for, since few settings are searched."""
    return TypeAdapter(kind[value_of(name)])


def read_domain(name: str, said: Any) -> Any:
    """Return the domain of a setting that YAML says, or that was built in code; a null in it says nothing.

    Raises:
        ValueError: it says no domain, or not one of that setting; pydantic's own error is one too.
    """
    if isinstance(said, Range | Choice):
        said = said.plain()
    if isinstance(said, list | tuple):
        said = {"choices": said}
    if not isinstance(said, Mapping):
        raise ValueError(f"must be a range {{low: …, high: …}} or a list of choices, got {shown(said)}.")
    known = ("choices", "when") if "choices" in said else _RANGE_KEYS
    unknown = [
        f"search.{name}.{key}: must be a known key, got {shown(key)}." + nearest(key, known)
        for key in said
        if key not in known
    ]
    if unknown:
        raise PartError(unknown)
    given = {key: value for key, value in said.items() if value is not None}
    return _adapter(Choice if "choices" in said else Range, name).validate_python(
        given if "choices" in said else _with_step(name, given)
    )


def _with_step(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a range says, with a step of 1 in the place of ``int: true``."""
    kind = kind_of(name)
    if kind not in (int, float):
        rule = "true or false" if kind is bool else "a name"
        raise ValueError(f"must be a list of choices, since {name} is {rule}, got {shown(said)}.")
    whole = said.get("int", kind is int or "step" in said)
    if not isinstance(whole, bool) or (kind is int and not whole):
        rule = "true, since this setting takes whole numbers" if kind is int else "true or false"
        raise ValueError(f"int must be {rule}, got {shown(whole)}.")
    if "step" in said and not whole:
        raise ValueError("int must be true where there is a step, got False.")
    given = {key: value for key, value in said.items() if key != "int"}
    return {"step": 1, **given} if whole else given


def parameters_of(config: TrialConfig, search: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the searched settings that are parameters of this trial, with their values."""
    neutral = config.neutral()
    return {
        name: getattr(config, name)
        for name, domain in search.items()
        if name not in neutral and all(getattr(config, parent) in values for parent, values in domain.when.items())
    }


def fits(domain: Domain, value: Any) -> bool:
    """Tell whether ``value`` is one that the domain could have given."""
    if isinstance(domain, Choice):
        return any(value == choice and type(value) is type(choice) for choice in domain.choices)
    if isinstance(value, bool) or not isinstance(value, int | float) or not domain.low <= value <= domain.high:
        return False
    return domain.step is None or (value - domain.low) % domain.step == 0


_READERS = {name: Annotated[Any, PlainValidator(partial(read_domain, name))] for name in TRIAL_SETTINGS}
_read_domains = mapping_reader("Search", _READERS)


def _read_search(said: Any) -> dict[str, Domain]:
    """Return the domains that YAML says, whose conditions name values that are searched, and lead to no circle."""
    search = _read_domains(said)
    found = [
        f"search.{name}.when.{parent}: must be among the values searched for {parent} ({search[parent]}), got "
        f"{shown(value)}."
        for name, domain in search.items()
        for parent, values in domain.when.items()
        for value in dict.fromkeys(values)
        if parent in search and not _is_searched(search[parent], value)
    ]
    try:
        TopologicalSorter({name: domain.when for name, domain in search.items()}).prepare()
    except CycleError as error:
        way = list(reversed(error.args[1]))
        found = found or [f"search.{way[0]}.when: must not depend on {way[0]} itself, got {' -> '.join(way)}."]
    if found:
        raise PartError(found)
    return search


def _is_searched(domain: Domain, value: Any) -> bool:
    return value in domain.choices if isinstance(domain, Choice) else fits(domain, value)


Search = Annotated[
    dict[str, Domain],
    PlainValidator(_read_search),
    PlainSerializer(lambda search: {name: domain.plain() for name, domain in search.items()}),
]
