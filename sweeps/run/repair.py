"""MLflow brought in line with a sweep that nothing runs: its records and its result, written once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from carcls.data.dataset import Dataset
from carcls.errors import InputError
from sweeps.lock import locked
from sweeps.results.result import read_result
from sweeps.run.winner import metrics_of
from sweeps.spec.sweep_file import has_begun, read_file
from sweeps.study.records import read_history
from sweeps.tracking.mirror import mirror_of
from sweeps.tracking.registry import find_registered
from sweeps.tracking.store import open_tracking


@dataclass(frozen=True, slots=True)
class Repaired:
    """A sweep as MLflow has it now.

    Attributes:
        sweep: its name.
        trials: that have a run.
        epochs: that their runs have.
        written: whether MLflow took all of it.
        version: of the winner in the registry; empty where there is none.
        lost: whether the result names a version that the registry does not have any more.
    """

    sweep: str
    trials: int
    epochs: int
    written: bool
    version: str
    lost: bool


def repair(folder: Path, tracking_uri: str | None, tell: Callable[[str], None]) -> Repaired:
    """Bring MLflow in line with the sweep in ``folder``: one parent, one run a trial, every epoch once, one version.

    Args:
        folder: of a sweep that nothing runs.
        tracking_uri: as it was given for the sweep; None is the database beside it.
        tell: gets what could not be written.

    Raises:
        InputError: something runs the sweep, or it has not begun.
        TrackingError: MLflow cannot be used.
    """
    if not has_begun(folder):
        raise InputError(f"NAME must be of a sweep that has begun, got {folder.name!r}: it has no trials yet.")
    with locked(folder):
        (spec,) = read_file(folder).read_specs()
        records = read_history(folder).records
        result = read_result(folder)
        best = result.winner if result else None
        data = Dataset.load(folder / "dataset.json").summary
        tracking = open_tracking(tracking_uri, folder.parent)
        mirror = mirror_of(spec, folder, tracking, data, tell)
        mirror.bring_in_line(records, winner=best)
        if result is not None:
            board = folder / "leaderboard.json"
            shown = board if board.is_file() else None
            mirror.summarise(records, best=best, metrics=metrics_of(result), leaderboard=shown)
        whole = result is not None and not result.interrupted
        written = mirror.close(("complete" if best is not None else "failed") if whole else "interrupted")
        found = None
        if best is not None and result is not None and result.registered is not None:
            found = find_registered(
                tracking, family=spec.family, sweep_id=read_file(folder).id, number=best, refit=spec.refit
            )
    with_runs = [record for record in records if record.sibling_of is None or record.number == best]
    return Repaired(
        sweep=folder.name,
        trials=len(with_runs),
        epochs=sum(len(record.history) for record in with_runs),
        written=written,
        version=str(found) if found else "",
        lost=found is None and result is not None and result.registered is not None,
    )
