"""What every reader of a layout returns: a manifest without its digest, so that a plan need not read the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carcls.data.manifest import ImageRecord, Layout


@dataclass(frozen=True)
class Reading:
    """A data set as listed; fields as in ``Manifest``."""

    root: Path
    layout: Layout
    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    notes: tuple[str, ...] = ()
