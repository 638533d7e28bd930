"""Where a sweep that Python runs shows its progress: on stderr as a command does, or in one output of a notebook."""

from __future__ import annotations

import io
import sys
import uuid
import warnings
from html import escape
from typing import Any

from rich.console import Console

from sweeps.cli.output import Streams

_WIDTH, _LINES, _PLAIN_LINES = 100, 500, 12
# It scrolls, and stays at its end.
_BOX = "max-height: 18em; overflow: auto; display: flex; flex-direction: column-reverse"


class CellOutput(io.StringIO):
    """A text that is shown below a cell, in one place that is written anew.

    Args:
        shell: IPython's, of a notebook.
    """

    def __init__(self, shell: Any) -> None:
        super().__init__()
        self._publish, self._shown = shell.display_pub.publish, False
        self._place = {"display_id": uuid.uuid4().hex}

    def flush(self) -> None:
        """Show the last lines."""
        lines = self.getvalue().splitlines()[-_LINES:]
        whole = "\n".join(lines)
        shown = f'<div style="{_BOX}"><pre>{escape(whole)}</pre></div>'
        data = {"text/html": shown, "text/plain": "\n".join(lines[-_PLAIN_LINES:])}
        self._publish(data, transient=self._place, update=self._shown)
        self._shown = True


def progress_console(*, quiet: bool) -> Console:
    """Return where progress is printed; nowhere when ``quiet``."""
    if quiet:
        return Console(file=io.StringIO(), quiet=True)
    if Console().is_jupyter:  # rich's live display needs ipywidgets there, and shows nothing without
        warnings.filterwarnings("ignore", "IProgress not found")  # nor does tqdm, when a library loads it
        shell = sys.modules["IPython"].get_ipython()
        return Console(file=CellOutput(shell), width=_WIDTH, force_jupyter=False, force_terminal=False)
    return Streams(as_json=False).progress
