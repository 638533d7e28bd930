"""The report of sweeps and jobs, as one page or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from carcls.errors import InputError
from sweeps.cli.exits import DONE
from sweeps.cli.options import SWEEP, options
from sweeps.cli.output import Streams, Verbatim, answering, require_page


@click.command("report")
@click.argument("names", type=SWEEP, metavar="[NAME]…", nargs=-1)
@options("out")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    metavar="FILE",
    help="Where the page goes; - is stdout. Default: OUT/NAME/report.html, of several OUT/report.html.",
)
@click.option("--md", "markdown", is_flag=True, help="Markdown, without pictures: report.md.")
@answering
def report(streams: Streams, names: tuple[str, ...], out: Path, output: Path | None, markdown: bool) -> int:
    """Write what the sweeps or jobs NAME found as one page that needs nothing else.

    Without NAME it is the sweep last written to. Several names make one page, with the winners side by side on top and
    each sweep below, as the name of a job does. It is read from the sweeps' own files, at any time, also while they
    run.
    """
    from sweeps.report.page import write_report
    from sweeps.run.comparison import side_by_side
    from sweeps.run.status import members_of, sweeps_in

    sweeps = [sweep for name in names for sweep in sweeps_in(out, name)] if names else sweeps_in(out)[:1]
    sweeps = list(dict.fromkeys(sweeps))
    if not sweeps:
        raise InputError(
            f"NAME must be of a sweep in {out}, got none that has begun. Run one first, or give its --out."
        )
    title = names[0] if len(names) == 1 else " and ".join(sweeps) if len(sweeps) < 4 else f"{len(sweeps)} sweeps"
    path = _path_of(output, out, names or sweeps, "md" if markdown else "html")
    compared = side_by_side(out, sweeps) if len(sweeps) > 1 else ()
    folders = [out / sweep for sweep in sweeps]
    others = [one for name in names for one in members_of(out, name) if one not in sweeps]
    text = write_report(folders, path, title=title, compared=compared, others=others, markdown=markdown)
    value = {"path": None if path is None else str(path), "sweeps": sweeps, "bytes": len(text.encode())}
    streams.answer(value, Verbatim(text) if path is None else f"Written to {path}")
    return DONE


def _path_of(output: Path | None, out: Path, names: Sequence[str], suffix: str) -> Path | None:
    """Return the page's path, absolute; None for stdout. Raises as ``require_page``."""
    if output == Path("-"):
        return None
    return require_page(output or (out / names[0] if len(names) == 1 else out) / f"report.{suffix}")
