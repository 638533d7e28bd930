"""What a sweep searches over: domains that validate themselves when built. No foreign library.

A domain in YAML is a range, ``{low: 0.0, high: 0.7}`` (``log: true``, ``int: true`` and ``step: 2`` as needed), or a
list of choices, ``[adam, adamw]``, which may also be written ``{choices: [adam, adamw]}``. A domain in a mapping may
say ``when: {unfreezing: [full, "1:all"]}``: it is searched only in trials where the other setting has one of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from carcls.errors import SpecError, nearest, shown

Scalar = str | int | float | bool
RANGE_KEYS = ("low", "high", "log", "int", "step", "when")
# Other settings, each with the values under which a domain is searched.
When = tuple[tuple[str, tuple[Scalar, ...]], ...]


@dataclass(frozen=True, slots=True)
class FloatDomain:
    """Any number from ``low`` to ``high``, both included; equally likely per factor when ``log``.

    Raises:
        ValueError: an end is not finite, ``low`` is above ``high``, or ``log`` has a ``low`` that is not positive.
    """

    low: float
    high: float
    log: bool = False
    when: When = ()

    def __post_init__(self) -> None:
        for name, end in (("low", self.low), ("high", self.high)):
            if not math.isfinite(end):
                raise ValueError(f"{name} must be a finite number, got {end!r}.")
        _check_order(self.low, self.high)
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true, got {self.low!r}.")

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


@dataclass(frozen=True, slots=True)
class IntDomain:
    """Whole numbers ``low``, ``low + step``, … ``high``; equally likely per factor when ``log``.

    Raises:
        ValueError: ``low`` is above ``high``, ``step`` does not lead from one to the other, or ``log`` has a ``low``
            below 1 or a ``step`` other than 1.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1
    when: When = ()

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)
        if self.step < 1:
            raise ValueError(f"step must be at least 1, got {self.step!r}.")
        if (self.high - self.low) % self.step:
            raise ValueError(f"step must lead from {self.low} to {self.high} exactly, got {self.step!r}.")
        if self.log and self.low < 1:
            raise ValueError(f"low must be at least 1 where log is true, got {self.low!r}.")
        if self.log and self.step != 1:
            raise ValueError(f"step must be 1 where log is true, got {self.step!r}.")

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


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several values, without an order.

    Raises:
        ValueError: there is no choice, one of them is not a plain value, or two are equal.
    """

    choices: tuple[Scalar, ...]
    when: When = ()

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("choices must name at least one value, got [].")
        for choice in self.choices:
            if not isinstance(choice, str | int | float | bool):
                raise ValueError(f"choices must be plain values, got {shown(choice)}.")
        seen: set[Scalar] = set()
        for choice in self.choices:
            if choice in seen:
                raise ValueError(f"choices must differ from each other, got {shown(choice)} twice.")
            seen.add(choice)

    def ends(self) -> tuple[Scalar, ...]:
        """Return the values that must be allowed for all of the domain to be: every choice."""
        return self.choices

    def draw(self, random: Random) -> Scalar:
        """Return a value at random."""
        return random.choice(self.choices)

    def plain(self) -> list[Scalar] | dict[str, Any]:
        """Return what YAML says for this domain."""
        return {"choices": list(self.choices)} | _plain_when(self.when) if self.when else list(self.choices)

    def __str__(self) -> str:
        return " | ".join(str(choice) for choice in self.choices)


Domain = FloatDomain | IntDomain | Choice


def parse_domain(value: Any, path: str, *, integer: bool = False) -> Domain:
    """Return the domain that a YAML value says.

    Args:
        value: a mapping with ``low`` and ``high``, a mapping with ``choices``, or a list.
        path: where the value stands, such as ``search.dropout``; mistakes begin with it.
        integer: the setting takes whole numbers only, so that a range is one of whole numbers without ``int: true``.

    Raises:
        SpecError: the value says no domain.
    """
    if isinstance(value, list | tuple):
        return _build(path, value, _choice)
    if not isinstance(value, Mapping):
        raise SpecError([f"{path}: must be a range {{low: …, high: …}} or a list of choices, got {shown(value)}."])
    if "choices" in value:
        _check_keys(value, ("choices", "when"), path)
        return replace(_build(path, value["choices"], _choice), when=_parse_when(value, path))
    _check_keys(value, RANGE_KEYS, path)
    missing = [f"{path}.{name}: must be given, as in {{low: 0.0, high: 0.7}}." for name in _missing(value)]
    if missing:
        raise SpecError(missing)
    whole = integer or value.get("int") is True
    return replace(_build(path, value, _int_range if whole else _float_range), when=_parse_when(value, path))


def _parse_when(value: Mapping[str, Any], path: str) -> When:
    when = {} if value.get("when") is None else value["when"]
    if not isinstance(when, Mapping):
        raise SpecError([f"{path}.when: must be like {{unfreezing: [full]}}, got {shown(when)}."])
    return tuple((str(name), _values(values, f"{path}.when.{name}")) for name, values in when.items())


def _values(values: Any, path: str) -> tuple[Scalar, ...]:
    several = tuple(values) if isinstance(values, list | tuple) else (values,)
    if not several or not all(isinstance(value, str | int | float | bool) for value in several):
        raise SpecError([f"{path}: must be a value or a list of values, got {shown(values)}."])
    return several


def _plain_when(when: When) -> dict[str, Any]:
    return {"when": {name: list(values) for name, values in when}} if when else {}


def _build(path: str, value: Any, build: Any) -> Domain:
    try:
        domain: Domain = build(value)
    except ValueError as error:
        name, rule = str(error).split(" ", 1)
        raise SpecError([f"{path}.{name}: {rule}"]) from None
    return domain


def _choice(value: Any) -> Choice:
    if not isinstance(value, list | tuple):
        raise ValueError(f"choices must be a list, got {shown(value)}.")
    return Choice(tuple(value))


def _float_range(value: Mapping[str, Any]) -> FloatDomain:
    if "step" in value:
        raise ValueError(f"step must go with int: true, got {shown(value['step'])}.")
    _check_flags(value)
    low, high = (_number(value, name, int | float, "a number") for name in ("low", "high"))
    return FloatDomain(float(low), float(high), value.get("log", False))


def _int_range(value: Mapping[str, Any]) -> IntDomain:
    _check_flags(value)
    if value.get("int") is False:
        raise ValueError("int must be true, since this setting takes whole numbers, got False.")
    low, high, step = (_number({"step": 1, **value}, name, int, "a whole number") for name in ("low", "high", "step"))
    return IntDomain(low, high, value.get("log", False), step)


def _number(value: Mapping[str, Any], name: str, kind: Any, rule: str) -> Any:
    number = value[name]
    if isinstance(number, bool) or not isinstance(number, kind):
        raise ValueError(f"{name} must be {rule}, got {shown(number)}.")
    return number


def _check_flags(value: Mapping[str, Any]) -> None:
    for name in ("log", "int"):
        if not isinstance(value.get(name, False), bool):
            raise ValueError(f"{name} must be true or false, got {shown(value[name])}.")


def _check_keys(value: Mapping[str, Any], known: Iterable[str], path: str) -> None:
    unknown = [key for key in value if key not in known]
    if unknown:
        raise SpecError(
            [f"{path}.{key}: must be a known key, got {shown(key)}." + nearest(str(key), known) for key in unknown]
        )


def _missing(value: Mapping[str, Any]) -> list[str]:
    return [name for name in ("low", "high") if value.get(name) is None]


def _check_order(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"low must be at most high ({high!r}), got {low!r}.")


def _within(value: float, low: float, high: float) -> float:
    # exp(log(x)) may leave the range by a rounding error.
    return min(max(value, low), high)
