"""Files of annotations that hold a record a line, and what of a data set is not there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from carcls.data.files import Folder
from carcls.data.manifest import require_file
from carcls.errors import DataError, UnreadableImage


def lines_of(file: Path) -> list[str]:
    """Return the lines that hold something, without space around them; those that begin with # are comments.

    Raises:
        DataError: it cannot be read as text.
    """
    try:
        require_file(file)
        lines = (line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n"))
        return [line for line in lines if line and not line.startswith("#")]
    except (OSError, UnicodeError, UnreadableImage) as error:
        raise DataError(f"{file} must be a text file in UTF-8 ({error}). Fetch it again.") from error


class Records(dict[str, str]):
    """What a file says of each name: the first word of a line, and the rest of it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        for line in lines_of(file):
            name, *rest = line.split(maxsplit=1)
            self[name] = "".join(rest)
            if not rest:
                raise DataError(f"{file} must say something of {name!r}, got the word alone. Fetch it again.")

    def __missing__(self, name: str) -> str:
        raise DataError(f"{self.file} must have a line of {name!r}, got none. Take all files from one archive.")

    def numbers(self, name: str, count: int) -> list[float]:
        """Return so many numbers that it says of a name.

        Raises:
            DataError: it says anything else.
        """
        try:
            found = [float(word) for word in self[name].split()]
        except ValueError:
            found = []
        if len(found) != count or not all(map(math.isfinite, found)):
            raise DataError(f"{self.file} must say {count} numbers of {name!r}, got {self[name]!r}. Fetch it again.")
        return found


def require_parts(folder: Folder, name: str, source: str, *parts: str) -> None:
    """Check that a data set is whole.

    Args:
        folder: that holds it.
        name: of the data set.
        source: the archives that it is taken from.
        parts: paths of files, relative to the folder; of folders with a slash at their end.

    Raises:
        DataError: some are not there; all are named.
    """
    lacking = [part for part in parts if not (folder.below(part[:-1]) if part.endswith("/") else folder.has(part))]
    if lacking:
        it = "it" if len(lacking) == 1 else "them"
        raise DataError(
            f"{name} must have {' and '.join(lacking)}, got {str(folder.path)!r} without {it}. Take {it} from {source}."
        )


def place_of(folder: Folder, name: str) -> str:
    """Return where a folder of a data set is, relative to ``folder``: some archives hold it in one of its own name."""
    return f"{name}/{name}" if folder.below(f"{name}/{name}") else name


def files_in(folder: Folder, *places: str) -> Iterator[str]:
    """Yield the paths of all files in places of a folder, relative to it; those that are not there hold none."""
    for place in places:
        for inside in found.walk() if (found := folder.below(place)) else ():
            below = inside.path.relative_to(folder.path).as_posix()
            yield from (f"{below}/{name}" for name in (*inside.images, *inside.others))


def spelt(names: Mapping[str, str]) -> dict[str, str]:
    """Return how classes are shown, by what files call them: spaces for underscores, and no number before the name.

    Those that would then be called the same keep what the files call them, those that the files call the same get what
    these number them by.

    >>> spelt({"1": "001.Black_footed_Albatross", "2": "2.Owl", "3": "3.Owl", "4": "Jay", "5": "Jay"})
    {'1': 'Black footed Albatross', '2': '2.Owl', '3': '3.Owl', '4': 'Jay (4)', '5': 'Jay (5)'}
    """
    shown = {key: _without_number(name).replace("_", " ") for key, name in names.items()}
    once, unique = _unique(shown.values()), _unique(names.values())
    kept = {key: name if name in unique else f"{name} ({key})" for key, name in names.items()}
    return {key: text if text in once else kept[key] for key, text in shown.items()}


def _without_number(name: str) -> str:
    number, dot, rest = name.partition(".")
    return rest if dot and rest and number.isdigit() else name


def _unique(names: Iterable[str]) -> set[str]:
    seen, twice = set[str](), set[str]()
    for name in names:
        (twice if name in seen else seen).add(name)
    return seen - twice
