"""The one file that says what a sweep or a job is: ``OUT/NAME/sweep.json``, or ``job.json`` of several sweeps together.

It holds what was asked (the whole spec, with its data), where it is tracked (never a password), and the id by which
MLflow knows the sweep. What was changed since is in the study's journal, beside the trials that it parts.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from carcls.errors import InputError, SpecError, mask_secrets
from carcls.stages import write_json
from sweeps.spec import SweepSpec
from sweeps.spec_text import read_tree

Kind = Literal["sweep", "all", "reproduce"]
SWEEP, JOB = "sweep.json", "job.json"
# What versions before this file wrote in its place: the command, a sweep's own spec, and its id.
_COMMAND, _SPEC, _ID = "command.json", "spec.yaml", "sweep_id"


@dataclass(frozen=True, slots=True)
class SweepFile:
    """What the file says.

    Attributes:
        path: of the file that has the specs.
        kind: a sweep, or the job ``all`` or ``reproduce``.
        specs: of its sweeps in their order, as plain values; a sweep has one.
        tracking_uri: as it was given; None is the database beside the sweeps.
        is_secret: whether the tracking server's address held a password, and was not written down.
        id: by which MLflow knows the sweep; a job has none, which is empty.
        stages: names of the cached stages that were used to read the sweep's images.
    """

    path: Path
    kind: Kind
    specs: tuple[Any, ...]
    tracking_uri: str | None = None
    is_secret: bool = False
    id: str = ""
    stages: tuple[str, ...] = ()

    def read_specs(self) -> tuple[SweepSpec, ...]:
        """Return the specs.

        Raises:
            InputError: one has a mistake.
        """
        try:
            return tuple(SweepSpec.from_tree(tree) for tree in self.specs)
        except (SpecError, AttributeError) as error:
            raise _damaged(self.path, error) from None


def write_file(
    folder: Path, kind: Kind, tracking_uri: str | None, specs: Sequence[SweepSpec], stages: Iterable[str] = ()
) -> None:
    """Write down what runs in ``folder``, which is made when missing; id and stages that it had are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    known = read_file(folder) if is_sweep(folder) else SweepFile(folder / SWEEP, kind, ())
    is_secret = tracking_uri is not None and mask_secrets(tracking_uri) != tracking_uri
    said = {
        "kind": kind,
        "id": (known.id or f"{folder.name}-{uuid.uuid4().hex[:12]}") if kind == "sweep" else "",
        "tracking_uri": None if is_secret else tracking_uri,
        "tracking_uri_is_secret": is_secret,
        "specs": [spec.to_tree() for spec in specs],
        "stages": sorted({*known.stages, *stages}),
    }
    write_json(folder / (SWEEP if kind == "sweep" else JOB), said)
    for name in (_COMMAND, _SPEC, _ID):
        (folder / name).unlink(missing_ok=True)


def read_file(folder: Path) -> SweepFile:
    """Return what runs in ``folder``.

    Raises:
        InputError: the file cannot be read, or is damaged.
    """
    path = next((folder / name for name in (SWEEP, JOB) if (folder / name).is_file()), None)
    if path is None:
        return _read_older(folder)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        kind: Kind = next(kind for kind in get_args(Kind) if kind == said["kind"])
        specs, uri, name = tuple(said["specs"]), said["tracking_uri"], str(said["id"])
        is_secret, stages = bool(said["tracking_uri_is_secret"]), tuple(said.get("stages", ()))
        return SweepFile(path, kind, specs, uri, is_secret, name, stages)
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise _damaged(path, error) from None


def _read_older(folder: Path) -> SweepFile:
    """Return what a version before this file has written; also where its owner put a spec back."""
    command, spec = folder / _COMMAND, folder / _SPEC
    try:
        said = json.loads(command.read_text(encoding="utf-8")) if command.is_file() else {}
        kind: Kind = next((kind for kind in get_args(Kind) if kind == said.get("kind")), "sweep")
        texts = said.get("specs", [])
        is_secret = bool(said.get("tracking_uri_is_secret"))
        if kind != "sweep":
            trees = tuple(read_tree(text, _COMMAND) for text in texts)
            return SweepFile(command, kind, trees, said.get("tracking_uri"), is_secret)
    except (ValueError, TypeError, AttributeError, SpecError):
        raise InputError(f"{_COMMAND} must be as carsweep wrote it, got {str(command)!r}. Remove that file.") from None
    try:
        trees = (read_tree(spec.read_text(encoding="utf-8"), _SPEC),)
    except (OSError, ValueError, SpecError) as error:
        raise _damaged(spec, error) from None
    name = (folder / _ID).read_text(encoding="utf-8").strip() if (folder / _ID).is_file() else ""
    return SweepFile(spec, kind, trees, said.get("tracking_uri"), is_secret, name)


def _damaged(path: Path, error: Exception) -> InputError:
    said = " ".join(str(error).split())[:200] or type(error).__name__
    remedy = {
        _SPEC: "Put a copy of it back: the sweep's own run in MLflow has one among its artifacts.",
        SWEEP: f"Mend it, or put {_SPEC} in its place: the sweep's own run in MLflow has one among its artifacts.",
    }.get(path.name, "Mend it, or remove it and go on with its sweeps one by one.")
    return InputError(f"{path.name} must be as carsweep wrote it, got a damaged one at {path} ({said}). {remedy}")


def read_spec(folder: Path) -> SweepSpec:
    """Return the spec that a sweep was left with.

    Raises:
        InputError: its file cannot be read, or is damaged.
    """
    return read_file(folder).read_specs()[0]


def sweep_id(folder: Path) -> str:
    """Return what MLflow knows the sweep by: two folders may hold sweeps of one name on one server."""
    return read_file(folder).id


def is_sweep(folder: Path) -> bool:
    """Tell whether the folder is of a sweep; a job's is not."""
    return (folder / SWEEP).is_file() or (folder / _SPEC).is_file()


def is_known(folder: Path) -> bool:
    """Tell whether the folder is of a sweep or a job."""
    return is_sweep(folder) or (folder / JOB).is_file() or (folder / _COMMAND).is_file()


def sweeps_of(out: Path) -> list[Path]:
    """Return the folders of all sweeps in ``out``, by name."""
    return sorted(entry for entry in out.iterdir() if is_sweep(entry)) if out.is_dir() else []


def has_begun(folder: Path) -> bool:
    """Tell whether the sweep in the folder has read its images; before, its name may still take another spec."""
    return (folder / "dataset.json").is_file()


def forget(folder: Path) -> None:
    """Take back what was written of a sweep that has not begun."""
    for name in (SWEEP, _COMMAND, _SPEC):
        (folder / name).unlink(missing_ok=True)
