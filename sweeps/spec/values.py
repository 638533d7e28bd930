"""Values of settings as a TrialConfig holds them, for pydantic to read: alone, or as mappings of some of them.

No rule of a TrialConfig is about two settings together. So trials whose settings were all read here are valid, and are
put together without another check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, ConfigDict, PlainValidator, TypeAdapter, WrapValidator, create_model
from pydantic_core import PydanticKnownError

from carcls.config import TrialConfig
from carcls.errors import SpecError, shown

# The seed is the sweep's, and the family is what is run.
TRIAL_SETTINGS = tuple(name for name in TrialConfig.model_fields if name not in ("family", "seed"))


class PartError(SpecError, ValueError):
    """Mistakes of one part of a spec, for pydantic to collect."""


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
    is_optional = type(None) in get_args(field.annotation)
    annotation = get_args(field.annotation)[0] if is_optional and not optional else field.rebuild_annotation()

    def no_truth_value(value: Any) -> Any:
        if isinstance(value, bool):  # which Python takes for 0 and 1
            raise PydanticKnownError("int_type" if kind is int else "float_type")
        return value

    return Annotated[annotation, BeforeValidator(no_truth_value)] if kind in (int, float) else annotation


def mapping_reader(title: str, types: Mapping[str, Any]) -> Callable[[Any], dict[str, Any]]:
    """Return what reads a mapping from settings to values of ``types``; it keeps the order in which it was said."""
    fields: dict[str, Any] = {name: (kind, None) for name, kind in types.items()}
    model = create_model(title, __config__=ConfigDict(extra="forbid", defer_build=True), **fields)

    def read(said: Any) -> dict[str, Any]:
        found = model.model_validate(said)
        return {name: getattr(found, name) for name in said}

    return read


# Values of settings, as a TrialConfig holds them: 1 becomes 1.0 where a number is meant.
_SETTINGS = {name: value_of(name, optional=True) for name in TRIAL_SETTINGS}
Settings = Annotated[dict[str, Any], PlainValidator(mapping_reader("Settings", _SETTINGS))]


def _several(name: str, said: Any, read: Callable[[Any], Any]) -> Any:
    if said in ([], ()):
        raise ValueError(f"must be a value or a list of values, got {shown(said)}.")
    return read(said) if isinstance(said, list | tuple) else (TypeAdapter(value_of(name)).validate_python(said),)


_WRAPS = {name: WrapValidator(partial(_several, name)) for name in TRIAL_SETTINGS}
_SEVERAL = {name: Annotated[tuple[value_of(name), ...], wrap] for name, wrap in _WRAPS.items()}  # type: ignore[misc]
_read_when = mapping_reader("When", _SEVERAL)


def _read_conditions(said: Any) -> Any:
    if not isinstance(said, Mapping | None):
        raise ValueError(f"must be like {{unfreezing: [full]}}, got {shown(said)}.")
    return _read_when(said) if said else {}  # few searches have a condition, and its reader is made on its first use


# Other settings, each with the values under which a domain is searched.
When = Annotated[dict[str, tuple[Any, ...]], PlainValidator(_read_conditions)]
