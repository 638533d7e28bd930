"""The one file that says what a sweep or a job is: ``OUT/NAME/sweep.json``, or ``job.json`` of several sweeps together.

It holds what was asked (the whole spec, with its data), where it is tracked (never a password), and the id by which
MLflow knows the sweep. What was changed since is in the study's journal, beside the trials that it parts.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carcls.errors import InputError, SpecError, mask_secrets
from carcls.stages import write_json
from sweeps.spec.mistakes import sentences
from sweeps.spec.spec import SweepSpec
from sweeps.spec.yaml_text import read_tree

Kind = Literal["sweep", "all", "reproduce"]
SWEEP, JOB = "sweep.json", "job.json"
# What versions before this file wrote in its place: the command, a sweep's own spec, and its id. A spec.yaml is also
# among the artifacts of the sweep's run in MLflow; its first line has the id.
_COMMAND, _SPEC, _ID = "command.json", "spec.yaml", "sweep_id"
_ID_LINE = re.compile(r"\A# carsweep\.sweep_id: (.*)")


class SweepFile(BaseModel):
    """What the file says.

    Attributes:
        path: of the file that has the specs.
        kind: a sweep, or the job ``all`` or ``reproduce``.
        id: by which MLflow knows the sweep or the job, whatever others of its name are there.
        tracking_uri: as it was given; None is the database beside the sweeps.
        is_secret: whether the tracking server's address held a password, and was not written down.
        specs: of its sweeps in their order, as plain values; a sweep has one.
        stages: names of the cached stages that were used to read the sweep's images.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    path: Annotated[Path, Field(exclude=True)]
    kind: Kind = "sweep"
    id: str = ""
    tracking_uri: str | None = None
    is_secret: Annotated[bool, Field(alias="tracking_uri_is_secret")] = False
    specs: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    stages: tuple[str, ...] = ()

    def read_specs(self) -> tuple[SweepSpec, ...]:
        """Return the specs.

        Raises:
            InputError: one has a mistake.
        """
        try:
            return tuple(SweepSpec.from_tree(tree) for tree in self.specs)
        except SpecError as error:
            raise _damaged(self.path, error) from None


def write_file(
    folder: Path, kind: Kind, tracking_uri: str | None, specs: Sequence[SweepSpec], stages: Iterable[str] = ()
) -> None:
    """Write down what runs in ``folder``, which is made when missing; id and stages that it had are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    before = read_file(folder) if is_sweep(folder) else None
    known, used = (before.id, before.stages) if before else ("", ())
    is_secret = tracking_uri is not None and mask_secrets(tracking_uri) != tracking_uri
    is_beside = tracking_uri == f"sqlite:///{folder.absolute().parent / 'mlflow.db'}"  # it may move with its sweeps
    file = SweepFile(
        path=folder / (SWEEP if kind == "sweep" else JOB),
        kind=kind,
        id=known or f"{folder.name}-{uuid.uuid4().hex[:12]}",
        tracking_uri=None if is_secret or is_beside else tracking_uri,
        is_secret=is_secret,
        specs=tuple(spec.to_tree() for spec in specs),
        stages=tuple(sorted({*used, *stages})),
    )
    write_json(file.path, file.model_dump(by_alias=True))
    for name in (_COMMAND, _SPEC, _ID):
        (folder / name).unlink(missing_ok=True)


def read_file(folder: Path) -> SweepFile:
    """Return what runs in ``folder``, as this version or one before has written it.

    Raises:
        InputError: the file cannot be read, or is damaged.
    """
    path = next((folder / name for name in (SWEEP, JOB, _COMMAND) if (folder / name).is_file()), folder / _SPEC)
    said: Any = {}
    try:
        if path.name != _SPEC:
            said = json.loads(path.read_text(encoding="utf-8"))
        if path.name == _COMMAND and said.get("kind", "sweep") != "sweep":
            said["specs"] = [read_tree(text, _COMMAND) for text in said["specs"]]
        elif path.name in (_COMMAND, _SPEC):
            path = folder / _SPEC
            text, known = path.read_text(encoding="utf-8"), folder / _ID
            name = known.read_text(encoding="utf-8") if known.is_file() else "".join(_ID_LINE.findall(text)[:1])
            said |= {"id": name.strip(), "specs": [read_tree(text, _SPEC)]}
        return SweepFile(**{**said, "path": path})
    except (OSError, ValueError, TypeError, AttributeError, LookupError, SpecError) as error:
        raise _damaged(path, error) from None


def text_with_id(spec: SweepSpec, sweep: str) -> str:
    """Return a spec as YAML with the sweep's id in a comment, so that whoever puts it back keeps the sweep's runs."""
    return f"# carsweep.sweep_id: {sweep}\n{spec.to_yaml()}"


def _damaged(path: Path, error: Exception) -> InputError:
    first = next(sentences(error, SweepFile)) if isinstance(error, ValidationError) else str(error)
    said = " ".join(first.split())[:200] or type(error).__name__
    copy = "the sweep's own run in MLflow has one among its artifacts."
    remedy = {
        _COMMAND: "Remove that file.",
        _SPEC: f"Put a copy of it back: {copy}",
        SWEEP: f"Mend it, or put {_SPEC} in its place: {copy}",
    }.get(path.name, "Mend it, or remove it and go on with its sweeps one by one.")
    return InputError(f"{path.name} must be as carsweep wrote it, got a damaged one at {path} ({said}). {remedy}")


def read_spec(folder: Path) -> SweepSpec:
    """Return the spec that a sweep was left with; errors as ``read_file`` and ``read_specs``."""
    return read_file(folder).read_specs()[0]


def job_of(folder: Path, spec: SweepSpec) -> str:
    """Return the id of the job that the sweep in ``folder`` is of; empty where it is of none."""
    job = folder.with_name(folder.name.removesuffix(f"-{spec.family}"))
    return read_file(job).id if (job / JOB).is_file() else ""


def is_sweep(folder: Path) -> bool:
    """Tell whether the folder is of a sweep; a job's is not."""
    return (folder / SWEEP).is_file() or (folder / _SPEC).is_file()


def is_known(folder: Path) -> bool:
    """Tell whether the folder is of a sweep or a job; what an older version had hardly begun is neither."""
    if is_sweep(folder) or (folder / JOB).is_file():
        return True
    try:
        return bool(json.loads((folder / _COMMAND).read_text(encoding="utf-8")).get("kind", "sweep") != "sweep")
    except OSError:
        return False
    except (ValueError, AttributeError):
        return True  # reading it says what is wrong


def require_kind(folder: Path, kind: Kind) -> None:
    """Check that what runs in the folder, if anything does, is of a kind.

    Raises:
        InputError: its name belongs to something else.
    """
    there = read_file(folder).kind if is_known(folder) else kind
    if there != kind:
        what = "a sweep" if there == "sweep" else f"a job of {there}"
        raise InputError(f"--name must be new, got {folder.name!r}, which is {what}. Give another --name.")


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
