"""The command line. Importing it loads click and nothing else; a command is loaded when it is called."""

from __future__ import annotations

import gc
import logging
import os
import sys

from sweeps.cli.app import carsweep
from sweeps.cli.exits import open_streams, run_command
from sweeps.interrupts import interruptible

__all__ = ["main"]

FACE = {
    "folder": ("status_lines",),
    "notebook": ("progress_console",),
    "output": ("say",),
    "view": ("open_view",),
}
"""What Python's own door (sweeps.api) may import, by module."""


def main() -> None:
    """Run ``carsweep`` with the arguments of this process, and exit with its code."""
    open_streams()
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk say, prints no traceback
    # The collector would look through all objects of a sweep's libraries again and again while they load, a sixth of
    # that time, and once more at the end, for more than a second.
    gc.set_threshold(50_000, 20, 100)
    if "_CARSWEEP_COMPLETE" in os.environ:
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it looks through all that is installed
        import sweeps.cli.completing  # noqa: F401 - it makes bash's and zsh's completions known
    with interruptible():
        code = run_command(carsweep, sys.argv[1:])
    gc.freeze()
    sys.exit(code)
