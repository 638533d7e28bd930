"""Values of settings as a TrialConfig holds them, for pydantic to read: alone, or as mappings of some of them.

No rule of a TrialConfig is about two settings together. So trials whose settings were all read here are valid, and are
put together without another check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    WrapValidator,
    create_model,
)

from carcls.config import TrialConfig
from carcls.errors import shown

# The seed is the sweep's, and the family is what is run.
TRIAL_SETTINGS = tuple(name for name in TrialConfig.model_fields if name not in ("family", "seed"))


class PartError(ValueError):
    """Several mistakes of one part of a spec, each beginning with its path."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def kind_of(name: str) -> Any:
    """Return the type of a setting's values, None and limits aside.

    >>> kind_of("dropout"), kind_of("micro_batch")
    (<class 'float'>, <class 'int'>)
    """
    annotation = TrialConfig.model_fields[name].annotation
    # Annotated[int, …] | None
    return get_args(get_args(annotation)[0])[0] if type(None) in get_args(annotation) else annotation


def value_of(name: str, *, optional: bool = False) -> Any:
    """Return the type of a setting's values with their limits; None is one only where it is ``optional``."""
    field, kind = TrialConfig.model_fields[name], kind_of(name)
    annotation = field.rebuild_annotation()
    if type(None) in get_args(field.annotation) and not optional:
        annotation = get_args(field.annotation)[0]
    if kind not in (int, float):
        return annotation
    rule = "a whole number" if kind is int else "a number"

    def no_truth_value(value: Any) -> Any:
        if isinstance(value, bool):  # which Python takes for 0 and 1
            raise ValueError(f"must be {rule}, got {value}.")
        return value

    return Annotated[annotation, BeforeValidator(no_truth_value)]


def mapping_of(title: str, types: Mapping[str, Any], plain: Callable[[Any], Any] = lambda value: value) -> Any:
    """Return the type of a mapping from settings to values of ``types``; it keeps the order in which it was said.

    Args:
        title: of the type.
        types: of the values by setting.
        plain: makes of a value what YAML says for it.
    """
    fields: dict[str, Any] = {name: (kind, None) for name, kind in types.items()}
    model = create_model(title, __config__=ConfigDict(extra="forbid", defer_build=True), **fields)

    def as_mapping(said: Any, read: Callable[[Any], Any]) -> dict[str, Any]:
        found = read(said)
        return {name: getattr(found, name) for name in said}

    def as_plain(found: dict[str, Any]) -> dict[str, Any]:
        return {name: plain(value) for name, value in found.items()}

    return Annotated[model, WrapValidator(as_mapping), PlainSerializer(as_plain)]


def _several(name: str, said: Any, read: Callable[[Any], Any]) -> Any:
    if not isinstance(said, list | tuple):
        return (TypeAdapter(value_of(name)).validate_python(said),)
    if not said:
        raise ValueError(f"must be a value or a list of values, got {shown(said)}.")
    return read(said)


@cache
def _conditions() -> TypeAdapter[Any]:
    """Return what reads the values of conditions; few searches have one."""
    readers = {name: WrapValidator(partial(_several, name)) for name in TRIAL_SETTINGS}
    several = {name: Annotated[tuple[value_of(name), ...], reader] for name, reader in readers.items()}  # type: ignore[misc]
    return TypeAdapter(mapping_of("When", several))


def _read_conditions(said: Any) -> Any:
    if not isinstance(said, Mapping | None):
        raise ValueError(f"must be like {{unfreezing: [full]}}, got {shown(said)}.")
    return _conditions().validate_python(said) if said else {}


if TYPE_CHECKING:
    Settings = dict[str, Any]
    When = dict[str, tuple[Any, ...]]
else:
    # Values of settings, as a TrialConfig holds them: 1 becomes 1.0 where a number is meant.
    Settings = mapping_of("Settings", {name: value_of(name, optional=True) for name in TRIAL_SETTINGS})
    # Other settings, each with the values under which a domain is searched.
    When = Annotated[Any, PlainValidator(_read_conditions)]
