"""What ends a command from outside: Ctrl-C, SIGTERM, SIGHUP. One answer to all of them, wherever the command is.

A signal raises KeyboardInterrupt in the main thread. While trials run, the first one only asks the sweep to stop. What
closes a sweep is short and must be whole, so it is ``uninterrupted``: a signal that comes meanwhile is answered later.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

FAILED, INTERRUPTED = 1, 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `timeout` signals the process and then its group; a wrapper passes on what the terminal has sent already.
_SAME_SECONDS = 0.5
_AGAIN_SECONDS = 0.02
_TOGETHER_SECONDS = 1.0  # so late this process may answer a signal that other processes were sent, too
_SIGACTION_BYTES = 512  # more than the largest struct sigaction


@dataclass(slots=True)
class _State:
    last: float = float("-inf")
    waiting: bool = False
    uninterrupted: int = 0
    first: list[Callable[[], bool]] = field(default_factory=list)
    last_words: list[Callable[[], object]] = field(default_factory=list)
    arrivals: int | None = None  # a pipe with the number of each signal, also of those not answered yet


_state = _State()


@contextmanager
def interruptible(first: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Answer signals inside; in the main thread only. A command that was started to ignore SIGHUP (nohup) goes on so.

    Args:
        first: called before KeyboardInterrupt is raised, which is not when it returns True.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    _state.first.append(first)
    try:
        for number in before:
            if number != signal.SIGHUP or before[number] != signal.SIG_IGN:
                signal.signal(number, _answer)
        with _arrivals_noted():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.first.pop()


@contextmanager
def _arrivals_noted() -> Iterator[None]:
    """Have Python's own handler, which waits for nobody, note each signal: the main thread may hang in foreign code."""
    if _state.arrivals is not None:
        yield
        return
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    _state.arrivals = read
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        _state.arrivals = None
        os.close(write)
        os.close(read)


def _has_arrived() -> bool:
    """Tell whether a signal has ever come."""
    with suppress(OSError):  # nothing has
        return _state.arrivals is not None and any(n in SIGNALS for n in os.read(_state.arrivals, 4096))
    return False


def _answer(number: int, frame: FrameType | None) -> None:
    if number != signal.SIGALRM:
        last, _state.last = _state.last, time.monotonic()
        if _state.last - last < _SAME_SECONDS or _state.first[-1]():
            return
    if _state.uninterrupted:
        _state.waiting = True
    elif _would_be_lost(frame):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        raise KeyboardInterrupt


def _would_be_lost(frame: FrameType | None) -> bool:
    """Tell whether Python would drop an exception that is raised here, or keep an import's lock for ever."""
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        return True
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code.co_filename == weakref.__file__:
            return True
        frame = frame.f_back
    return False


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Raise nothing inside; KeyboardInterrupt comes afterwards if a signal has."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.uninterrupted += 1
    try:
        yield
    finally:
        _state.uninterrupted -= 1
    if _state.waiting and not _state.uninterrupted:
        _state.waiting = False
        raise KeyboardInterrupt


@contextmanager
def last_words(act: Callable[[], object]) -> Iterator[None]:
    """Have ``act`` called, should ``end_now`` end the process inside: it may not wait for the main thread."""
    _state.last_words.append(act)
    try:
        yield
    finally:
        _state.last_words.remove(act)


def end_now(reason: str) -> None:
    """End this process from whatever thread, though the main one may hang: call the last words, latest first.

    Args:
        reason: one sentence, printed if no signal has come: whoever sent one knows.
    """
    time.sleep(_TOGETHER_SECONDS)
    signalled = _has_arrived()
    if not signalled:
        sys.stderr.write(f"carsweep: {reason}\n")
    for act in reversed(_state.last_words):
        with suppress(Exception):  # the next ones are owed all the same
            act()
    os._exit(INTERRUPTED if signalled else FAILED)


@contextmanager
def keeping_handlers() -> Iterator[None]:
    """Give signals back what answered them before the body: Ray takes SIGTERM for itself, from whatever thread.

    Python changes handlers in its main thread only, so it is done in the C library; the body runs in another thread.
    """
    library = ctypes.CDLL(None)
    kept = {int(number): ctypes.create_string_buffer(_SIGACTION_BYTES) for number in SIGNALS}
    for number, action in kept.items():
        library.sigaction(number, None, action)
    try:
        yield
    finally:
        for number, action in kept.items():
            library.sigaction(number, action, None)
