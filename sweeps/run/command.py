"""What is to be run, and where: one sweep, or a job of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import Kind


@dataclass(frozen=True, slots=True)
class Command:
    """A command that runs sweeps, or goes on with them.

    Attributes:
        kind: ``sweep``, or the job ``all`` or ``reproduce``.
        name: of the sweep or the job.
        specs: of its sweeps in their order, each with its name.
        tracking_uri: MLflow's, as it was given; None is a database under ``out``.
        changes: of the specs since trials were asked last, in words; None, where nothing goes on by ``resume``, allows
            no change of a search.
        out: folder of all sweeps, as it was given. On a cluster every machine must see it under this path.
        address: of a running Ray cluster; None runs the trials on this machine.
    """

    kind: Kind
    name: str
    specs: tuple[SweepSpec, ...]
    tracking_uri: str | None = None
    changes: tuple[str, ...] | None = None
    out: Path = Path("runs")
    address: str | None = None

    @property
    def is_job(self) -> bool:
        """Whether it runs several sweeps, or could."""
        return self.kind != "sweep"

    @property
    def root(self) -> Path:
        """The folder of all sweeps, absolute."""
        return self.out.expanduser().absolute()

    def with_absolute_data(self) -> Command:
        """Return the command with absolute paths of its data, which mean the same wherever it goes on."""
        return replace(self, specs=tuple(map(_with_absolute_data, self.specs)))


def _with_absolute_data(spec: SweepSpec) -> SweepSpec:
    if spec.data.path is None:
        return spec
    path = str(Path(spec.data.path).expanduser().absolute())
    return spec.model_copy(update={"data": spec.data.model_copy(update={"path": path})})
