"""What a sweep or a job was begun with, and how that is changed: ``carsweep resume NAME`` needs no other word."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from carcls.errors import InputError, SpecError
from sweeps.run.command import Command, divided, with_model_of_its_own
from sweeps.run.status import require_known
from sweeps.spec.documented import settings_for
from sweeps.spec.fields import AUTO
from sweeps.spec.loading import edit_spec, with_neighbours_of
from sweeps.spec.mistakes import Mistakes
from sweeps.spec.settings import differences
from sweeps.spec.spec import SweepSpec
from sweeps.spec.sweep_file import SweepFile, is_sweep, read_file, read_spec
from sweeps.study.records import read_history
from sweeps.tracking.moving import has_runs_of

# Scores on other images, or of another family, cannot be compared with those there are.
_LASTING = ("family", "name", "seed", "data")
# Whether the same images lie there is asked when they are read.
_MAY_MOVE = ("data.path", "data.images")


def recall(out: Path, name: str, tracking_uri: str | None = None) -> Command:
    """Return what was run under a name; ``tracking_uri`` takes the place of the one that was given then.

    Raises:
        InputError: there is nothing of that name, or its tracking server's address was too secret to be kept.
    """
    file = read_file(require_known(out, name))
    if file.is_secret and tracking_uri is None:
        raise InputError(
            f"--tracking-uri must be given again for {name!r}, got none: the one it was run with holds a password, "
            "which is not written down."
        )
    specs = file.read_specs()
    changes = tuple(_changes_by_hand(file, specs, out))
    return Command(file.kind, name, specs, tracking_uri or _store_now(file, out), changes, out)


def _store_now(file: SweepFile, out: Path) -> str | None:
    """Return where a sweep is tracked; a database that was moved with the folder of runs is where that is now."""
    uri = file.tracking_uri or ""
    path = Path(uri.removeprefix("sqlite:///")).expanduser()
    here = out.absolute() / path.name
    is_moved = uri.startswith("sqlite:///") and not path.exists() and has_runs_of(here, file.id)
    return f"sqlite:///{here}" if is_moved else file.tracking_uri


def _changes_by_hand(file: SweepFile, specs: Sequence[SweepSpec], out: Path) -> Iterator[str]:
    """Yield for whose sweeps the file now says other settings than their trials were asked by: somebody edited it.

    Of a job this is the job's file, which its sweeps follow.

    Raises:
        InputError: the change would make scores incomparable.
    """
    for spec in specs:
        folder, family = file.path.parent, ""
        if file.kind != "sweep":
            folder, family = out / str(spec.name), f"{spec.family}: "
            if not is_sweep(folder):
                continue
            before = read_spec(folder)  # both were found when the sweep began
            spec = with_neighbours_of(before, spec).model_copy(update={"starts": before.starts})
        if spec.name != folder.name:
            raise InputError(
                f"name in {file.path} must be that of the folder, {folder.name!r}, got {spec.name!r}. Put the name "
                "back, or give the folder that name."
            )
        history = read_history(folder)
        for record in [record for record in history.records if record.confirms is None][:1]:
            for name in ("family", "seed"):
                if getattr(spec, name) != record.config[name]:
                    raise InputError(
                        f"{name} in {file.path} must stay what the sweep was begun with, {record.config[name]!r}, for "
                        f"its scores to be comparable, got {getattr(spec, name)!r}. Put it back; or begin another "
                        "sweep with carsweep run."
                    )
        if history.spec not in ("", spec.digest):
            yield f"{family}{file.path.name} by hand: trials from now on have its settings, those there are keep theirs"


def extended(
    command: Command, *, trials: str | None, hours: str | None, sets: Sequence[str], resources: Mapping[str, Any]
) -> Command:
    """Return the command with more to do or other settings, which its changes tell.

    Args:
        command: to go on with.
        trials: a number, or ``+N`` for so many more; a job of all families divides what is added among them.
        hours: such as ``1.5`` or ``90m``; they count from when a sweep goes on, so ``+90m`` says the same.
        sets: ``KEY=VALUE`` texts; ``search.`` addresses the search space.
        resources: ``concurrency``, ``gpus_per_trial``, ``model_name``, … by name; None leaves one as it is.

    Raises:
        SpecError: all mistakes together.
    """
    if command.kind == "reproduce" and (trials or sets):
        raise SpecError(["reproduce: has the documented trials with their settings; run a sweep to try others."])
    overrides = {**resources, "hours": None if hours is None else hours.strip().removeprefix("+")}
    specs: list[SweepSpec] = []
    changes, mistakes = list(command.changes or ()), Mistakes()
    counts = [None for _ in command.specs] if trials is None else _trials(command.specs, trials)
    for spec, count in zip(command.specs, counts, strict=True):
        own_sets = sets if command.kind == "sweep" else settings_for(spec.family, sets)
        family = f"{spec.family}: " if command.is_job else ""
        with mistakes:
            edited = edit_spec(spec, own_sets, {**overrides, "trials": count})
            if command.is_job and edited.model_name != spec.model_name:
                edited = with_model_of_its_own(edited)
            specs.append(edited)
            changes += [f"{family}{name} {change}" for name, change in _changes(spec, specs[-1]).items()]
    mistakes.raise_all()
    for spec in specs:
        require_data(spec, command)
    if trials is not None:
        _require_more(specs[0], command)
    return replace(command, specs=tuple(specs), changes=tuple(changes))


def _require_more(spec: SweepSpec, command: Command) -> None:
    """Check that a sweep has not begun more trials than it is to have; a job's are always added to."""
    begun = read_history(command.out / str(spec.name)).counted
    if spec.trials < begun:
        raise InputError(
            f"--trials must be at least the {begun} that {command.name!r} has begun, got {spec.trials}. Use +N for N "
            f"more, leave it out to end those that were begun, or end it now: carsweep finish {command.name}."
        )


