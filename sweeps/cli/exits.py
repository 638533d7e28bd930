"""From exceptions to exit codes: the only place where an error becomes a message for a person."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from carcls.disk import is_out_of_reach
from carcls.errors import InputError, SpecError, SweepStopped, TrialFailure, mask_secrets
from sweeps.cli.output import StdoutLost

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
_LONGEST = 300


def run_command(command: click.Command, arguments: Sequence[str]) -> int:
    """Run ``command`` and return the exit code; errors are told on stderr, with ``--json`` on stdout too."""
    try:
        code = command.main(list(arguments), prog_name="carsweep", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except StdoutLost as lost:
        # Whoever reads the first lines of a list has seen what they wanted; a result that is lost is told.
        if lost.advice or not lost.closed:
            click.echo(f"carsweep: {lost}{lost.advice}", err=True)
        return FAILED
    except BaseException as error:
        messages, code = _explain(error)
    messages = [mask_secrets(message) for message in messages]
    for message in messages:
        click.echo(f"carsweep: {message}", err=True)
    if messages and "--json" in arguments:
        with suppress(StdoutLost):
            click.echo(json.dumps({"error": "\n".join(messages)}))
    return code


def _explain(error: BaseException) -> tuple[list[str], int]:
    said = " ".join(str(error).split())
    short = _cut(said)
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return [], MISTAKE
        case SpecError():
            return list(error.mistakes), MISTAKE
        case InputError():
            return [said], MISTAKE
        case SweepStopped() | TrialFailure():
            return [said], FAILED
        case click.UsageError():
            where = f" See '{error.ctx.command_path} --help'." if error.ctx else ""
            short = _cut(" ".join(error.format_message().split()))
            return [short + ("" if short.endswith((".", "?", "?)", "…")) else ".") + where], MISTAKE
        case click.ClickException():
            return [error.format_message()], error.exit_code
        case KeyboardInterrupt() | click.Abort():
            return ["interrupted."], INTERRUPTED
        case SystemExit():
            return [], error.code if isinstance(error.code, int) else FAILED
        case Exception() if is_out_of_reach(error):
            return [f"a file cannot be written or read: {short}. Once that is mended: the same command again."], FAILED
    if os.environ.get("CARSWEEP_DEBUG"):
        click.echo(mask_secrets("".join(traceback.format_exception(error))), err=True)
    message = (
        f"internal error: {type(error).__name__}: {short} This is a fault of carsweep: please report it with the "
        "command and the output of the same command under CARSWEEP_DEBUG=1."
    )
    return [message], FAILED


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
