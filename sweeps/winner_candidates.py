"""Which trials are confirmed: the best of the search, by the order of its leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from carcls.config import TrialConfig
from sweeps.confirm import Repeat, parse_confirm, repeats_of
from sweeps.leaderboard import Leaderboard

if TYPE_CHECKING:
    from sweeps.record import TrialRecord
    from sweeps.spec import SweepSpec


def repeats_wanted(spec: SweepSpec, records: Sequence[TrialRecord]) -> list[Repeat]:
    """Return the runs that confirm a search: the N best trials, with M fresh seeds each; best first.

    Of a trial and the combinations that it answered on its way the best is the candidate: they share one training, and
    one network under three names would be no choice. So would be one settings under two numbers.

    Args:
        spec: says how many.
        records: all trials, earlier confirming runs among them.
    """
    if spec.confirm is None:
        return []
    extent = parse_confirm(spec.confirm)
    search = tuple(record for record in records if record.confirms is None)
    best: dict[str, tuple[int, TrialConfig]] = {}
    for row in Leaderboard(search, goals=spec.goals).networks:
        config = TrialConfig.model_validate(dict(row.trial.config))
        best.setdefault(config.digest, (row.trial.number, config))
    chosen = list(best.values())[: extent.top]
    return [repeat for number, config in chosen for repeat in repeats_of(number, config, spec.seed, extent.seeds)]
