"""The winner beside those that it won against, on the validation images: is a difference shown at all?

After ``--confirm`` all fresh seeds of each side speak, and Holm's correction is made for the number of others. Without
it, one run stands beside the runner-up's; both were chosen by their scores on these very images, so that even a
difference that is shown is flattered. The test is that of carcls.evaluation.significance, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carcls.errors import InputError, TrialFailure
from carcls.evaluation.predictions import read_predictions
from carcls.evaluation.significance import compare_hits, holm
from sweeps.results.models import answers_on_disk
from sweeps.results.result import Compared

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from carcls.stages import StageStore
    from sweeps.results.result import SweepResult
    from sweeps.trial import TrialRecord


def compare_winner(data: Dataset, stages: StageStore, *, result: SweepResult) -> tuple[Compared, ...]:
    """Compare the winner with the other confirmed trials, or with the runner-up where nothing was confirmed.

    Computed in a trial's process (see sweeps.engine.task). Answers that are missing or of other images are left out.

    Args:
        data: what the trials were validated on.
        stages: where their answers are.
        result: with a winner, whose trials are the journal's own records.
    """
    numbers = {record.number: record for record in result.trials}
    sides = {number: _answers([numbers[run] for run in runs], data, stages) for number, runs in _sides(result).items()}
    return _compared(sides)


def _sides(result: SweepResult) -> dict[int, tuple[int, ...]]:
    """Return trial -> the runs that speak for it, the winner first."""
    if result.board.best_confirmed:
        return {one.number: one.runs for one in result.board.confirmed if one.runs}
    # Combinations of one network are no rivals: of each the best.
    return {row.trial.number: (row.trial.number,) for row in result.board.networks[:2]}


def _answers(runs: Sequence[TrialRecord], data: Dataset, stages: StageStore) -> NDArray[np.bool_] | None:
    """Return what the runs have right, bool [m, n], or None when it is not known of each."""
    try:
        read = [read_predictions(stages.root / answers_on_disk(stages, data, run)) for run in runs]
    except (InputError, TrialFailure, OSError):
        return None
    rows = data.splits.validation
    whole = all(np.array_equal(answers.rows, rows) for answers in read)
    return np.stack([answers.hits for answers in read]) if whole and len(rows) else None


def _compared(sides: Mapping[int, NDArray[np.bool_] | None]) -> tuple[Compared, ...]:
    """Compare the first with each other one."""
    winner, *others = sides.items()
    first = winner[1]
    if first is None:
        return ()
    found = [(number, compare_hits(first, other)) for number, other in others if other is not None]
    adjusted = holm([comparison.p_value for _, comparison in found])
    return tuple(
        Compared(number, comparison.difference, comparison.interval, p, comparison.shows(p))
        for (number, comparison), p in zip(found, adjusted, strict=True)
    )
