"""The report of a sweep or a job that has ended, left in its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps.report.page import REPORT, SideBySide, write_report
from sweeps.text import command_text
from sweeps.waits import Waiting


def leave_report(
    out: Path,
    name: str,
    sweeps: Sequence[str],
    tell: Callable[[str], None],
    *,
    compared: Sequence[SideBySide] = (),
    compute: Callable[..., Any] | None = None,
) -> None:
    """Write the report of a sweep or job; whatever goes wrong with it is told, and costs no result.

    Args:
        out: folder of all sweeps.
        name: of the sweep or job.
        sweeps: that it has.
        tell: gets what is to be told.
        compared: the sweeps of a job beside each other.
        compute: as ``write_report``.
    """
    try:
        with Waiting(tell, "writing the report …"):
            folders = [out / sweep for sweep in sweeps]
            parts = out / name if [*sweeps] == [name] else None
            write_report(folders, out / name / REPORT, title=name, compared=compared, compute=compute, parts=parts)
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        tell(f"The report could not be written ({why}). To write it: {command_text('report', name, out=out)}")
