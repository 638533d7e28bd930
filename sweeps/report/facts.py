"""What a sweep has left on disk, read once: all that its report is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carcls.data.dataset import Dataset
from carcls.stages import StageStore
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
    """

    folder: Path
    spec: SweepSpec
    board: Leaderboard
    result: SweepResult | None
    dataset: Dataset | None
    stages: StageStore

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.folder.name


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
    return Facts(folder, spec, board, result, dataset, StageStore(folder.parent / "stages"))
