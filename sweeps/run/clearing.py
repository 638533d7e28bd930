"""Making room: what is of no use to any sweep goes, and more where a disk budget asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from carcls.errors import InputError
from carcls.stages_disk import list_store, size_of, take_out
from sweeps.lock import holder_of
from sweeps.run.marking import Reason, choose, judge, read_marks
from sweeps.text import parse_size, size_text

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import TrialRecord

KEEP = 5
What = Literal[Reason, "ray"]
_SAID: dict[What, tuple[str, str]] = {
    "leftover": ("leftover of a process that died", "leftovers of processes that died"),
    "stopped": ("checkpoint of a trial that has ended", "checkpoints of trials that have ended"),
    "unclaimed": ("stage that no sweep refers to", "stages that no sweep refers to"),
    "ray": ("folder of Ray's of a sweep that does not run", "folders of Ray's of sweeps that do not run"),
    "model": ("model that is not among a sweep's best", "models that are not among a sweep's best"),
    "unused": ("stage not used for longest", "stages not used for longest"),
}


@dataclass(frozen=True, slots=True)
class Cleared:
    """What went, or would go, and what stays.

    Attributes:
        removed: why -> the bytes on disk of each folder that went.
        kept: those of the rest of the stages.
        disk: the budget in bytes, or None.
        dry_run: whether nothing was removed.
    """

    removed: Mapping[What, Sequence[int]]
    kept: Sequence[int]
    disk: int | None
    dry_run: bool

    @property
    def size(self) -> int:
        """Bytes of all that went."""
        return sum(map(sum, self.removed.values()))

    @property
    def is_too_much(self) -> bool:
        """Whether what stays takes more than the budget."""
        return self.disk is not None and sum(self.kept) > self.disk

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; sizes in bytes."""
        removed = {what: {"count": len(sizes), "bytes": sum(sizes)} for what, sizes in self.removed.items()}
        kept = {"count": len(self.kept), "bytes": sum(self.kept)}
        total = {"bytes": self.size, "kept": kept, "disk": self.disk}
        return {"dry_run": self.dry_run, "removed": removed, **total, "fits": not self.is_too_much}


def clear(
    out: Path, *, disk: int | None = None, keep: int = KEEP, useless_too: bool = True, dry_run: bool = False
) -> Cleared:
    """Remove stages under ``out/stages`` that nobody needs, and with ``disk`` so many others that the rest fits.

    Safe beside sweeps that run: what one of their trials may have open stays, and so does what they will go on with.

    Args:
        out: folder of all sweeps.
        disk: bytes for all stages together; None is no limit.
        keep: models to keep of each sweep besides those of documented experiments.
        useless_too: remove what is of no use although the budget would hold it, and the folders that Ray leaves.
        dry_run: remove nothing, tell what would be.

    Raises:
        InputError: a sweep cannot be read.
    """
    listing, marks = list_store(out / "stages"), read_marks(out, keep)
    chosen = choose([judge(stored, marks) for stored in listing], disk, useless_too=useless_too)
    removed = [one for one in chosen if take_out(one.stored, dry_run=dry_run)]
    sizes: dict[What, list[int]] = {what: [] for what in _SAID}
    for one in removed:
        sizes[one.reason].append(one.stored.size)
    if useless_too:
        sizes["ray"] = _clear_ray(out, dry_run)
    gone = {one.stored.path for one in removed}
    kept = [stored.size for stored in listing if stored.path not in gone]
    return Cleared({what: found for what, found in sizes.items() if found}, kept, disk, dry_run)


def _clear_ray(out: Path, dry_run: bool) -> list[int]:
    """Remove what Tune writes beside each trial: the journal has it all, and every session begins a new one."""
    folders = [path for path in out.glob("*/trials/tune") if holder_of(path.parent.parent) is None]
    sizes = [size_of(folder) for folder in folders]
    for folder in [] if dry_run else folders:
        shutil.rmtree(folder, ignore_errors=True)
    return sizes


def removed_text(cleared: Cleared) -> list[str]:
    """Return a phrase for each kind of things that went."""
    return [
        f"{len(sizes)} {_SAID[what][len(sizes) > 1]} ({size_text(sum(sizes))})"
        for what, sizes in cleared.removed.items()
    ]


class DiskKeeper:
    """Keeps the stages within a sweep's disk budget: looks when a trial has ended. An observer.

    Args:
        spec: of the sweep; without ``disk`` nothing is done.
        out: folder of all sweeps.
        tell: told what went, and once when too much has to stay.
    """

    def __init__(self, spec: SweepSpec, out: Path, tell: Callable[[str], None]) -> None:
        self._disk = None if spec.disk is None else parse_size("disk", spec.disk)
        self._shown, self._out, self._tell = spec.disk, out, tell
        self._complained = False

    def trial_changed(self, record: TrialRecord) -> None:
        """Make room when a trial has ended."""
        if record.status != "running":
            self.check()

    def check(self, *, last: bool = False) -> None:
        """Make room where there is too little; what cannot be done is told, and ends no sweep.

        Args:
            last: nothing of the sweep runs any more.
        """
        if self._disk is None or sum(stored.size for stored in list_store(self._out / "stages")) <= self._disk:
            return
        try:
            cleared = clear(self._out, disk=self._disk, useless_too=False)
        except (InputError, OSError) as error:
            self._complain(f"disk: no room was made: {error}")
            return
        if cleared.removed:
            self._tell(f"disk: removed {', '.join(removed_text(cleared))}; {self._shown} are for all stages.")
        if cleared.is_too_much:
            size = size_text(sum(cleared.kept))
            who = "best, documented and unfinished trials need them" if last else "trials that run may need them"
            self._complain(f"disk: stages take {size}, more than {self._shown}; {who}.", again=last)

    def _complain(self, text: str, *, again: bool = False) -> None:
        if again or not self._complained:
            self._complained = True
            self._tell(text)
