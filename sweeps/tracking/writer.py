"""One thread that writes to MLflow, so that the sweep never waits for it and never fails because of it.

What is to be written of a run replaces what waits for it: it gets one request, however many epochs it has reported. One
writer keeps the order (a run is made, then logged to, then closed) and is all that SQLite can bear. What gathers in
half a second is written to a database in one transaction.

Loading MLflow and opening the store take seconds of a core. They wait for the first trial to begin, which they would
hold up otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice

from carcls.errors import TrackingError
from sweeps.tracking.runs import SweepRuns
from sweeps.tracking.store import Tracking, explained, one_line

# So long opening the store waits for something to write: longer than a slow machine takes to begin its first trial.
BEGIN_SECONDS = 30.0
RETRY_SECONDS = 3.0
# So long updates gather: of many short trials, and of all that one trial says at once.
GATHER_SECONDS = 0.5
# So often the store is asked to open, and the end of a sweep is written at most.
_TRIES = 3
# So many runs are written in one transaction at most, for which other writers of the database wait.
_TOGETHER = 50
# MLflow understood and said no: asking again would only say no again.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
# Brings a run in line when it is called, and again when that failed.
Write = Callable[[], None]


class Writer:
    """Write in the background, and again after an outage.

    A request whose answer was lost may have been carried out, and MLflow's client would send it again unseen. So that
    is told to ask once (see ``sweeps.tracking.store``); here the runs are read again before anything is written anew.

    Args:
        tracking: named in warnings.
        runs: where to write; belongs to the writer's thread until ``close``.
        start: writes the parent run when the store is opened.
        warn: called from the writer's thread, once for an outage and once for a refusal.

    Attributes:
        failures: how many attempts MLflow has not answered.
    """

    def __init__(self, tracking: Tracking, runs: SweepRuns, start: Write, warn: Callable[[str], None]) -> None:
        self._tracking, self._runs, self._start, self._warn = tracking, runs, start, warn
        self._changed = threading.Condition()
        self._pending: dict[int | None, Write] = {}
        self._wanted = self._begun = self._busy = self._closing = self._hurry = self._failing = False
        self._error: TrackingError | None = None
        self.failures = 0
        self._warned: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="carsweep-mlflow", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Have the store opened and its runs read, if they are not, and wait for it.

        Raises:
            TrackingError: the store cannot be opened, or the parent run cannot be made; nothing is written then.
        """
        with self._changed:
            self._want()
            self._changed.wait_for(lambda: self._begun or self._error)
            self._want()  # raises what went wrong meanwhile

    def post(self, number: int | None, write: Write) -> None:
        """Hand over what brings trial ``number`` (None: the sweep) in line; it replaces what waits. Returns at once.

        Raises:
            TrackingError: as ``begin``.
        """
        with self._changed:
            self._want()
            self._pending[number] = write
            self._changed.notify_all()

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until everything is written, or an attempt has failed; return whether everything is."""
        with self._changed:
            failures, self._hurry, self._wanted = self.failures, True, True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._idle or self.failures > failures or self._error or self._closing, seconds
            )
            return self._idle

    def close(self, last: Write, seconds: float = 30.0) -> bool:
        """Write what waits and then what is ``last``, trying a few times; return whether everything was written.

        Where nothing has been wanted yet, nothing is opened or written. Afterwards the thread ends. Two threads may
        close it at a time: what the first one had to say is enough.
        """
        with self._changed:
            written = not self._wanted
            self._pending[None] = last
        for _ in range(_TRIES):
            written = written or self.flush(seconds / _TRIES) or self._closing
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not written and self._error is None:
            self._warn_once(
                "end", "MLflow is missing the end of this sweep; carsweep tracking repair NAME brings it in line."
            )
        self._thread.join(1.0)
        return written

    @property
    def _idle(self) -> bool:
        return self._begun and not self._pending and not self._busy

    def _want(self) -> None:
        if self._error is not None:
            raise self._error
        self._wanted = True
        self._changed.notify_all()

    def _work(self) -> None:
        if not self._open():
            return
        while (batch := self._next_batch()) is not None:
            left = self._write(batch)
            with self._changed:
                self._pending = {**left, **self._pending}
                self._busy = False
                self._failing = bool(left)
                self.failures += self._failing
                self._changed.notify_all()

    def _open(self) -> bool:
        """Wait until there is a reason to begin, then open the store; return whether it is open."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._closing, BEGIN_SECONDS)
            if self._closing:
                return False
            self._wanted = True
        error: TrackingError | None = None
        for _ in range(_TRIES):
            try:
                with explained(self._tracking):
                    self._runs.read()
                    self._start()
                error = None
                break
            except TrackingError as raised:
                error = raised
        with self._changed:
            self._begun, self._error = error is None, error
            self._changed.notify_all()
        return self._begun

    def _next_batch(self) -> dict[int | None, Write] | None:
        """Wait for updates, and after a failure for a while; None when the writer is closed."""
        with self._changed:
            if self._failing:
                self._changed.wait_for(lambda: self._hurry or self._closing, RETRY_SECONDS)
            self._changed.wait_for(lambda: self._pending or self._closing)
            self._changed.wait_for(lambda: self._hurry or self._closing, GATHER_SECONDS)
            if self._closing:
                return None
            batch, self._pending = self._pending, {}
            self._busy, self._hurry = True, False
            # The parent comes last: when it says how the sweep ended, its trials have said so already.
            return dict(sorted(batch.items(), key=lambda item: item[0] is None))

    def _write(self, batch: dict[int | None, Write]) -> dict[int | None, Write]:
        """Write a batch; return what could not be written because MLflow did not answer."""
        left = dict(batch)
        try:
            if self._failing:
                self._runs.read()
            while left:
                some = dict(islice(left.items(), _TOGETHER))
                together = self._runs.write_together(some.values())
                for number, write in some.items():
                    if not together:
                        self._write_one(number, write)
                    del left[number]
        except Exception as error:  # whatever a client library raises, the sweep goes on
            if self._failing:
                self._warn_once("outage", self._outage(error))
        return left

    def _write_one(self, number: int | None, write: Write) -> None:
        from mlflow.exceptions import MlflowException

        try:
            write()
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            who = "the sweep" if number is None else f"trial {number}"
            self._warn_once("refusal", f"MLflow refused what was logged of {who}: {one_line(error)}")

    def _outage(self, error: Exception) -> str:
        return (
            f"MLflow at {self._tracking.shown_uri} cannot be written ({one_line(error)}). "
            "The sweep goes on, and MLflow is brought in line when it answers again."
        )

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self._warn(message)
