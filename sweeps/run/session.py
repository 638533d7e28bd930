"""One run of a sweep: its spec, its folder, its data, and where its runs are tracked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.errors import InputError
from carcls.stages import StageStore
from sweeps.results.result import SweepResult, read_result

if TYPE_CHECKING:
    from carcls.data.dataset import Dataset
    from sweeps.engine.resources import Share
    from sweeps.engine.session import RaySession
    from sweeps.run.command import Command
    from sweeps.spec.spec import SweepSpec
    from sweeps.tracking.store import Tracking


@dataclass(frozen=True, slots=True)
class SweepSession:
    """One run of a sweep, which may take several.

    Attributes:
        spec: with its name, as it fits the images.
        command: that the sweep is run by.
        tracking: the MLflow store, checked and perhaps not opened yet.
        share: of a trial.
        stages: shared by all sweeps of the command's folder.
        dataset: read and packed.
        ray: runs the trials.
        started: when, on time.monotonic's clock.
    """

    spec: SweepSpec
    command: Command
    tracking: Tracking
    share: Share
    stages: StageStore
    dataset: Dataset
    ray: RaySession
    started: float

    @property
    def out(self) -> Path:
        """The folder of all sweeps, absolute."""
        return self.command.root

    @property
    def folder(self) -> Path:
        """The sweep's own folder."""
        return self.out / str(self.spec.name)

    @property
    def called(self) -> str:
        """What a person goes on with: the job's name, or the sweep's own."""
        return self.command.name

    @property
    def before(self) -> SweepResult | None:
        """What earlier sessions left; a damaged file is none."""
        try:
            return read_result(self.folder)
        except InputError:
            return None
