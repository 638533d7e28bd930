"""The formats of pictures that are read: Pillow's names of them, and the extensions that their files have.

Pillow knows some forty formats. Those that nobody photographs in are not tried, whatever a file's extension says: one
of them hands the file to another program (EPS to Ghostscript), and each is code that a broken file could trip.
"""

from __future__ import annotations

from collections.abc import Mapping

FORMATS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)
