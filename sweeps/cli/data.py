"""The audit of a data set, before a sweep believes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeps.cli.exits import DONE
from sweeps.cli.options import SettingsCommand, options
from sweeps.cli.output import Streams, Verbatim, answering, require_page
from sweeps.text import size_text

if TYPE_CHECKING:
    from carcls.data.config import DataSummary
    from sweeps.cli.view import SweepView
    from sweeps.engine.budget import BudgetStatus

_EPILOG = """\b
Examples:
  carsweep data stanford_cars
  carsweep data photos/ --no-labels -o photos.html
  carsweep data cars/ --set data.depth=2 image_size=128
  carsweep data cars/ --json > cars.json"""


class _Reading:
    """Shows what is read; there are no trials to draw."""

    def __init__(self, view: SweepView) -> None:
        self.note, self.packing = view.note, view.packing

    def on_data(self, data: DataSummary) -> None:
        """Nothing is to be drawn."""

    def on_status(self, status: BudgetStatus) -> None:
        """There is no sweep."""


@click.command("data", cls=SettingsCommand, epilog=_EPILOG)
@click.argument("path", type=click.Path(), required=False)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    metavar="FILE",
    help="Where the page goes; - is stdout. Default: OUT/data/NAME.html.",
)
@click.option("--no-labels", is_flag=True, help="Look for no wrong labels, which takes longest.")
@options("images", "set", "out")
@answering
def data(
    streams: Streams,
    path: str | None,
    output: Path | None,
    no_labels: bool,
    images: str | None,
    sets: tuple[str, ...],
    out: Path,
) -> int:
    """Look at the images at PATH before a sweep does, and write a page of what was found.

    PATH is what --data of carsweep run takes; without it they are the demo cars. The page shows layout, classes,
    splits, sides, the same picture twice, suspicious labels, unreadable and ignored files, and pictures of every class.
    Wrong labels are looked for with the installed backbone, or the one that --set backbone= names. What is read is kept
    in OUT: a run of the same images reads none of them again.
    """
    from carcls.stages import write_text
    from sweeps.cli.view import open_view
    from sweeps.report.data import data_page
    from sweeps.run.audit import audit_data, label_config
    from sweeps.run.command import specs_of_all

    to_stdout = output == Path("-")
    page = None if to_stdout or output is None else require_page(output)
    given = {name: value for name, value in (("data", path), ("images", images)) if value}
    specs = specs_of_all(name="audit", sets=sets, overrides=given, trials=None)
    with open_view(specs[0], streams.progress) as view:
        found = audit_data(specs, out, _Reading(view), labels=not no_labels)
        text = data_page(found, out / "stages", label_config(specs[0]).image_size)
    if not to_stdout:
        if page is None:
            page = (out / "data" / f"{Path(found.data.name).name}.html").absolute()
            page.parent.mkdir(exist_ok=True)
            require_page(page)
        write_text(page, text)
    value = {**found.to_dict(), "page": None if page is None else str(page), "bytes": len(text.encode())}
    written = f"Written to {page} ({size_text(len(text.encode()))})"
    streams.answer(value, *([Verbatim(text)] if page is None else [*found.lines(), written]))
    return DONE
