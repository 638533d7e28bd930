"""How all charts show trials: which have shapes of their own, how they are marked, and what is said of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from xml.etree.ElementTree import Element, SubElement

from sweeps.results.leaderboard import Leaderboard
from sweeps.spec.objectives import ACCURACY_ALONE, Quantity
from sweeps.trial import TrialRecord

# So many trials answer to the pointer; of the others all marks of a status are one shape, which keeps the page small.
MOST_ALONE = 200
TOP = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """What a chart draws of a trial.

    Attributes:
        trial: it.
        paths: data of paths by their CSS class.
        words: what it says.
    """

    trial: TrialRecord
    paths: Mapping[str, str]
    words: str


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
        """Numbers of the trials with shapes of their own."""
        networks = list(self.best_of)[:MOST_ALONE]
        return frozenset((*networks, *(self.best_of[network] for network in networks)))

    @cached_property
    def top(self) -> tuple[int, ...]:
        """Numbers of the best complete trials, one of each network."""
        return tuple(row.trial.number for row in self.board.networks[:TOP])

    def value(self, trial: TrialRecord) -> float | None:
        """Return by what a trial is judged, if it has been measured."""
        return trial.measured(self.quantity.metric)

    def kind(self, trial: TrialRecord) -> str:
        """Return the CSS classes of a trial's shapes."""
        numbers = (trial.number, self.best_of.get(trial.number))
        more = " winner" if self.winner in numbers else " top" if any(n in self.top for n in numbers) else ""
        return f"trial {trial.status}{more}"

    def mark_of(self, trial: TrialRecord) -> str:
        """Return which of the marks shows a trial."""
        return "winner" if self.kind(trial).endswith("winner") else trial.status

    def shapes(self, shapes: Iterable[Shape]) -> list[Element]:
        """Return the elements of shapes, those of the best trials last, which is on top.

        One names the trials that it stands for: its own and, where that trained a network, the best derived from it.
        """
        alone, rest = list[Element](), defaultdict[str, list[str]](list)
        for shape in shapes:
            trial = shape.trial
            if trial.number in self.alone:
                numbers = dict.fromkeys((trial.number, self.best_of.get(trial.number, trial.number)))
                said = {"class": self.kind(trial), "data-trial": " ".join(map(str, numbers))}
                alone.append(Element("g", said))
                SubElement(alone[-1], "title").text = shape.words
                for kind, path in shape.paths.items():
                    SubElement(alone[-1], "path", {"class": kind, "d": path})
            for kind, path in shape.paths.items() if trial.number not in self.alone else ():
                rest[f"trial {trial.status} rest {kind}"].append(path)
        merged = [Element("path", {"class": kind, "d": "".join(dict.fromkeys(paths))}) for kind, paths in rest.items()]
        return merged + alone[::-1]

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
