"""Processes that work for this one: they end with it, whatever ends it, and before it takes up other work. No torch.

Both sides exchange lines of JSON through pipes. Of the helper's own output only what it says on purpose is read; what
its libraries print goes where errors go.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any, NoReturn

from carcls.errors import BadData

# Of Linux's prctl.h: the signal that a process gets when the thread that started it ends.
_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 500
# Those that this process has started, and not ended yet.
_running: set[Helpers] = set()


class Helpers:
    """Processes that run the same module, each with an order of its own. Use it as a context manager.

    Args:
        module: run as ``python -m``; it calls ``serve``.
        orders: for each process what JSON can hold.
        environments: for each process what differs from this one's environment.
    """

    def __init__(
        self, module: str, orders: Sequence[Mapping[str, Any]], environments: Sequence[Mapping[str, str]]
    ) -> None:
        self._module, self._orders, self._environments = module, orders, environments
        self._processes: list[subprocess.Popen[bytes]] = []
        self._errors: list[IO[bytes]] = []
        self._heard: SimpleQueue[tuple[int, dict[str, Any] | None]] = SimpleQueue()

    def __enter__(self) -> Helpers:
        _running.add(self)
        try:
            for environment in self._environments:
                self._start(environment)
            # A pipe holds 64 KiB of an order; the rest waits until its process has loaded its libraries.
            for number, order in enumerate(self._orders):
                self._tell(number, order)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _start(self, environment: Mapping[str, str]) -> None:
        # What can be imported here can be there, and nothing of the current folder besides.
        shared = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        errors, number = tempfile.TemporaryFile(), len(self._processes)  # noqa: SIM115 - closed at the end
        process = subprocess.Popen(  # noqa: S603 - our own module
            (sys.executable, "-P", "-m", self._module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **shared, **environment},
        )
        self._processes.append(process)
        self._errors.append(errors)
        threading.Thread(target=self._listen, args=(number, process), name=f"helper-{number}", daemon=True).start()

    def _listen(self, number: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as said:
            for line in said:
                with suppress(ValueError):  # half a line, of one that was killed
                    self._heard.put((number, json.loads(line)))
        self._heard.put((number, None))

    def _tell(self, number: int, said: Mapping[str, Any]) -> None:
        stdin = self._processes[number].stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # it has died, which is heard
            stdin.write(json.dumps(said).encode() + b"\n")
            stdin.flush()

    def hear(self, timeout: float | None = None) -> tuple[int, dict[str, Any] | None]:
        """Return what one of them says next, by its place; None of one that has ended.

        Raises:
            queue.Empty: none said anything for so many seconds.
        """
        return self._heard.get(timeout=timeout)

    def answer(self, number: int) -> None:
        """Let a helper go on that waits (``Caller.wait``)."""
        self._tell(number, {})

    def end_of(self, number: int) -> str:
        """Return how a helper that has ended did so, and the last line that it wrote."""
        code = self._processes[number].wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        errors = self._errors[number]
        errors.seek(max(0, os.fstat(errors.fileno()).st_size - _LAST_WORDS))
        words = errors.read().decode(errors="replace").strip().splitlines()
        return f"{how}; it last said: {words[-1].strip()}" if words else how

    def end(self) -> None:
        """End all of them now, and take back what they have."""
        for process in self._processes:
            process.kill()
        for process, errors in zip(self._processes, self._errors, strict=True):
            process.wait()
            errors.close()
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
        _running.discard(self)


def end_helpers() -> None:
    """End all helpers of this process: the work that they were started for will not go on."""
    for helpers in tuple(_running):
        helpers.end()


class Caller:
    """The process that started this one, as a helper knows it. This process ends with it.

    Attributes:
        order: what is to be done.
    """

    def __init__(self) -> None:
        with suppress(OSError, AttributeError):  # elsewhere the closed pipe must do
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._told: SimpleQueue[str] = SimpleQueue()
        self.order: dict[str, Any] = json.loads(sys.stdin.readline() or "null")
        if self.order is None:  # it died before the line above
            os._exit(1)
        threading.Thread(target=self._listen, name="caller", daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._told.put(line)
        os._exit(1)

    def say(self, **said: Any) -> None:
        """Say what JSON can hold."""
        self._out.write(json.dumps(said, default=float) + "\n")
        self._out.flush()

    def wait(self) -> None:
        """Wait until the caller answers; for ever, unless it does or ends this process."""
        self._told.get()


def serve(work: Callable[[Caller], None]) -> NoReturn:
    """Do some work for the caller; say ``failed`` or ``done``, and wait to be ended.

    A helper that left would break what others are exchanging with it, and they would seem to have failed.
    """
    caller = Caller()
    try:
        work(caller)
    except Exception as error:
        said = {"kind": type(error).__name__, "message": " ".join(str(error).split())}
        if isinstance(error, OSError) and error.filename is not None:
            said = {"kind": BadData.__name__, "message": f"{str(error.filename)!r} cannot be read: {error.strerror}."}
        caller.say(failed={**said, "traceback": traceback.format_exc()})
    else:
        caller.say(done=True)
    while True:
        caller.wait()
