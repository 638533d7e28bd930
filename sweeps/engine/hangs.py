"""Which of the running trials hang: what is silent for too long goes on in another process from its last epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from carcls.config import TrialConfig
from carcls.unfreezing import unfrozen_stages
from sweeps.engine.resources import Machine, Share, rates_of
from sweeps.engine.worker import last_reported
from sweeps.text import rough_duration

if TYPE_CHECKING:
    from sweeps.engine.recovery import Running

# A trial hangs that says nothing for TIMES what an epoch takes, but for no less than least_seconds(). Before an epoch
# of the kind was seen, and once it has reported its last, for no less than UNKNOWN times that: an hour.
TIMES = 10
UNKNOWN = 12
# Of the time between two looks no more than this counts: the driver was stopped, or the whole machine was.
_LOOK_SECONDS = 1.0


def expected_seconds(share: Share, images: int, config: TrialConfig, is_unfrozen: bool) -> float:
    """Return how long an epoch should take, the backbone being unfrozen, or frozen with features that are not known.

    As rough as a plan, for a processor without matrix units: it is there to excuse what is slow.
    """
    rates = rates_of(config, Machine(1, int(share.gpus > 0), amx=False))
    return images / ((rates.train if is_unfrozen else rates.infer) * (share.gpus or share.cpus))


class Patience:
    """Tells which of the running trials hang. What it knows of epochs are those that it has seen.

    Args:
        expected: seconds of a trial's epoch, its backbone being unfrozen or not; no trial hangs before ten times that.
        least: seconds that every trial may be silent for.
    """

    def __init__(self, expected: Callable[[TrialConfig, bool], float], least: float) -> None:
        self._expected, self._least = expected, least
        self._longest: dict[tuple[Any, ...], float] = {}  # epochs, by their kind
        self._now = self._looked = 0.0

    def begin(self, trial: Running) -> None:
        """A process takes up a trial."""
        trial.silent_since, trial.awaited, trial.repeats = self._now, _awaited_after(trial.config, 0), False

    def on_report(self, trial: Running, epoch: int = 0, *, trained: bool = False) -> None:
        """The trial gives a sign of life: an epoch, perhaps one that was trained just now, or another (0)."""
        if trial.silent_since is None:
            return
        if trained:
            kind = _kind_of(trial)
            self._longest[kind] = max(self._longest.get(kind, 0.0), self._now - trial.silent_since)
        trial.silent_since = self._now
        if epoch:
            trial.awaited, trial.repeats = _awaited_after(trial.config, epoch), not trained

    def look(self, passed: float, trials: Iterable[Running]) -> list[tuple[Running, str]]:
        """Let so many seconds pass; return what hangs of the trials, each once, with what was observed."""
        self._now += min(passed, _LOOK_SECONDS)
        if self._now - self._looked < min(_LOOK_SECONDS, self._least):
            return []
        self._looked = self._now
        hangs = [(trial, said) for trial in trials if (said := self._observe(trial))]
        for trial, _ in hangs:
            trial.silent_since = None
        return hangs

    def _observe(self, trial: Running) -> str:
        """Return in one sentence that the trial hangs; nothing when it may be silent for longer."""
        silent = 0.0 if trial.silent_since is None else self._now - trial.silent_since
        seen = None if trial.awaited == "end" or trial.repeats else self._longest.get(_kind_of(trial))
        if silent < (UNKNOWN * self._least if seen is None else self._least):
            return ""
        usual = max(seen or 0.0, self._expected(trial.config, trial.awaited != "frozen"))
        if silent < TIMES * usual:
            return ""
        said = f"it reported nothing for {rough_duration(silent)}"
        if seen is None:
            return f"{said}, at its start or at its end."
        return f"{said}, where an epoch takes at most {rough_duration(max(1.0, usual))}."


def _kind_of(trial: Running) -> tuple[Any, ...]:
    """Return what is alike in trials whose next epochs take about as long."""
    config = trial.config
    how = config.batch_size, config.micro_batch, config.processes
    return trial.awaited, config.family, config.backbone, config.image_size, *how


def _awaited_after(config: TrialConfig, epoch: int) -> Literal["frozen", "unfrozen", "end"]:
    """Return what a trial reports after ``epoch``: one with a frozen or an unfrozen backbone, or how it ends."""
    if epoch >= last_reported(config):
        return "end"
    return "unfrozen" if unfrozen_stages(config.training().unfreezing, epoch, config.epochs, 1) else "frozen"
