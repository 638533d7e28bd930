"""Templates of the pages, and what all of them have in their heads."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment, Template

_PAGES = Path(__file__).parent / "pages"


def template(name: str) -> Template:
    """Return a template by its file's name."""
    return _environment().get_template(name)


def read_pages(pattern: str) -> list[str]:
    """Return the texts of the files whose names are of the pattern, such as ``*.css``, by their names."""
    return [path.read_text(encoding="utf-8") for path in sorted(_PAGES.glob(pattern))]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    files = FileSystemLoader(_PAGES)
    return Environment(loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
