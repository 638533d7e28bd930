"""What a sweep searches over: a domain for each setting, whose values are such as a TrialConfig takes.

A domain in YAML is a range, ``{low: 0.0, high: 0.7}`` (``log: true``, ``int: true`` and ``step: 2`` as needed), or a
list of choices, ``[adam, adamw]``, which may also be written ``{choices: [adam, adamw]}``. A domain in a mapping may
say ``when: {unfreezing: [full, "1:all"]}``: it is searched only in trials where the other setting has one of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from carcls.errors import nearest, shown
from sweeps.spec.values import TRIAL_SETTINGS, PartError, When, kind_of, mapping_of, value_of

Value = TypeVar("Value", bound=str | int | float | bool)
Real = TypeVar("Real", bound=float)
Whole = TypeVar("Whole", bound=int)


def _whole(value: float) -> int:
    if not float(value).is_integer():
        raise ValueError(f"must be a whole number, got {value!r}.")
    return int(value)


Flag = Annotated[bool, Field(strict=True)]
# A domain that was built in code is read as what YAML says of one.
_READ = ConfigDict(extra="forbid", revalidate_instances="always")


@dataclass(frozen=True, config=_READ)
class FloatDomain(Generic[Real]):
    """Any number from ``low`` to ``high``, both included; equally likely per factor when ``log``.

    Raises:
        ValueError: an end is not finite, ``low`` is above ``high``, or ``log`` has a ``low`` that is not positive.
    """

    low: Annotated[Real, Field(allow_inf_nan=False)]
    high: Annotated[Real, Field(allow_inf_nan=False)]
    log: Flag = False
    when: When = field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> FloatDomain[Real]:
        _check_order(self.low, self.high)
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true, got {self.low!r}.")
        return self

    def ends(self) -> tuple[float, ...]:
        """Return the values that must be allowed for all of the domain to be: low and high."""
        return (self.low, self.high)

    def draw(self, random: Random) -> float:
        """Return a value at random."""
        if self.log:
            return _within(math.exp(random.uniform(math.log(self.low), math.log(self.high))), self.low, self.high)
        return random.uniform(self.low, self.high)

    def plain(self) -> dict[str, Any]:
        """Return what YAML says for this domain."""
        return {"low": self.low, "high": self.high} | ({"log": True} if self.log else {}) | _plain_when(self.when)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", log" if self.log else "")


@dataclass(frozen=True, config=_READ)
class IntDomain(Generic[Whole]):
    """Whole numbers ``low``, ``low + step``, … ``high``; equally likely per factor when ``log``.

    Raises:
        ValueError: ``low`` is above ``high``, ``step`` does not lead from one to the other, or ``log`` has a ``low``
            below 1 or a ``step`` other than 1.
    """

    low: Annotated[Whole, AfterValidator(_whole)]
    high: Annotated[Whole, AfterValidator(_whole)]
    log: Flag = False
    step: Annotated[int, Field(strict=True, ge=1)] = 1
    when: When = field(default_factory=dict)

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> IntDomain[Whole]:
        _check_order(self.low, self.high)
        if (self.high - self.low) % self.step:
            raise ValueError(f"step must lead from {self.low} to {self.high} exactly, got {self.step!r}.")
        if self.log and self.low < 1:
            raise ValueError(f"low must be at least 1 where log is true, got {self.low!r}.")
        if self.log and self.step != 1:
            raise ValueError(f"step must be 1 where log is true, got {self.step!r}.")
        return self

    def ends(self) -> tuple[int, ...]:
        """Return the values that must be allowed for all of the domain to be: low and high."""
        return (self.low, self.high)

    def draw(self, random: Random) -> int:
        """Return a value at random."""
        if self.log:
            exact = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
            return round(_within(exact, self.low, self.high))
        return random.randrange(self.low, self.high + 1, self.step)

    def plain(self) -> dict[str, Any]:
        """Return what YAML says for this domain."""
        extra = ({"log": True} if self.log else {}) | ({"step": self.step} if self.step != 1 else {})
        return {"int": True, "low": self.low, "high": self.high} | extra | _plain_when(self.when)

    def __str__(self) -> str:
        step = f", step {self.step}" if self.step != 1 else ""
        return f"{self.low} to {self.high}, whole" + step + (", log" if self.log else "")


@dataclass(frozen=True, config=_READ)
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
        return " | ".join(str(choice) for choice in self.choices)


Domain = FloatDomain[float] | IntDomain[int] | Choice[Any]
RANGE_KEYS = ("low", "high", "log", "int", "step", "when")


@cache
def _adapter(kind: Any, name: str) -> TypeAdapter[Any]:
    """Return what reads domains of a kind for a setting. Made when it is asked for, since few settings are searched."""
    return TypeAdapter(kind[value_of(name)])


def read_domain(name: str, said: Any) -> Any:
    """Return the domain of a setting that YAML says, or that was built in code.

    Raises:
        ValueError: it says no domain, or not one of that setting; pydantic's own error is one too.
    """
    kind: Any = type(said)
    if kind in (FloatDomain, IntDomain, Choice):
        return _adapter(kind, name).validate_python(said)
    if isinstance(said, list | tuple):
        said = {"choices": said}
    if not isinstance(said, Mapping):
        raise ValueError(f"must be a range {{low: …, high: …}} or a list of choices, got {shown(said)}.")
    known = ("choices", "when") if "choices" in said else RANGE_KEYS
    unknown = [
        f"search.{name}.{key}: must be a known key, got {shown(key)}." + nearest(key, known)
        for key in said
        if key not in known
    ]
    if unknown:
        raise PartError(unknown)
    if "choices" in said:
        return _adapter(Choice, name).validate_python(said)
    kind = IntDomain if _is_whole(name, said) else FloatDomain
    return _adapter(kind, name).validate_python({key: value for key, value in said.items() if key != "int"})


def _is_whole(name: str, said: Mapping[str, Any]) -> bool:
    """Tell whether a range is one of whole numbers."""
    kind = kind_of(name)
    if kind not in (int, float):
        rule = "true or false" if kind is bool else "a name"
        raise ValueError(f"must be a list of choices, since {name} is {rule}, got {shown(said)}.")
    whole = said.get("int", kind is int)
    if not isinstance(whole, bool):
        raise ValueError(f"int must be true or false, got {shown(whole)}.")
    if kind is int and not whole:
        raise ValueError("int must be true, since this setting takes whole numbers, got False.")
    if not whole and "step" in said:
        raise ValueError(f"step must go with int: true, got {shown(said['step'])}.")
    return whole


if TYPE_CHECKING:
    Search = dict[str, Domain]
else:
    _READERS = {name: PlainValidator(partial(read_domain, name)) for name in TRIAL_SETTINGS}
    _DOMAINS = {name: Annotated[Any, reader] for name, reader in _READERS.items()}
    Search = mapping_of("Search", _DOMAINS, plain=lambda domain: domain.plain())


def _plain_when(when: When) -> dict[str, Any]:
    return {"when": {name: list(values) for name, values in when.items()}} if when else {}


def _check_order(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"low must be at most high ({high!r}), got {low!r}.")


def _within(value: float, low: float, high: float) -> float:
    # exp(log(x)) may leave the range by a rounding error.
    return min(max(value, low), high)
