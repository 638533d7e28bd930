"""The training images that are nearest to an image, by a model that answers with its neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carcls.catalog import FAMILIES
from carcls.errors import InputError, UnreadableImage, printable
from carcls.evaluation.confidence import Confidence
from sweeps.cli.answers import answers_to, images_of, named, plain, require_file
from sweeps.cli.exits import DONE, FAILED, echo
from sweeps.cli.options import Names, options
from sweeps.cli.output import Streams, answering
from sweeps.cli.store import model_named
from sweeps.tables import Grid

if TYPE_CHECKING:
    from carcls.export import Prediction, Predictor
    from sweeps.cli.answers import Answer

_WITH_NEIGHBOURS = [name for name, family in FAMILIES.items() if family.neighbours]


@click.command("similar")
@click.argument("words", metavar="[FAMILY] IMAGE…", nargs=-1, required=True)
@click.option(
    "--family", type=Names(_WITH_NEIGHBOURS), default=_WITH_NEIGHBOURS[0], show_default=True, help="Whose model."
)
@options("model")
@click.option("--k", type=click.IntRange(1), default=10, show_default=True, help="How many training images.")
@click.option("--html", "page", metavar="FILE", type=click.Path(path_type=Path), help="Write a page with pictures.")
@options("out", "tracking-uri")
@answering
def similar(
    streams: Streams,
    words: tuple[str, ...],
    family: str,
    model: str | None,
    k: int,
    page: Path | None,
    out: Path,
    tracking_uri: str | None,
) -> int:
    """Show the training images that are nearest to each IMAGE, with their classes, distances and votes.

    IMAGE is what carsweep predict takes: images, folders, tables, - for a list. The family's champion answers, else its
    challenger; so many neighbours vote as are shown. Exit codes as of carsweep predict.
    """
    require_file("--html", page)
    family, paths = (words[0], words[1:]) if words[0] in FAMILIES else (family, words)
    if family not in _WITH_NEIGHBOURS:
        raise click.UsageError(f"Neighbours are of {' and '.join(_WITH_NEIGHBOURS)}, got the family {family!r}.")
    if not paths:
        raise click.UsageError(f"Missing IMAGE after the family {family!r}.")
    images = images_of(paths, Counter())
    found = model_named(streams, model or family, out, tracking_uri)
    streams.notify(f"{found} answers.")
    predictor = _asking(found.load(), k, str(found))
    answers = list(answers_to(predictor, images, len(predictor.classes)))
    if page is not None:
        from sweeps.report.similar import write_similar

        write_similar(page, str(found), answers, _pictures_of(answers, predictor, out / found.tags.get("sweep", "")))
        streams.notify(f"Written to {page}.")
    if not streams.as_json and not streams.result.is_terminal:
        for line in (line for answer in answers for line in _lines(answer)):
            echo(line)
        return _code(answers)
    value = {"model": named(found), "images": [plain((image, _shortened(said))) for image, said in answers]}
    streams.answer(value, *(part for answer in answers for part in _drawn(answer)))
    return _code(answers)


def _pictures_of(answers: Sequence[Answer], predictor: Predictor, folder: Path) -> dict[str, str]:
    """Return pictures of all neighbours by their paths: the model's own, else what is left of the sweep's images."""
    from sweeps.report.similar import jpeg_uri, training_pictures

    near = [one for _, said in answers if not isinstance(said, UnreadableImage) for one in said.neighbours]
    own = {one.image: predictor.thumbnail(one.place) for one in near}
    found = {image: jpeg_uri(picture) for image, picture in own.items() if picture}
    return found | training_pictures(folder, predictor.image_size, [image for image in own if image not in found])


def _code(answers: Sequence[Answer]) -> int:
    return DONE if any(not isinstance(said, UnreadableImage) for _, said in answers) else FAILED


def _asking(predictor: Predictor, k: int, model: str) -> Predictor:
    """Return the model with the votes of its k nearest images as they are: calibrated, every class would have a share.

    Raises:
        InputError: it has no gallery, or a smaller one.
    """
    if predictor.gallery is None:
        raise InputError(f"--model must answer with neighbours, got {model}. Name one of the family retrieval.")
    images = len(predictor.gallery.images)
    if k > images:
        raise InputError(f"--k must be at most the {images} images of the gallery, got {k}. Ask for fewer.")
    return replace(predictor.asking(k), confidence=Confidence())


def _shortened(said: Prediction | UnreadableImage) -> Prediction | UnreadableImage:
    """Leave out classes for which nobody voted."""
    return (
        said if isinstance(said, UnreadableImage) else replace(said, top=tuple(one for one in said.top if one[1] > 0))
    )


def _lines(answer: Answer) -> Iterator[str]:
    """Yield a line for a program for each neighbour of an image: path, place, distance, class, training image."""
    image, said = answer
    if isinstance(said, UnreadableImage):
        yield f"{printable(image)}\t\t\t\t{said}"
        return
    for place, one in enumerate(said.neighbours, start=1):
        yield "\t".join((printable(image), str(place), f"{one.distance:.6g}", one.label, printable(one.image)))


def _drawn(answer: Answer) -> Iterator[str | Grid]:
    """Yield an image's votes and a table of its neighbours."""
    image, said = answer
    if isinstance(said, UnreadableImage):
        yield f"\n{printable(image)}: not read: {said}"
        return
    from sweeps.report.similar import votes_of

    yield f"\n{printable(image)}: {said.label}"
    yield f"Votes of the {len(said.neighbours)} nearest: {votes_of(said)}"
    rows = [[f"{one.distance:.3f}", one.label, printable(one.image)] for one in said.neighbours]
    yield Grid(["distance", "class", "training image"], rows, ("class", "training image"), ("class", "training image"))
