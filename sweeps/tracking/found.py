"""A model that can be loaded, from a registry or a folder; this needs no MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import InputError

if TYPE_CHECKING:
    import torch

    from carcls.export import Predictor

DESCRIPTION = "model.json"
ANEW = "Put its files back, or run its sweep again under another --name; nothing is trained twice."


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that can be loaded.

    Attributes:
        folder: of the export; read it only.
        name, version: of the registered model; the folder's name, and empty, where it is in no registry.
        aliases: that the version holds.
        tags: of the version: ``sweep``, ``data``, ``val_accuracy`` and others.
        why: it was taken and no other, a sentence; empty where it was named.
    """

    folder: Path
    name: str
    version: str = ""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    def __str__(self) -> str:
        """Name it for people, such as: carsweep-transfer, version 3 (champion)."""
        held = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.name}, version {self.version}{held}" if self.version else str(self.folder)

    def load(self, device: torch.device | None = None) -> Predictor:
        """Return the loaded model on the device; None is a GPU where there is one, else the CPU.

        Raises:
            InputError: its folder is gone, damaged, or of a carsweep that writes another format.
        """
        from carcls.export import load_export

        try:
            return load_export(self.folder, device or "best")
        except InputError as error:
            if not self.version:
                raise
            raise InputError(f"{self} must be whole: {str(error).removesuffix(' Export it again.')} {ANEW}") from error


def export_at(path: str | None) -> FoundModel | None:
    """Return the export in a folder; None where it is no such folder. No store is asked."""
    folder = Path(path or "").expanduser().absolute()
    if not path or not (folder / DESCRIPTION).is_file():
        return None
    details = {}
    with suppress(OSError, ValueError, KeyError, TypeError):  # it is found, and refused when it is loaded
        details = dict(json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["details"])
    return FoundModel(folder, folder.name, tags=details)
