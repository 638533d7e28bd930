"""Making room: mark the stages that all sweeps' records name, and sweep the rest as a disk budget asks. No torch."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carcls.errors import InputError
from carcls.stages_disk import Stored, list_store, size_of, take_out
from sweeps.lock import holder_of
from sweeps.results.models import parts_of, ranked_models, wanted_models
from sweeps.spec.sweep_file import read_file, sweeps_of
from sweeps.study.records import read_history
from sweeps.text import parse_size, size_text

if TYPE_CHECKING:
    from sweeps.spec.spec import SweepSpec
    from sweeps.trial import TrialRecord

KEEP = 5
# Why something may go, the readiest first, for one and for several. Of no use to anybody are the first three, and what
# Ray leaves beside the store; the others only go for the sake of a budget.
_SAID = {
    "leftover": ("leftover of a process that died", "leftovers of processes that died"),
    "stopped": ("checkpoint of a trial that has ended", "checkpoints of trials that have ended"),
    "unclaimed": ("stage that no sweep refers to", "stages that no sweep refers to"),
    "ray": ("folder of Ray's of a sweep that does not run", "folders of Ray's of sweeps that do not run"),
    "model": ("model that is not among a sweep's best", "models that are not among a sweep's best"),
    "unused": ("stage not used for longest", "stages not used for longest"),
}
_ORDER = tuple(_SAID)
USELESS = _ORDER[:3]
# What decides the splits of a data set, the number format and shares of GPUs, and what is known of networks: small, and
# asked for by all.
_NEVER = ("index", "precision", "gpu-share", "network")
# How exactly clocks of machines that share a folder agree, in seconds.
SLACK = 60.0


@dataclass(slots=True)
class Marks:
    """What all the sweeps of a folder say of its stages, by their names (``kind/digest``); times are since 1970.

    Attributes:
        kept: what models worth keeping consist of, and what unfinished trials go on with.
        named: used by a trial of any sweep, whatever came of it, or while its images were read.
        models: of complete trials -> the best rank, from 1, of a trial that has it.
        in_use_since: what was used later may be open in a running trial.
        has_unnamed: whether a trial that ran names no stages, as older versions wrote them: all may be in use then.
    """

    kept: set[str] = field(default_factory=set)
    named: set[str] = field(default_factory=set)
    models: dict[str, int] = field(default_factory=dict)
    in_use_since: float = math.inf
    has_unnamed: bool = False

    def why(self, stored: Stored) -> str | None:
        """Say why something in the store may go; None where it stays."""
        if stored.state in ("making", "trash"):
            return "leftover"
        if stored.kind in _NEVER or stored.name in self.kept:
            return None
        if stored.state == "unfinished":  # nobody but its maker, who holds its lock, has it open
            return None if self.has_unnamed else "stopped"
        if stored.used >= self.in_use_since - SLACK:
            return None
        if stored.name not in self.named and not self.has_unnamed:
            return "unclaimed"
        return "model" if stored.name in self.models else "unused"


def choose(
    listing: Sequence[Stored], marks: Marks, budget: int | None, *, useless_too: bool
) -> list[tuple[str, Stored]]:
    """Return what goes, and why: what is of no use, if wanted, and then so much more that the rest fits the budget.

    Useless things go first, then models, the worst first, then what was not used for longest.

    Args:
        listing: everything in the store.
        marks: what sweeps say of it.
        budget: bytes; None is no limit.
        useless_too: whether what is of no use goes although the budget would hold it.
    """

    def readiness(one: tuple[str, Stored]) -> tuple[int, int, float, str]:
        why, stored = one
        return _ORDER.index(why), -marks.models.get(stored.name, 0), stored.used, stored.name

    left, chosen = sum(stored.size for stored in listing), []
    for why, stored in sorted(((why, one) for one in listing if (why := marks.why(one))), key=readiness):
        if (budget is not None and left > budget) or (useless_too and why in USELESS):
            chosen.append((why, stored))
            left -= stored.size
    return chosen


def read_marks(out: Path, keep: int) -> Marks:
    """Return what the sweeps under ``out`` say of the stages in ``out/stages``, those that run included.

    Args:
        out: folder of all sweeps.
        keep: models to keep of each sweep, the best by validation accuracy; those of documented experiments are kept
            besides.

    Raises:
        InputError: a sweep cannot be read, so that nobody knows what it needs.
    """
    marks, stages = Marks(), out / "stages"
    for folder in sweeps_of(out):
        try:
            records, prepared = read_history(folder).records, read_file(folder).stages
        except (OSError, ValueError, KeyError, TypeError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"--out must be a folder whose sweeps can be read, got {str(folder)!r} ({type(error).__name__}: "
                f"{said}), so that nobody knows which stages it needs. Repair it, or move it away."
            ) from error
        marks.named |= set(prepared)
        marks.in_use_since = min(marks.in_use_since, _in_use_since(folder, records))
        parts = {model: parts_of(stages, model) for model in {record.model for record in records if record.model}}
        for rank, model in enumerate(ranked_models(records), start=1):
            marks.models |= {part: min(rank, marks.models.get(part, rank)) for part in parts[model]}
        wanted = wanted_models(records, keep)
        for record in records:
            names = record.stages.keys()
            # What its model consists of older versions name too, and its answers.
            own = {
                *parts.get(record.model, ()),
                *([str(Path(record.predictions).parent)] if record.predictions else []),
            }
            marks.named |= names | own
            if record.model in wanted:
                marks.kept |= own
            if record.status == "running":
                marks.kept |= {name for name in names if name.startswith("training/")}
            marks.has_unnamed |= not names and bool(record.epochs or record.model) and record.derived_from is None
    return marks


def _in_use_since(folder: Path, records: Iterable[TrialRecord]) -> float:
    """Return when the oldest of the trials that run began; now, where a sweep runs but no trial of it.

    A trial that began before the sweep's process has not been taken up again.
    """
    holder = holder_of(folder)
    if holder is None:
        return math.inf
    since = datetime.fromisoformat(holder.since).timestamp() if holder.since else 0.0
    running = (record.began for record in records if record.status == "running")
    return min((began for began in running if began >= since), default=time.time())


@dataclass(frozen=True, slots=True)
class Cleared:
    """What went, or would go, and what stays.

    Attributes:
        removed: why -> the bytes on disk of each folder that went.
        kept: those of the rest of the stages.
        disk: the budget in bytes, or None.
        dry_run: whether nothing was removed.
    """

    removed: Mapping[str, Sequence[int]]
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
        return {
            "dry_run": self.dry_run,
            "removed": {why: {"count": len(sizes), "bytes": sum(sizes)} for why, sizes in self.removed.items()},
            "bytes": self.size,
            "kept": {"count": len(self.kept), "bytes": sum(self.kept)},
            "disk": self.disk,
            "fits": not self.is_too_much,
        }


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
        dry_run: remove nothing, return what would be.

    Raises:
        InputError: a sweep cannot be read.
    """
    listing = list_store(out / "stages")
    sizes: dict[str, list[int]] = {why: [] for why in _ORDER}
    gone = set[Path]()
    for why, stored in choose(listing, read_marks(out, keep), disk, useless_too=useless_too):
        if take_out(stored, dry_run=dry_run):
            sizes[why].append(stored.size)
            gone.add(stored.path)
    # What Tune writes beside each trial the journal has too, and every session begins a new one.
    for folder in out.glob("*/trials/tune") if useless_too else ():
        if holder_of(folder.parent.parent) is None:
            sizes["ray"].append(size_of(folder))
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)
    kept = [stored.size for stored in listing if stored.path not in gone]
    return Cleared({why: found for why, found in sizes.items() if found}, kept, disk, dry_run)


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
        notify: gets what went, and once when too much has to stay.
    """

    def __init__(self, spec: SweepSpec, out: Path, notify: Callable[[str], None]) -> None:
        self._disk = None if spec.disk is None else parse_size("disk", spec.disk)
        self._shown, self._out, self._notify = spec.disk, out, notify
        self._complained = False

    def trial_changed(self, record: TrialRecord) -> None:
        """Make room when a trial has ended."""
        if record.status != "running":
            self.check()

    def check(self, *, last: bool = False) -> None:
        """Make room where there is too little; what cannot be done is reported, and ends no sweep.

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
            self._notify(f"disk: removed {', '.join(removed_text(cleared))}; {self._shown} are for all stages.")
        if cleared.is_too_much:
            size = size_text(sum(cleared.kept))
            who = "best, documented and unfinished trials need them" if last else "trials that run may need them"
            self._complain(f"disk: stages take {size}, more than {self._shown}; {who}.", again=last)

    def _complain(self, text: str, *, again: bool = False) -> None:
        if again or not self._complained:
            self._complained = True
            self._notify(text)