def require_data(spec: SweepSpec, command: Command) -> None:
    """Check that the images are where they were, or where they are said to be.

    Raises:
        InputError: they are not there.
    """
    for option, name in (("data", "path"), ("images", "images")):
        path = getattr(spec.data, name)
        if path is not None and not Path(path).expanduser().exists():
            say = "" if command.kind == "reproduce" else f"say carsweep resume {command.name} --{option} NEW, or "
            raise InputError(
                f"data.{name} must be where the images of {command.name!r} are, got {path!r}, which does not exist. If "
                f"they were moved to NEW, {say}leave a link there (ln -s NEW {shlex.quote(path)})."
            )


def _trials(specs: Sequence[SweepSpec], text: str) -> list[int]:
    """Return how many trials each sweep has in all."""
    if len(specs) == 1:
        return [_number(text, specs[0].trials)]
    number = _number(text, 0)
    if not text.strip().startswith("+"):
        raise SpecError([f"--trials: must be +N for a job of several sweeps, which shares N among them, got {text!r}."])
    return [spec.trials + more for spec, more in zip(specs, divided(number, len(specs)), strict=True)]


def _number(text: str, base: int) -> int:
    try:
        value = int(text.strip().removeprefix("+"))
    except ValueError:
        value = -1
    if value <= 0:
        raise SpecError([f"--trials: must be a number above 0, or + and a number to add, got {text!r}."])
    return value + base if text.strip().startswith("+") else value


def _changes(before: SweepSpec, after: SweepSpec) -> dict[str, str]:
    """Return what differs: the path of a setting -> old and new value.

    Raises:
        SpecError: what differs would make scores incomparable.

    >>> spec = SweepSpec(family="transfer", trials=4)
    >>> _changes(spec, spec.model_copy(update={"trials": 6}))
    {'trials': '4 -> 6'}
    """
    found = differences(before, after)
    changes = {name: f"{_said(name, old)} -> {_said(name, new)}" for name, (old, new) in found.items()}
    mistakes = [
        f"{name}: must stay what the sweep was begun with, for its scores to be comparable, got a change ({name} "
        f"{change}). Begin another sweep with carsweep run."
        for name, change in changes.items()
        if name.partition(".")[0] in _LASTING and name not in _MAY_MOVE
    ]
    if mistakes:
        raise SpecError(mistakes)
    return changes


def _said(name: str, value: Any) -> str:
    nothing = AUTO if name == "gpus_per_trial" else "none"  # which would read as no GPU
    return nothing if value is None else str(value)
