"""One call of a sweep: its spec, its folder, its data, and where its runs are tracked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import InputError
from carcls.stages import StageStore
from sweeps.result import SweepResult, read_result

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.resources import Share
    from sweeps.spec import SweepSpec
    from sweeps.tracking_store import Tracking


@dataclass(frozen=True, slots=True)
class Sitting:
    """One call of a sweep that may take several.

    Attributes:
        spec: with its name.
        out: folder of all sweeps, absolute.
        tracking: the MLflow store, checked and perhaps not opened yet.
        share: of a trial.
        stages: shared by all sweeps of ``out``.
        dataset: read and packed.
        started: when, on time.monotonic's clock.
        address: of the Ray cluster that runs the trials; None for this machine.
        edits: what was changed in the spec of a sweep that goes on; None allows no change of its search.
        job: name of the job that the sweep is a part of; None when it is none's.
    """

    spec: SweepSpec
    out: Path
    tracking: Tracking
    share: Share
    stages: StageStore
    dataset: Dataset
    started: float
    address: str | None = None
    edits: Sequence[str] | None = None
    job: str | None = None

    @property
    def folder(self) -> Path:
        """The sweep's own folder."""
        return self.out / str(self.spec.name)

    @property
    def called(self) -> str:
        """What a person goes on with: the job's name, or the sweep's own."""
        return self.job or str(self.spec.name)

    @property
    def before(self) -> SweepResult | None:
        """What earlier sittings left; a damaged file is none."""
        try:
            return read_result(self.folder)
        except InputError:
            return None
