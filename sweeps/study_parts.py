"""What the study is built of: distributions and the journal. With study.py, all there is of optuna."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from carcls.errors import InputError, OutputError
from sweeps.record import Status, TrialRecord
from sweeps.space import Choice, Domain, FloatDomain, IntDomain
from sweeps.study_lines import OBJECTIVE, EpochHistory, is_epoch, sealed, whole_lines

STUDY = "sweep"
# Waiting for each of the lines of a trial takes longer than all else that the study does.
SYNC_SECONDS = 0.25
STATES: Mapping[Status, TrialState] = {
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def to_distribution(domain: Domain) -> BaseDistribution:
    """Return optuna's distribution over the same values.

    >>> to_distribution(FloatDomain(low=0.0, high=0.5, log=False))
    FloatDistribution(high=0.5, log=False, low=0.0, step=None)
    """
    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(domain.choices))
    if isinstance(domain, IntDomain):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def from_distribution(distribution: BaseDistribution) -> Domain:
    """Return the domain over the same values: the inverse of ``to_distribution``."""
    if isinstance(distribution, CategoricalDistribution):
        return Choice(choices=tuple(distribution.choices))  # type: ignore[arg-type]
    if isinstance(distribution, IntDistribution):
        return IntDomain(low=distribution.low, high=distribution.high, log=distribution.log, step=distribution.step)
    assert isinstance(distribution, FloatDistribution)
    return FloatDomain(low=distribution.low, high=distribution.high, log=distribution.log)


class Journal:
    """The file that everything is written to.

    A process that dies loses no line. A machine that stops may lose what was written in the last moments: after each
    SYNC_SECONDS at most the next line is waited for until all of the file is on the disk.

    Args:
        path: of the file; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waits = True
        self._synced = -math.inf
        self._read = _Place()
        self._written = 0  # the sum of the last line
        self._more: Mapping[str, Any] = {}
        self._epochs: defaultdict[int, list[int]] = defaultdict(list)
        if not path.exists():
            path.open("ab").close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the whole lines from a number on.

        Raises:
            InputError: the journal is damaged.
        """
        if log_number_from != self._read.lines:
            self._read = _Place()
            self._epochs.clear()
        with self.path.open("rb") as file:
            file.seek(self._read.end)
            try:
                for line, total in whole_lines(file, self._read.sum):
                    log, begin = json.loads(line), self._read.end
                    self._read = _Place(self._read.lines + 1, begin + len(line), total)
                    if is_epoch(log):
                        self._epochs[log["trial_id"]].append(begin)
                    if self._read.lines > log_number_from:
                        yield log
            except ValueError as error:
                raise damaged(self.path, f"line {self._read.lines + 1}: {error}") from None
        self._written = self._read.sum

    def cut(self) -> None:
        """Cut off the half line at the end that a writer left when it was killed; only its driver may.

        Raises:
            InputError: the journal is damaged.
        """
        deque(self.read_logs(self._read.lines), maxlen=0)
        if self._read.end < self.path.stat().st_size:
            os.truncate(self.path, self._read.end)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines at the end."""
        lines, total = sealed(({**log, **self._more} for log in logs), self._written)
        with self.path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                if file.write(lines) != len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._waits and time.monotonic() - self._synced >= SYNC_SECONDS:
                    os.fsync(file.fileno())
                    self._synced = time.monotonic()
            except OSError as error:
                file.truncate(before)  # half a line would spoil all that come after it
                raise OutputError(
                    f"the sweep's journal must be written, got {error.strerror!r} for {str(self.path)!r}. "
                    "Make room there; then run the same command with the sweep's --name: nothing is lost."
                ) from None
        self._written = total

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        with self.path.open("ab", buffering=0) as file:
            os.fsync(file.fileno())

    def history(self, trial: int) -> EpochHistory:
        """Return the epochs of a trial that were read so far."""
        return EpochHistory(self.path, self._epochs.get(trial, ()))

    @contextmanager
    def adding(self, **more: Any) -> Iterator[None]:
        """Write more values into each line than Optuna gives, which it passes over when it reads."""
        self._more = more
        try:
            yield
        finally:
            self._more = {}

    @contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Write lines that could be made again without waiting for the disk: hundreds would take seconds."""
        self._waits = False
        try:
            yield
        finally:
            self._waits = True


class _Place(NamedTuple):
    """How far a journal was read: lines, bytes, and the sum of the last line."""

    lines: int = 0
    end: int = 0
    sum: int = 0


def damaged(journal: Path, what: str) -> InputError:
    """Return the error of a journal that cannot be trusted; ``what`` is wrong with it."""
    return InputError(
        f"{journal.name} must be as carsweep wrote it, got a damaged one at {journal} ({what}). Put a copy of it "
        "back, or keep the lines before the damage (head -n LINES) and run the sweep again: "
        "what they tell is not run twice."
    )


def load(journal: Journal) -> optuna.Study:
    """Open the study in the journal, or begin it there."""
    storage = replayed(journal)
    journal.cut()
    return optuna.create_study(storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True)


def replayed(journal: Journal) -> JournalStorage:
    """Return what the journal's lines make together.

    Raises:
        InputError: the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return JournalStorage(journal)  # type: ignore[arg-type]


def asked_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what was noted when the trial was asked: experiment, settings, config, digest; perhaps duplicate_of."""
    asked: dict[str, Any] = trial.user_attrs["asked"]
    return asked


def what_is_broken(metrics: Mapping[str, float]) -> str:
    """Return what is wrong with a measurement, or nothing."""
    if OBJECTIVE not in metrics:
        return f"{OBJECTIVE} was not measured"
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    return f"{' and '.join(broken)} became NaN or infinite" if broken else ""


def record_of(trial: FrozenTrial, journal: Journal) -> TrialRecord:
    """Return the trial as plain values; ``journal`` is where it was read from."""
    asked, outcome = asked_of(trial), trial.user_attrs.get("outcome", {})
    last, history = trial.last_step, journal.history(trial.number)  # one study, so a trial's number is its id
    micro_batch = trial.user_attrs.get("retry", {}).get("micro_batch")
    config = {**asked["config"], "micro_batch": micro_batch} if micro_batch else asked["config"]
    seen = dict(history[-1].metrics) if history and not outcome else {}
    return TrialRecord(
        number=trial.number,
        experiment=asked["experiment"],
        settings=asked["settings"],
        config=config,
        status=next(status for status, state in STATES.items() if state is trial.state),
        metrics=outcome.get("metrics", seen),
        epochs=outcome.get("epochs", last or 0),
        seconds=outcome.get("seconds", 0.0),
        reason=outcome.get("reason", ""),
        duplicate_of=asked.get("duplicate_of"),
        reused=outcome.get("reused", False),
        model=outcome.get("model", ""),
        predictions=outcome.get("predictions", ""),
        siblings=tuple(outcome.get("siblings", ())),
        sibling_of=asked.get("sibling_of"),
        confirms=asked.get("confirms"),
        failure=outcome.get("failure", ""),
        late_stages=outcome.get("stages", {}),
        began=trial.datetime_start.timestamp() if trial.datetime_start else 0.0,
        refused="refused" in asked,
        precision=outcome.get("precision", ""),
        history=history,
    )
