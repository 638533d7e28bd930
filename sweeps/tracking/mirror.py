"""MLflow as a view of the records: each trial's run says what its record says, whatever happened to MLflow.

One thread writes, so that the sweep never waits for MLflow and never fails because of it. What is to be written of a
run replaces what waits for it: it gets one request, however many epochs it has reported. One thread keeps the order (a
run is made, then logged to, then closed) and is all that SQLite can bear. What gathers in half a second is written to a
database in one transaction.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carcls.errors import TrackingError
from sweeps.spec.sweep_file import job_of, read_file, text_with_id
from sweeps.text import one_line
from sweeps.tracking.names import NOTE, STATE
from sweeps.tracking.provenance import PACKAGES, Surroundings, code_tags, dataset_input, packages
from sweeps.tracking.runs import SweepRuns
from sweeps.tracking.store import Tracking, explained
from sweeps.tracking.updates import INTERRUPTED, STATUS, Update, Ways, logged
from sweeps.tracking.views import view_of
from sweeps.tracking.words import sweep_text
from sweeps.trial import TrialRecord

if TYPE_CHECKING:
    from carcls.data.config import DataSummary
    from sweeps.spec.spec import SweepSpec

RETRY_SECONDS = 3.0
# So long updates gather: of many short trials, and of all that one trial says at once.
GATHER_SECONDS = 0.5
# So often the store is asked to open, and the end of a sweep is written at most.
_TRIES = 3
# So many runs are written in one transaction at most, for which other writers of the database wait.
_TOGETHER = 50
# MLflow understood and said no: asking again would only say no again.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
_STATUS = {"complete": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
# Number of a trial, None for the sweep; and what brings its run in line, also when it is called again.
_Write = tuple[int | None, Callable[[], None]]


def mirror_of(
    spec: SweepSpec, folder: Path, tracking: Tracking, data: DataSummary, warn: Callable[[str], None]
) -> Mirror:
    """Return the mirror of the sweep in ``folder``; ``warn`` gets one line, perhaps from another thread."""
    known, name = read_file(folder).id, str(spec.name)
    sweep = Update(
        name,
        tags={"carsweep.family": spec.family, NOTE: sweep_text(spec, data, folder)},
        params={"data": data.name, "data_digest": data.digest, "seed": spec.seed, "spec_digest": spec.digest},
        files={"spec.yaml": text_with_id(spec, known)},
    )
    ways = Ways(spec.trial_config({}).model_dump(), tuple(spec.search), job_of(folder, spec))
    runs = SweepRuns(tracking, family=spec.family, sweep_id=known, name=name, ways=ways)
    return Mirror(runs, sweep, warn, Surroundings(view_of([spec], name, known), data, spec.data.path))


class Mirror:
    """Keeps one parent run for the sweep and one child run for each trial in line with the records; an observer.

    Runs are found again by their tags, so a sweep that is run again goes on in the same runs. When MLflow stops
    answering, ``warn`` is called once and the sweep goes on. A request whose answer was lost may have been carried out,
    and MLflow's client would send it again unseen. So the client asks once (``sweeps.tracking.compat``), and the
    runs are read again before anything is written anew.

    Loading MLflow and opening the store take seconds of a core, so it is done when the first trial has begun, which
    that would delay otherwise. If a store cannot be opened, the next call raises the TrackingError; ``flush`` and
    ``close`` return False.

    Args:
        runs: of the sweep.
        sweep: what the parent run says at first; its files are written once.
        warn: gets one line, for an outage, a refusal and a missing end once each; may be called from another thread.
        around: what else is said once.
    """

    def __init__(
        self, runs: SweepRuns, sweep: Update, warn: Callable[[str], None], around: Surroundings | None = None
    ) -> None:
        self._runs, self._warn, self._asked, self._around = runs, warn, sweep, around
        self._shown: Sequence[Path] = ()
        self._sweep = replace(sweep, tags={**sweep.tags, STATE: "running"}, files={}, status="RUNNING")
        self._thread = threading.Thread(target=self._work, name="carsweep-mlflow", daemon=True)
        self._opened: Future[None] = Future()
        self._changed = threading.Condition()
        self._pending: dict[int | None, Callable[[], None]] = {}
        self._ends = self._closing = self._hurry = False
        self._failures = 0  # attempts that MLflow has not answered
        self._warned: set[str] = set()

    def trial_changed(self, record: TrialRecord) -> None:
        """Bring the trial's run in line with a trial that this process runs, or has run; returns at once."""
        if not self._ends:  # a trial may report on while another thread ends the process
            self._post(record.number, partial(self._runs.mirror, record, runs_now=True))

    def bring_in_line(self, records: Iterable[TrialRecord], *, winner: int | None = None) -> None:
        """Bring MLflow in line with all records, once no trial runs any more: one that has not ended is interrupted.

        What else MLflow has of this sweep is closed by ``close``. Derived trials have no run but for the ``winner``:
        there may be hundreds, and MLflow's pages are slow with hundreds.
        """
        self._wake()
        self._opened.result()
        every, derived = list(records), defaultdict[int, list[TrialRecord]](list)
        for record in every:
            if record.derived_from is not None:
                derived[record.derived_from].append(record)
        for record in every:
            if record.derived_from is None or record.number == winner:
                self._post(record.number, partial(self._runs.mirror, record, derived=derived[record.number]))

    def summarise(
        self,
        records: Sequence[TrialRecord],
        *,
        best: int | None,
        metrics: Mapping[str, float] | None = None,
        outcome: str = "",
        files: Sequence[Path] = (),
    ) -> None:
        """Write the sweep's result to its parent run.

        Args:
            records: all trials.
            best: number of the best trial by validation accuracy.
            metrics: more numbers to show, such as the winner's ``test_accuracy``.
            outcome: what came of it, in words.
            files: of text, that are kept as artifacts, where they are there when the mirror is closed.
        """
        searched = (record for record in records if record.derived_from is None and record.confirms is None)
        counts: Counter[str] = Counter(record.status for record in searched)
        shown = {f"trials_{status}": float(counts[status]) for status in STATUS}
        for record in records:
            if record.number == best:
                shown["best_val_accuracy"] = record.metrics.get("val_accuracy", float("nan"))
        tags = {**self._sweep.tags, "carsweep.best_trial": "" if best is None else str(best)}
        if best is not None and (run := self._runs.trial(best)) is not None:
            tags["carsweep.best_run_id"] = run.run_id
        if outcome:
            tags[NOTE] = f"**{outcome}**\n\n{self._asked.tags.get(NOTE, '')}"
        self._shown = files
        # The step counts finished trials, so that a sweep that was extended shows both results.
        points = ((sum(counts[status] for status in STATUS), {**shown, **logged(metrics or {})}),)
        self._sweep = replace(self._sweep, tags=tags, points=points)
        self._post(None, partial(self._runs.write, None, self._sweep))

    def flush(self, seconds: float = 30.0, tries: int = 1) -> bool:
        """Wait until everything is written or so many attempts have failed; return whether everything is."""
        with self._changed, suppress(TrackingError):
            failures, self._hurry = self._failures + tries, True
            self._wake()
            self._changed.wait_for(lambda: self._is_idle or self._failures >= failures or self._closing, seconds)
        return self._is_idle

    def close(self, status: Literal["complete", "interrupted", "failed"], seconds: float = 30.0) -> bool:
        """Close all runs and stop writing; return whether everything was written. Takes ``seconds`` or so at most.

        When nothing has happened yet, nothing is written. Two threads may close it at a time: what the first one had to
        say is enough.
        """
        with self._changed:
            self._sweep = replace(self._sweep, tags={**self._sweep.tags, STATE: status}, status=_STATUS[status])
            self._pending[None], self._ends, has_begun = self._write_end, True, self._thread.ident is not None
        # A server that starts again takes seconds, so it is tried again.
        written = not has_begun or self.flush(seconds, _TRIES) or self._closing
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not written and not (self._opened.done() and self._opened.exception()):  # which whoever wrote was told
            again = f"carsweep tracking repair {self._sweep.name}"
            self._warn_once("end", f"MLflow is missing the end of this sweep; {again} brings it in line.")
        if has_begun:
            self._thread.join(1.0)
        return written

    @property
    def _is_open(self) -> bool:
        return self._opened.done() and self._opened.exception() is None

    @property
    def _is_idle(self) -> bool:
        return self._is_open and not self._pending

    def _post(self, number: int | None, write: Callable[[], None]) -> None:
        """Hand over what brings a run in line, in the place of what waits; raises as ``_wake`` does."""
        with self._changed:
            self._wake()
            self._pending[number] = write

    def _wake(self) -> None:
        """Have the thread look at what there is to do.

        Raises:
            TrackingError: the store cannot be opened, or the parent run cannot be made; nothing is written then.
        """
        with self._changed:
            if self._opened.done():
                self._opened.result()
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()

    def _work(self) -> None:
        """Open the store, then write what gathers until the mirror is closed."""
        self._open_store()
        answers = True
        while self._is_open and (batch := self._next_batch(answers=answers)):
            answers = self._write(batch, read_first=not answers)
            with self._changed:
                self._failures += not answers
                self._changed.notify_all()

    def _open_store(self) -> None:
        for left in reversed(range(_TRIES)):
            try:
                with explained(self._runs.tracking):
                    self._runs.read()
                    self._write_beginning()
                self._opened.set_result(None)
                break
            except TrackingError as error:
                if not left:
                    self._opened.set_exception(error)
        with self._changed:
            self._failures += 0 if self._is_open else _TRIES
            self._changed.notify_all()

    def _write_beginning(self) -> None:
        tags, files = {**self._sweep.tags, **code_tags()}, {**self._asked.files, PACKAGES: packages()}
        self._runs.write(None, replace(self._sweep, tags=tags, files=files))
        if self._around is not None:
            data = dataset_input(self._around.data, self._around.path)
            for write in (partial(self._runs.log_data, data), partial(self._runs.describe, self._around.view)):
                self._write_one(None, write)  # without these a sweep is tracked as well

    def _next_batch(self, *, answers: bool) -> list[_Write]:
        """Wait for updates, and longer after a failure; return nothing when the mirror is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            pause = GATHER_SECONDS if answers else RETRY_SECONDS
            self._changed.wait_for(lambda: self._hurry or self._closing, pause)
            self._hurry = False
            # The parent comes last: when it says how the sweep ended, its trials have said so already.
            return [] if self._closing else sorted(self._pending.items(), key=lambda item: item[0] is None)

    def _write(self, batch: list[_Write], *, read_first: bool) -> bool:
        """Write a batch; return whether MLflow answered. What it did not take waits on."""
        try:
            if read_first:
                self._runs.read()
            for first in range(0, len(batch), _TOGETHER):
                some = batch[first : first + _TOGETHER]
                together = self._runs.write_together(write for _, write in some)
                for number, write in some:
                    if not together:
                        self._write_one(number, write)
                    with self._changed:
                        if self._pending.get(number) is write:
                            del self._pending[number]
        except Exception as error:  # whatever a client library raises, the sweep goes on
            if read_first:
                self._warn_once(
                    "outage",
                    f"MLflow at {self._runs.tracking.shown_uri} cannot be written ({one_line(error)}). "
                    "The sweep goes on, and MLflow is brought in line when it answers again.",
                )
            return False
        return True

    def _write_one(self, number: int | None, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            if getattr(error, "error_code", "") not in _REFUSALS:
                raise
            who = "the sweep" if number is None else f"trial {number}"
            self._warn_once("refusal", f"MLflow refused what was logged of {who}: {one_line(error)}")

    def _write_end(self) -> None:
        if self._failures:
            self._runs.read()  # closes runs that MLflow made twice, perhaps after it was asked again
        self._runs.close_open(INTERRUPTED)  # of trials that this process ran, or an earlier one that was killed
        texts = {file.name: file.read_text(encoding="utf-8") for file in self._shown if file.is_file()}
        self._runs.write(None, replace(self._sweep, files=texts))
        if self._around is not None:
            self._runs.describe(self._around.view)

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            self._warn(message)
