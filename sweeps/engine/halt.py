"""Whether a running sweep goes on, and why not: a signal, a request, failures, a budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeps.failures import IN_A_ROW, POLICIES, Failure
from sweeps.lock import asked_to_stop
from sweeps.results.result import UsedUp

# So long a sweep that stops waits for the epochs that run.
STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.5


@dataclass(slots=True)
class Halt:
    """Whether the sweep goes on, and why not.

    Attributes:
        folder: of the sweep, where a request to stop would be.
        notify: gets a sentence when the sweep begins to stop.
        deadline: when the hours of the search are over, by time.monotonic.
        cause: why running trials end; the last epoch of each is on disk already.
        at_once: whether they end without finishing the epoch that runs.
        error: an exception of an observer, or of the journal, when it is why.
        stopped: the failures of trials, when they are why.
        used_up: the budget because of which a trial was refused, and from then on every other.
        confirming: whether the search is over; the hours do not count for what confirms it.
    """

    folder: Path
    notify: Callable[[str], None]
    deadline: float
    cause: Literal["", "interrupt", "error", "failures"] = ""
    at_once: bool = False
    error: Exception | None = None
    stopped: str = ""
    used_up: UsedUp = ""
    confirming: bool = False
    _looked: float = 0.0
    _patient_until: float = 0.0
    _last: tuple[str, str] = ("", "")  # kind and mark of the failure that the last trial ended with
    _in_a_row: int = 0

    def may_go_on(self) -> bool:
        """Tell whether running trials may go on after their epoch."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            now = asked_to_stop(self.folder)
            if now is not None:
                self.cause, self.at_once = self.cause or "interrupt", self.at_once or now
        return not self.cause

    def must_end(self) -> bool:
        """Tell whether running trials end now, wherever they are."""
        if self.may_go_on():
            return False
        if self.at_once or self.cause in ("error", "failures"):
            return True
        if not self._patient_until:
            self._patient_until = time.monotonic() + STOP_SECONDS
            limit = f"at most {STOP_SECONDS:.0f} s"
            self.notify(f"Stopping after the epochs that run, {limit}; Ctrl-C again stops at once.")
        return time.monotonic() >= self._patient_until

    def may_start(self, used_up: Callable[[], UsedUp]) -> bool:
        """Tell whether a trial may start; ``used_up`` returns the budget, besides the hours, that forbids it."""
        if not self.may_go_on() or self.used_up in ("epochs", "cost"):
            return False
        out_of_time = not self.confirming and (self.used_up == "hours" or time.monotonic() >= self.deadline)
        now: UsedUp = "hours" if out_of_time else used_up()
        self.used_up = now or self.used_up
        return not now

    def interrupt(self) -> bool:
        """A signal has come: end the sweep gently; return whether it is the first."""
        is_first = self.cause != "interrupt"
        self.cause = "interrupt"
        return is_first

    def note(self, failure: Failure | None) -> None:
        """A trial has failed, or (None) was complete or stopped early: equal failures in a row end the sweep."""
        now = (failure.kind, failure.mark) if failure else ("", "")
        self._last, self._in_a_row = now, self._in_a_row + 1 if now == self._last else 1
        if failure and self._in_a_row >= IN_A_ROW:
            said = {"count": IN_A_ROW, "mark": failure.mark, "reason": failure.reason}
            self.stop(POLICIES[failure.kind].stops.format(**said))

    def stop(self, reason: str) -> None:
        """End the sweep, resumably, because trials keep failing; not where there is no reason."""
        if reason and not self.cause:
            self.cause, self.stopped = "failures", reason

    @contextmanager
    def catching(self) -> Iterator[None]:
        """End the sweep, resumably, because of an exception inside; Tune would print a traceback of its own."""
        try:
            yield
        except Exception as error:
            self.cause, self.error = "error", self.error or error
