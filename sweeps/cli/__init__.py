"""The command line. Importing it loads click and nothing else; a command is loaded when it is called."""

from __future__ import annotations

import sys

from sweeps.cli.app import carsweep
from sweeps.cli.exits import run_command

__all__ = ["main"]


def main() -> None:
    """Run ``carsweep`` with the arguments of this process, and exit with its code."""
    sys.exit(run_command(carsweep, sys.argv[1:]))
