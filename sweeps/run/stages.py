"""What is told of stages: which were damaged and are made again, and what those that trials share are worth."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from carcls.stages import LOG, StageStore, seconds_of
from carcls.stages_disk import list_store
from sweeps.spec.sweep_file import sweeps_of
from sweeps.study.records import read_history


class DamageNews:
    """An Observer that reads on in the store's log, one line for each stage dropped since it was made.

    Args:
        stages: the store.
        tell: gets the line.
    """

    def __init__(self, stages: StageStore, tell: Callable[[str], None]) -> None:
        self._log = stages.root / LOG
        self._tell = tell
        self._read = self._log.stat().st_size if self._log.exists() else 0

    def trial_changed(self, _record: object) -> None:
        """Look for news."""
        self.check()

    def check(self) -> None:
        """Tell what was dropped since the last time."""
        with suppress(FileNotFoundError), self._log.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # the rest is still being written
                    break
                self._read += len(line)
                with suppress(ValueError, KeyError, TypeError):  # the log itself may be damaged
                    event = json.loads(line)
                    if event["event"] == "dropped":
                        what = f"{event['kind']} {event['digest']} ({event['reason']})"
                        self._tell(f"damaged, so it is made again: {what}")


@dataclass(frozen=True, slots=True)
class KindUse:
    """The stages of one kind in a store.

    Attributes:
        kind: of stage.
        stages: whole ones.
        unfinished: those that go on some day, or are being made.
        bytes: that all of them take on disk.
        seconds: that the whole ones took to make.
        hits: how often a trial of any sweep found one that it had not made.
        saved: seconds of making that the hits took nobody.
    """

    kind: str
    stages: int
    unfinished: int
    bytes: int
    seconds: float
    hits: int
    saved: float


def use_by_kind(out: Path) -> list[KindUse]:
    """Return what the stages in ``out/stages`` are worth to the sweeps under ``out``, by kind in alphabetical order.

    Raises:
        InputError: the journal of a sweep is damaged.
    """
    listing = [stored for stored in list_store(out / "stages") if stored.state != "trash"]
    saved: defaultdict[str, list[float]] = defaultdict(list)
    for record in (record for folder in sweeps_of(out) for record in read_history(folder).records):
        for name, seconds in record.stages.items():
            if seconds is not None:
                saved[name.partition("/")[0]].append(seconds)
    found = []
    for kind in sorted({stored.kind for stored in listing}):
        stages = [stored for stored in listing if stored.kind == kind]
        whole = [stored.path for stored in stages if stored.state == "made"]
        made = round(sum(map(seconds_of, whole)), 3)
        size, hits = sum(stored.size for stored in stages), len(saved[kind])
        found.append(KindUse(kind, len(whole), len(stages) - len(whole), size, made, hits, round(sum(saved[kind]), 3)))
    return found
