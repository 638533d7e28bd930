"""Which settings reach which family, where one command runs several of them. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from carcls.config import Part, settings_of

# What is trained from scratch has one network of its own, no weights, and is unfrozen from the start at one rate.
_FOREIGN = {
    "transfer": (Part.ARCHITECTURE, Part.NEIGHBOURS),
    "retrieval": (Part.ARCHITECTURE,),
    "scratch": (Part.PRETRAINED, Part.NEIGHBOURS),
}


def applies_to(family: str, setting: str) -> bool:
    """Tell whether a setting of trials means anything in a family.

    >>> applies_to("scratch", "backbone"), applies_to("retrieval", "k"), applies_to("transfer", "epochs")
    (False, True, True)
    """
    return not any(setting in settings_of(part) for part in _FOREIGN[family])


def settings_for(family: str, sets: Sequence[str]) -> tuple[str, ...]:
    """Return those ``KEY=VALUE`` texts that mean something in a family; what cannot be read is left for its reader.

    >>> settings_for("scratch", ["backbone=resnet50", "search.k=[1]", "epochs=5", "config.width=16"])
    ('epochs=5', 'config.width=16')
    """
    return tuple(text for text in sets if applies_to(family, setting_of(text)))


def overrides_for(family: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of the command line that mean something in a family."""
    return {name: value for name, value in overrides.items() if applies_to(family, name)}


def setting_of(text: str) -> str:
    """Return the setting that a ``KEY=VALUE`` text is about, or the first part of its path.

    >>> [setting_of(text) for text in ("epochs=5", "search.k=[1]", "data.margin=0.1")]
    ['epochs', 'k', 'data.margin']
    """
    key = text.partition("=")[0].strip()
    section, _, rest = key.partition(".")
    return rest.partition(".")[0] if section in ("config", "fixed", "search") and rest else key
