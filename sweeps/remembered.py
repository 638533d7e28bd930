"""What a command leaves beside its results, so that ``carsweep resume NAME`` needs no other word.

``OUT/NAME/command.json`` says what was run and where it is tracked. A sweep's own spec is in its ``spec.yaml``; a job
of several sweeps keeps all their specs here, since not each may have begun when it is interrupted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from carcls.errors import InputError, SpecError, mask_secrets, nearest
from carcls.stages import write_json
from sweeps.spec import SweepSpec
from sweeps.spec_families import applies_to, settings_for
from sweeps.spec_loading import edit_spec

Kind = Literal["sweep", "all", "reproduce"]
COMMAND = "command.json"
SPEC = "spec.yaml"
# Scores on other images, or of another family, cannot be compared with those there are.
_LASTING = ("family", "name", "seed", "data")
# Whether the same images lie there is asked when they are read.
_MAY_MOVE = "data.path"
_BY_HAND = "{} by hand: trials from now on have its settings, those there are keep theirs"


@dataclass(frozen=True, slots=True)
class Command:
    """A command that can be gone on with.

    Attributes:
        kind: ``sweep``, or the job ``all`` or ``reproduce``.
        name: of the sweep or the job.
        specs: of its sweeps, in their order.
        tracking_uri: as it was given.
        changes: of specs since trials were asked last, made in their files by hand, in words.
    """

    kind: Kind
    name: str
    specs: tuple[SweepSpec, ...]
    tracking_uri: str | None
    changes: tuple[str, ...] = ()


def remember(folder: Path, kind: Kind, tracking_uri: str | None, specs: Sequence[SweepSpec] = ()) -> None:
    """Write down what runs in ``folder``, which is made when missing; a URI that holds a secret is not written."""
    hidden = tracking_uri is not None and _holds_a_secret(tracking_uri)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / COMMAND,
        {
            "kind": kind,
            "tracking_uri": None if hidden else tracking_uri,
            "tracking_uri_is_secret": hidden,
            "specs": [spec.to_yaml() for spec in specs],
        },
    )


def _holds_a_secret(tracking_uri: str) -> bool:
    return mask_secrets(tracking_uri) != tracking_uri


def names_in(out: Path) -> list[str]:
    """Return the sweeps and jobs in ``out`` by name."""
    if not out.is_dir():
        return []
    return sorted(entry.name for entry in out.iterdir() if is_known(entry))


def is_known(folder: Path) -> bool:
    """Tell whether the folder is of a sweep or a job."""
    return (folder / SPEC).is_file() or (folder / COMMAND).is_file()


def has_begun(folder: Path) -> bool:
    """Tell whether the sweep in the folder has read its images; before, its name may still take another spec."""
    return (folder / "dataset.json").is_file()


def forget(folder: Path) -> None:
    """Take back what ``remember`` and a spec have said of a sweep that has not begun."""
    for name in (SPEC, COMMAND):
        (folder / name).unlink(missing_ok=True)


def require_known(out: Path, name: str) -> Path:
    """Return the folder of a sweep or a job.

    Raises:
        InputError: there is none of that name.
    """
    folder = out / name
    if name and is_known(folder):
        return folder
    known = nearest(name, names_in(out)) if names_in(out) else f" There is none in {out}: give --out."
    raise InputError(f"NAME must be of a sweep in {out}, got {name!r}.{known}")


def recall(out: Path, name: str, tracking_uri: str | None = None) -> Command:
    """Return what was run under a name; ``tracking_uri`` takes the place of the one that was given then.

    Raises:
        InputError: there is nothing of that name, or its tracking server's address was too secret to be kept.
    """
    folder = require_known(out, name)
    said = read_command(folder)
    if said.get("tracking_uri_is_secret") and tracking_uri is None:
        raise InputError(
            f"--tracking-uri must be given again for {name!r}, got none: the one it was run with holds a password, "
            "which is not written down."
        )
    kind: Kind = said["kind"] if said.get("kind") in get_args(Kind) else "sweep"
    uri = tracking_uri or said.get("tracking_uri")
    if kind != "sweep":
        specs = tuple(SweepSpec.from_yaml(text) for text in said.get("specs", []))
        return Command(kind, name, specs, uri, tuple(_changes_of_job(folder, specs)))
    spec = read_spec(folder)
    by_hand = (_BY_HAND.format(SPEC),) if _is_changed_by_hand(spec, folder / SPEC, folder) else ()
    return Command(kind, name, (spec,), uri, by_hand)


def _changes_of_job(job: Path, specs: Sequence[SweepSpec]) -> Iterator[str]:
    """Yield what was changed in the job's file by hand.

    Raises:
        InputError: a spec of one of its sweeps was, which the job does not read.
    """
    for spec in specs:
        folder = job.parent / str(spec.name)
        if not (folder / SPEC).is_file():
            continue
        own = read_spec(folder)
        jobs = spec.model_copy(update={"starts": own.starts})  # found when the sweep began
        if own.digest != jobs.digest and _is_changed_by_hand(own, folder / SPEC, folder):
            raise InputError(
                f"{folder / SPEC} must be as carsweep wrote it, since {job / COMMAND} has the settings of "
                f"{job.name!r}, got other ones. Put it back; carsweep resume {job.name} --set … changes a job."
            )
        if _is_changed_by_hand(jobs, job / COMMAND, folder):
            yield f"{spec.family}: {_BY_HAND.format(COMMAND)}"


def _is_changed_by_hand(spec: SweepSpec, file: Path, folder: Path) -> bool:
    """Tell whether the sweep in ``folder`` asked its trials by another spec than ``file`` now says.

    Raises:
        InputError: it says what would make scores incomparable.
    """
    from sweeps.study_history import read_history

    if spec.name != folder.name:
        raise InputError(
            f"name in {file} must be that of the folder, {folder.name!r}, got {spec.name!r}. Put the name back, or "
            "give the folder that name."
        )
    history = read_history(folder)
    searched = [record.config for record in history.records if record.confirms is None]
    for name in ("family", "seed"):
        if searched and getattr(spec, name) != searched[0][name]:
            raise InputError(
                f"{name} in {file} must stay what the sweep was begun with, {searched[0][name]!r}, for its scores to "
                f"be comparable, got {getattr(spec, name)!r}. Put it back; or begin another sweep with carsweep run."
            )
    return history.spec not in ("", spec.digest)


def read_spec(folder: Path) -> SweepSpec:
    """Return the spec that a sweep was left with.

    Raises:
        InputError: its file cannot be read, or is damaged.
    """
    path = folder / SPEC
    try:
        return SweepSpec.from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SpecError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{SPEC} must be as carsweep wrote it, got a damaged one at {path} ({said}). Put a copy of it back: the "
            f"sweep's own run in MLflow has one among its artifacts."
        ) from None


def read_command(folder: Path) -> dict[str, Any]:
    """Return what a sweep or a job was run with; empty for one that an older carsweep began.

    Raises:
        InputError: the file is damaged.
    """
    said: Any
    try:
        said = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        said = None
    specs = said.setdefault("specs", []) if isinstance(said, dict) else None
    if not isinstance(specs, list) or not all(isinstance(text, str) for text in specs):
        raise InputError(f"{COMMAND} must be as carsweep wrote it, got {str(folder / COMMAND)!r}. Remove that file.")
    return dict(said)


def extended(
    command: Command, *, trials: str | None, hours: str | None, sets: Sequence[str], resources: Mapping[str, Any]
) -> tuple[Command, list[str]]:
    """Return the command with more to do or other settings, and the changes in words.

    Args:
        command: to go on with.
        trials: a number, or ``+N`` for so many more; a job of all families divides what is added among them.
        hours: a number, or ``+N``; hours count from the moment at which a sweep goes on, so both say the same.
        sets: ``KEY=VALUE`` texts; ``space.`` and ``search.`` address the search space.
        resources: ``concurrency``, ``cpus_per_trial``, ``gpus_per_trial`` by name; None leaves one as it is.

    Raises:
        SpecError: all mistakes together.
    """
    if command.kind == "reproduce" and (trials or sets):
        raise SpecError(["reproduce: has the documented trials with their settings; run a sweep to try others."])
    overrides: dict[str, Any] = {name: value for name, value in resources.items() if value is not None}
    if hours is not None:
        overrides["hours"] = _number("--hours", hours, float, 0.0)
    specs: list[SweepSpec] = []
    changes = list(command.changes)
    for place, spec in enumerate(command.specs):
        own = dict(overrides)
        if trials is not None:
            own["trials"] = _trials(spec, trials, place, len(command.specs))
        own_sets = sets if command.kind == "sweep" else settings_for(spec.family, sets)
        changed = edit_spec(spec, own_sets, {name: v for name, v in own.items() if applies_to(spec.family, name)})
        own_changes = _changes(spec, changed)
        _check_lasting(own_changes)
        changes += own_changes if command.kind == "sweep" else [f"{spec.family}: {text}" for text in own_changes]
        specs.append(changed)
        _require_data(changed, command)
    return replace(command, specs=tuple(specs)), changes


def _require_data(spec: SweepSpec, command: Command) -> None:
    """Check that the images are where they were, or where they are said to be."""
    path = spec.data.path
    if path is not None and not Path(path).expanduser().exists():
        say = "" if command.kind == "reproduce" else f"say carsweep resume {command.name} --set data.path=NEW, or "
        raise InputError(
            f"data.path must be the folder of the images that {command.name!r} was begun with, got {path!r}, which "
            f"does not exist. If they were moved to NEW, {say}leave a link there (ln -s NEW {shlex.quote(path)})."
        )


def _trials(spec: SweepSpec, text: str, place: int, families: int) -> int:
    number: int = _number("--trials", text, int, spec.trials if families == 1 else 0)
    if families == 1:
        return number
    if not text.strip().startswith("+"):
        raise SpecError([f"--trials: must be +N for a job of several sweeps, which shares N among them, got {text!r}."])
    return spec.trials + number // families + (place < number % families)


def _number(option: str, text: str, kind: type[int] | type[float], base: float) -> Any:
    try:
        value = kind(text.strip().removeprefix("+"))
    except ValueError:
        value = -1
    if not 0 < value < float("inf"):
        raise SpecError([f"{option}: must be a number above 0, or + and a number to add, got {text!r}."])
    return value + kind(base) if text.strip().startswith("+") else value


def _check_lasting(changes: Sequence[str]) -> None:
    mistakes = [
        f"{change.split()[0]}: must stay what the sweep was begun with, for its scores to be comparable, got a change "
        f"({change}). Begin another sweep with carsweep run."
        for change in changes
        if change.split()[0].partition(".")[0] in _LASTING and change.split()[0] != _MAY_MOVE
    ]
    if mistakes:
        raise SpecError(mistakes)


def _changes(before: SweepSpec, after: SweepSpec) -> list[str]:
    """Return what differs, in words.

    >>> spec = SweepSpec(family="transfer", trials=4)
    >>> _changes(spec, spec.model_copy(update={"trials": 6}))
    ['trials 4 -> 6']
    """
    texts = []
    for name in SweepSpec.model_fields:
        old, new = (_plain(getattr(spec, name)) for spec in (before, after))
        if isinstance(old, dict) and isinstance(new, dict):
            keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
            texts += [f"{name}.{key} {_said(old.get(key))} -> {_said(new.get(key))}" for key in keys]
        elif old != new:
            texts.append(f"{name} {_said(old)} -> {_said(new)}")
    return texts


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item.plain() if hasattr(item, "plain") else item for key, item in value.items()}
    return value.model_dump() if hasattr(value, "model_dump") else value


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
