"""Which trials are confirmed: the best of the search, by the order of its leaderboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.config import TrialConfig
from sweeps.confirm import Repeat, parse_confirm, repeats_of
from sweeps.leaderboard import Leaderboard
from sweeps.sweep_file import is_sweep, read_spec

if TYPE_CHECKING:
    from sweeps.leaderboard import Row
    from sweeps.record import TrialRecord
    from sweeps.spec import SweepSpec


def repeats_wanted(spec: SweepSpec, records: Sequence[TrialRecord]) -> list[Repeat]:
    """Return the runs that confirm a search: the N best trials, with M fresh seeds each; best first.

    Of a trial and the combinations that it answered on its way the best is the candidate: they share one training, and
    one network under three names would be no choice.

    Args:
        spec: says how many.
        records: all trials, earlier confirming runs among them.
    """
    if spec.confirm is None:
        return []
    extent = parse_confirm(spec.confirm)
    configs = {record.number: TrialConfig.model_validate(dict(record.config)) for record in records}
    board = Leaderboard(tuple(record for record in records if record.confirms is None), goals=spec.goals)
    best = list(_distinct(board.rows, configs))[: extent.top]
    return [repeat for number in best for repeat in repeats_of(number, configs[number], spec.seed, extent.seeds)]


def _distinct(rows: Sequence[Row], configs: dict[int, TrialConfig]) -> Iterator[int]:
    """Yield the numbers of complete trials, best first, each training and each settings once."""
    seen: set[int | str] = set()
    for row in rows:
        number = row.trial.number
        parent = number if row.trial.sibling_of is None else row.trial.sibling_of
        digest = configs[number].digest
        if row.rank is not None and not {parent, digest} & seen:
            yield number
        if row.rank is not None:
            seen |= {parent, digest}


def keep_choice(spec: SweepSpec, folder: Path) -> SweepSpec:
    """Return the spec with the ``confirm`` and ``refit`` that the sweep in ``folder`` was left with, if it has others.

    A command that goes on and says nothing of them must not crown an unconfirmed winner, which would be read on test.
    """
    if not is_sweep(folder):
        return spec
    before = read_spec(folder)
    return spec.model_copy(update={"confirm": spec.confirm or before.confirm, "refit": spec.refit or before.refit})
