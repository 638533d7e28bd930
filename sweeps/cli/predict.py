"""What registered models say about images: files, folders and lists, as fast as they can be read and computed."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from carcls.catalog import FAMILIES
from carcls.disk import replacing
from carcls.errors import UnreadableImage, printable
from sweeps.cli.answers import answers_to, cells_of, images_of, left_out, named, plain, require_file, told
from sweeps.cli.exits import DONE, FAILED, echo
from sweeps.cli.options import options
from sweeps.cli.output import Streams, answering
from sweeps.cli.store import model_named
from sweeps.tables import Grid
from sweeps.text import DASH, duration, percent, plural

if TYPE_CHECKING:
    from sweeps.cli.answers import Answer


@click.command("predict")
@click.argument("words", metavar="[FAMILY] PATH…", nargs=-1, required=True)
@options("model")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many of the likeliest classes.")
@click.option("--csv", "table", metavar="FILE", type=click.Path(path_type=Path), help="Write a row for each image.")
@click.option(
    "--abstain",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="PRECISION",
    help="Say unknown where the model is not as sure as this precision on the validation images takes.",
)
@options("out", "tracking-uri")
@answering
def predict(
    streams: Streams,
    words: tuple[str, ...],
    model: str | None,
    top: int,
    table: Path | None,
    abstain: float | None,
    out: Path,
    tracking_uri: str | None,
) -> int:
    """Say of which class the images at PATH are.

    PATH is an image, a folder with images at any depth, a .csv with a column path, image or filename, or - for a list
    on stdin. FAMILY's champion answers, else its challenger; without FAMILY the family that is best on the validation
    images. Images that cannot be read have a row that says why. Exit code 0 when one was answered, 1 when none was.
    """
    wanted, paths = _parted(words, model)
    require_file("--csv", table)
    others, count = Counter[str](), Counter[bool]()
    images = images_of(paths, others)
    kept: list[Answer] = []
    is_table = streams.as_json or (streams.result.is_terminal and table is None)
    show = kept.append if is_table else _print_line if table is None else _nothing
    with _rows_in(table) as rows:
        found = model_named(streams, wanted, out, tracking_uri)
        streams.notify(f"{found.why} {found} answers.".strip())
        predictor, start = found.load(), time.monotonic()
        write = _writer(rows, min(top, len(predictor.classes)))
        for answer in told(answers_to(predictor, images, top, abstain), streams.notify):
            count[isinstance(answer[1], UnreadableImage)] += 1
            write(answer)
            show(answer)
    seconds, answered, unreadable = time.monotonic() - start, count[False], count[True]
    more = f"; {unreadable} cannot be read" if unreadable else ""
    streams.notify(f"{plural(answered, 'image')} answered in {duration(seconds)}{more}.{left_out(others)}")
    if is_table:
        value = {
            "model": named(found),
            "images": list(map(plain, kept)),
            "unreadable": unreadable,
            "left_out": dict(others),
        }
        streams.answer(value, *_drawn(kept))
    return DONE if answered else FAILED


def _parted(words: Sequence[str], model: str | None) -> tuple[str | None, Sequence[str]]:
    """Return the model and the paths that are meant: a first word that is a family is one, whatever files there are."""
    family, paths = (words[0], words[1:]) if words[0] in FAMILIES else (None, words)
    near = get_close_matches(words[0], FAMILIES, n=1)
    if family is None and near and len(words) > 1 and not Path(words[0]).exists():
        raise click.UsageError(f"{words[0]!r} is neither a family nor a file. Did you mean {near[0]}?")
    if family and model:
        raise click.UsageError(f"Give FAMILY or --model, not both, got {family!r} and {model!r}.")
    if not paths:
        raise click.UsageError(
            f"Missing PATH after the family {family!r}. A file or folder of that name is ./{family}."
        )
    return model or family, paths


def _nothing(_answer: Answer) -> None:
    """Do nothing: the answers go to a file."""


def _print_line(answer: Answer) -> None:
    """Print a line for a program: the path, then classes and probabilities, or nothing twice and the reason."""
    echo("\t".join(map(printable, cells_of(answer))))


def _drawn(answers: Sequence[Answer]) -> Iterator[str | Grid]:
    """Yield the classes of one image, or a row for each of several, whose common folder is said once."""
    if len(answers) == 1 and not isinstance(answers[0][1], UnreadableImage):
        rows = [[label, percent(share)] for label, share in answers[0][1].top]
        yield Grid(["class", "probability"], rows, words=("class",), fold=("class",))
        return
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name, _ in answers])  # noqa: PTH100, PTH120
    yield f"In {printable(folder)}:"
    rows = [
        [printable(os.path.relpath(name, folder)), f"not read: {said}", DASH]
        if isinstance(said, UnreadableImage)
        else [printable(os.path.relpath(name, folder)), said.label, percent(said.probability)]
        for name, said in answers
    ]
    yield Grid(["image", "class", "probability"], rows, words=("image", "class"), fold=("image", "class"))


@contextmanager
def _rows_in(table: Path | None) -> Iterator[TextIO | None]:
    """Yield a file for the rows of a CSV file, which is there whole at the end; a run that is killed leaves nothing."""
    if table is None:
        yield None
        return
    text: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    with tempfile.TemporaryFile("w+", dir=table.parent, **text) as file:  # has no name
        yield file
        file.seek(0)
        with replacing(table) as temporary, temporary.open("w", **text) as whole:
            shutil.copyfileobj(file, whole)
            whole.flush()
            os.fsync(whole.fileno())


def _writer(rows: TextIO | None, top: int) -> Callable[[Answer], object]:
    """Write the head of a table for so many classes; return what writes a row."""
    if rows is None:
        return _nothing
    writer = csv.writer(rows, lineterminator="\n")
    places = ["", *(f"_{place}" for place in range(2, top + 1))]
    writer.writerow(["image", *(f"{what}{place}" for place in places for what in ("label", "probability")), "error"])
    width = 1 + 2 * top
    return lambda answer: writer.writerow(_with_error(answer, width))


def _with_error(answer: Answer, width: int) -> list[str]:
    """Return the cells of a row, of which the last says why an image could not be read."""
    cells = cells_of(answer)
    is_read = not isinstance(answer[1], UnreadableImage)
    return [*cells, *[""] * (width + 1 - len(cells))] if is_read else [cells[0], *[""] * (width - 1), cells[-1]]
