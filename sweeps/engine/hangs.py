"""Which of the running trials hang: what is silent for too long goes on in another process from its last epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from carcls.config import TrialConfig
from carcls.unfreezing import unfrozen_stages
from sweeps.engine.resources import Machine, Share, rates_of
from sweeps.engine.worker import last_reported
from sweeps.text import rough_duration

# A trial hangs that says nothing for TIMES what an epoch takes, but for no less than least_seconds(). Before an epoch
# of the kind was seen, and once it has reported its last, for no less than UNKNOWN times that: an hour.
TIMES = 10
UNKNOWN = 12
# Of the time between two looks no more than this counts: the driver was stopped, or the whole machine was.
_LOOK_SECONDS = 1.0

Comes = Literal["frozen", "unfrozen", "end"]


def expected_seconds(share: Share, images: int, config: TrialConfig, is_unfrozen: bool) -> float:
    """Return how long an epoch should take, the backbone being unfrozen, or frozen with features that are not known.

    As rough as a plan, for a processor without matrix units: it is there to excuse what is slow.
    """
    rates = rates_of(config, Machine(1, int(share.gpus > 0), amx=False))
    return images / ((rates.train if is_unfrozen else rates.infer) * (share.gpus or share.cpus))


@dataclass(slots=True)
class _Wait:
    """A trial that runs: since when it is silent, what it reports next, and whether it repeats what others trained."""

    config: TrialConfig
    since: float
    comes: Comes
    repeats: bool = False

    @property
    def kind(self) -> tuple[Any, ...]:
        """Epochs of one kind take about as long."""
        config = self.config
        return (self.comes, config.family, config.backbone, config.image_size, config.batch_size, config.micro_batch)


class Patience:
    """Tells which of the running trials hang. What it knows of epochs are those that it has seen.

    Args:
        expected: seconds of a trial's epoch, its backbone being unfrozen or not; no trial hangs before ten times that.
        least: seconds that every trial may be silent for.
    """

    def __init__(self, expected: Callable[[TrialConfig, bool], float], least: float) -> None:
        self._expected, self._least = expected, least
        self._waits: dict[int, _Wait] = {}
        self._longest: dict[tuple[Any, ...], float] = {}
        self._now = self._looked = 0.0

    def begin(self, number: int, config: TrialConfig) -> None:
        """A process takes up a trial."""
        self._waits[number] = _Wait(config, self._now, _comes_after(config, 0))

    def on_report(self, number: int, epoch: int = 0, *, trained: bool = False) -> None:
        """The trial gives a sign of life: an epoch, perhaps one that was trained just now, or another (0)."""
        wait = self._waits.get(number)
        if wait is None:
            return
        if trained:
            self._longest[wait.kind] = max(self._longest.get(wait.kind, 0.0), self._now - wait.since)
        wait.since = self._now
        if epoch:
            wait.comes, wait.repeats = _comes_after(wait.config, epoch), not trained

    def end(self, number: int) -> None:
        """The process does no more for the trial."""
        self._waits.pop(number, None)

    def look(self, passed: float) -> dict[int, str]:
        """Let so many seconds pass; return what hangs, each once, with what was observed."""
        self._now += min(passed, _LOOK_SECONDS)
        if self._now - self._looked < min(_LOOK_SECONDS, self._least):
            return {}
        self._looked = self._now
        hangs = {number: said for number, wait in self._waits.items() if (said := self._observe(wait))}
        for number in hangs:
            self._waits.pop(number)
        return hangs

    def _observe(self, wait: _Wait) -> str:
        """Return in one sentence that the trial hangs; nothing when it may be silent for longer."""
        silent = self._now - wait.since
        seen = None if wait.comes == "end" or wait.repeats else self._longest.get(wait.kind)
        least = UNKNOWN * self._least if seen is None else self._least
        if silent < least:
            return ""
        usual = max(seen or 0.0, self._expected(wait.config, wait.comes != "frozen"))
        if silent < TIMES * usual:
            return ""
        said = f"it reported nothing for {rough_duration(silent)}"
        if seen is None:
            return f"{said}, at its start or at its end."
        return f"{said}, where an epoch takes at most {rough_duration(max(1.0, usual))}."


def _comes_after(config: TrialConfig, epoch: int) -> Comes:
    """Return what a trial reports after ``epoch``: one with a frozen or an unfrozen backbone, or how it ends."""
    if epoch >= last_reported(config):
        return "end"
    return "unfrozen" if unfrozen_stages(config.training().unfreezing, epoch, config.epochs, 1) else "frozen"
