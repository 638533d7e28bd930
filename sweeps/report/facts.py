"""What a sweep has left on disk, read once: all that its report is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from carcls.data.dataset import Dataset
from carcls.stages import StageStore
from sweeps.lock import holder_of
from sweeps.results.leaderboard import Leaderboard
from sweeps.results.result import SweepResult, read_result
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import has_begun, read_spec
from sweeps.study.records import read_history


@dataclass(frozen=True, slots=True)
class Facts:
    """One sweep, running or not.

    Attributes:
        folder: of the sweep, absolute; its name is the sweep's.
        spec: that it was left with.
        board: the trials as its journal has them now, in their order; they know their history and their stages.
        result: what it left when it ended last; None before.
        dataset: what it trains, validates and tests on; None before its images were read.
        stages: the store that it shares with the other sweeps of its ``--out``.
        edits: of its spec since it was begun, as ``History.edits``.
    """

    folder: Path
    spec: SweepSpec
    board: Leaderboard
    result: SweepResult | None
    dataset: Dataset | None
    stages: StageStore
    edits: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.folder.name

    @property
    def out(self) -> Path:
        """The folder of all runs."""
        return self.folder.parent

    @property
    def ended(self) -> SweepResult | None:
        """Its result, where that knows all that the journal does and nothing was left to do."""
        return self.result if self.result and self.result.has_all(self.board.trials) else None

    @property
    def state(self) -> Literal["finished", "running", "unfinished"]:
        """Whether it is done, somebody runs it, or neither."""
        if self.ended:
            return "finished"
        return "unfinished" if holder_of(self.folder) is None else "running"


def read_facts(folder: Path) -> Facts:
    """Read what the sweep in ``folder`` has left so far; it may run meanwhile.

    Raises:
        InputError: one of its files is damaged.
    """
    folder = folder.absolute()
    spec, history, result = read_spec(folder), read_history(folder), read_result(folder)
    dataset = Dataset.load(folder / "dataset.json") if has_begun(folder) else None
    images = dataset.counts["validation"] if dataset else 0
    base, by_seeds = spec.trial_config({}).model_dump(), spec.confirm is not None
    board = Leaderboard(tuple(history.records), base, images, spec.goals, by_seeds)
    return Facts(folder, spec, board, result, dataset, StageStore(folder.parent / "stages"), history.edits)
