"""How all charts show trials: which answer to the pointer, how they are marked, and what is said of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sweeps.results.leaderboard import Leaderboard
from sweeps.spec.objectives import ACCURACY_ALONE, Quantity
from sweeps.trial import TrialRecord

# So many trials answer to the pointer; of the others all marks of a status are one shape, which keeps the page small.
MOST_ALONE = 200
TOP = 5


@dataclass(frozen=True)
class Cast:
    """The trials of a sweep as its charts show them; runs with fresh seeds are in none but the timeline."""

    board: Leaderboard

    @property
    def quantity(self) -> Quantity:
        """By what trials are judged."""
        return self.board.goals.first

    @cached_property
    def trials(self) -> list[TrialRecord]:
        """Those of the search, best first."""
        return [row.trial for row in self.board.rows]

    @cached_property
    def winner(self) -> int | None:
        """Number of the trial that wins; of a confirmed one that of the search."""
        best = self.board.best
        return None if best is None else best.number if best.confirms is None else best.confirms

    @cached_property
    def best_of(self) -> dict[int, int]:
        """The best trial of each network, by the number of the trial that trained it; the best network first."""
        found: dict[int, int] = {}
        for trial in self.trials:
            found.setdefault(trial.network, trial.number)
        return found

    @cached_property
    def alone(self) -> frozenset[int]:
        """Numbers of the trials with shapes of their own: the best networks come first, with their best trials."""
        confirming = [trial.number for trial in self.board.trials if trial.confirms is not None]
        of_networks = [number for pair in self.best_of.items() for number in pair]
        numbers = dict.fromkeys([*of_networks, *confirming, *(trial.number for trial in self.trials)])
        return frozenset(list(numbers)[:MOST_ALONE])

    @cached_property
    def top(self) -> frozenset[int]:
        """Numbers of the best complete trials, one of each network."""
        return frozenset(row.trial.number for row in self.board.networks[:TOP])

    def value(self, trial: TrialRecord) -> float | None:
        """Return by what a trial is judged, if it has been measured."""
        return trial.measured(self.quantity.metric)

    def look(self, trial: TrialRecord, *, of_network: bool = False) -> tuple[str, tuple[int, ...]]:
        """Return the CSS classes of a trial's shape, and the numbers it answers to; none where it is one of many.

        ``of_network``: the shape is of what the trial trained, and so of the best trial that was derived from it, too.
        """
        own = trial.number
        numbers = tuple(dict.fromkeys((own, self.best_of.get(own, own)))) if of_network else (own,)
        if own not in self.alone:
            return f"trial {trial.status} rest", ()
        more = " winner" if self.winner in numbers else " top" if not self.top.isdisjoint(numbers) else ""
        return f"trial {trial.status}{more}", numbers

    def mark_of(self, trial: TrialRecord, *, of_network: bool = False) -> str:
        """Return which of the marks shows a trial."""
        kind, _ = self.look(trial, of_network=of_network)
        return "winner" if kind.endswith("winner") else trial.status

    def left_out(self, numbers: Sequence[int], what: str) -> tuple[str, ...]:
        """Return a sentence on the trials that do not answer to the pointer, if any."""
        others = len(set(numbers) - self.alone)
        return (
            (f"{others:,} of {len(numbers):,} {what} are drawn, and do not answer to the pointer.",) if others else ()
        )


def judged_by_epoch(quantity: Quantity) -> Quantity:
    """Return what curves show: the quantity if it is measured after each epoch, else the accuracy."""
    return quantity if quantity.metric.startswith("val_") else ACCURACY_ALONE.first


def named(trial: TrialRecord, words: Mapping[str, str] | None = None) -> str:
    """Return how a trial is called, with what is said of it."""
    said = "".join(f", {name} {value}" for name, value in (words or {}).items())
    return f"trial {trial.number} ({trial.name}), {trial.status}{said}"
