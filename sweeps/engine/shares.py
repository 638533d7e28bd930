"""Which part of a GPU a trial gets where nobody says it (``--gpus-per-trial auto``). No torch, no ray.

It follows from what was measured on a GPU of the kind: memory of a process, and images per second of 1, 2, 4 and 8 at
once (``sweeps.engine.probing``). That is kept in the store, so a plan, the trials and what comes after them find the
same share there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from carcls.machine import PACK_SHARE
from carcls.stages import StageStore, note_made, write_json
from sweeps.engine.loads import Load, load_text, loads_of
from sweeps.engine.resources import Machine, Share, trial_resources

if TYPE_CHECKING:
    from carcls.config import TrialConfig
    from sweeps.spec.spec import SweepSpec

KIND, VERSION = "gpu-share", 1
PROBER = "carcls.training.shared:steps"
"""What a process computes while it is measured."""
COUNTS = (1, 2, 4, 8)
"""Processes at once on a GPU that are tried; Ray has four decimals for a share of 1/n."""
FILLED = 0.9
"""Of the memory that there is, which processes may fill."""
RISE = 1.05
"""By how much twice as many processes must make more images per second."""
_FILE = "readings.json"
_WORDS = {1: "one", 2: "two", 4: "four", 8: "eight"}


class Reading(NamedTuple):
    """What was measured of some processes at once on one GPU.

    Attributes:
        images_per_second: of all together; 0 where one of several ran out of memory.
        memory: bytes that one takes, its CUDA context included.
        card: bytes that all may take: what nobody else held.
    """

    images_per_second: float
    memory: float
    card: float

    def leaves_room_for(self, count: int) -> bool:
        """Tell whether so many such processes fit, each with decoded images in its memory (PACK_SHARE of its part)."""
        return self.images_per_second > 0 and count * self.memory <= (FILLED - PACK_SHARE) * self.card


class Chosen(NamedTuple):
    """How many processes are to share a GPU, and the count that must be measured to know it; None where it is known."""

    processes: int
    unknown: int | None


def choose(readings: Mapping[int, Reading], most: int) -> Chosen:
    """Return how many processes are to share a GPU, by what was measured of some counts.

    They are doubled as long as they fit and all together make RISE as many images per second.

    >>> choose({1: Reading(1000, 3, 40), 2: Reading(1700, 3, 40)}, 8)
    Chosen(processes=2, unknown=4)
    >>> choose({1: Reading(1000, 3, 40), 2: Reading(1700, 3, 40), 4: Reading(1750, 3, 40)}, 8)
    Chosen(processes=2, unknown=None)
    """
    best = 1
    for count in [count for count in COUNTS if count <= most]:
        if count > 1 and not readings[best].leaves_room_for(count):
            break
        if count not in readings:
            return Chosen(best, count)
        found = readings[count]
        rises = count == 1 or found.images_per_second > RISE * readings[best].images_per_second
        if not (rises and found.leaves_room_for(count)):
            break
        best = count
    return Chosen(best, None)


class Question(NamedTuple):
    """How many processes with a load are to share a GPU of a kind, of at most ``most``, which is one of COUNTS."""

    load: Load
    gpu_kind: str
    most: int

    @property
    def key(self) -> dict[str, Any]:
        """What its answer depends on, besides ``most``."""
        return {**self.load, "gpu": self.gpu_kind, "torch": version("torch"), "version": VERSION}

    @property
    def stage(self) -> dict[str, Any]:
        """The key of the stage that keeps what was measured for it."""
        return {**self.key, "most": self.most}


def questions_of(spec: SweepSpec, machines: Sequence[Machine]) -> list[Question]:
    """Return what must be known for the share of a trial: of each load on each kind of GPU.

    Nothing where the share is given, where a GPU has only one trial anyway, and where the GPUs have no name.
    """
    places = [machine for machine in machines if machine.gpus]
    kinds = {machine.gpu_kind for machine in places}
    most = _most(spec, places) if places and spec.gpus_per_trial is None else 1
    if most == 1 or "" in kinds:
        return []
    return [Question(load, kind, most) for load in loads_of(spec) for kind in sorted(kinds)]


def _most(spec: SweepSpec, places: Sequence[Machine]) -> int:
    """Return how many trials a GPU may have, one of COUNTS: no more than there are, each with a core for its images."""
    trials = math.ceil(min(spec.trials, spec.concurrency or spec.trials) / sum(machine.gpus for machine in places))
    cores = min(machine.cores / machine.gpus / max(1, spec.cpus_per_trial or 1) for machine in places)
    return max(count for count in COUNTS if count <= max(1, min(trials, cores)))


def read(stages: Path, question: Question) -> dict[int, Reading]:
    """Return what was measured, by the number of processes; nothing where that does not answer the question.

    More processes may have been measured than are asked for. A count that trials ran out of memory with has no speed.
    """
    for most in reversed(COUNTS):
        said = _read_stage(stages, question._replace(most=most).stage)
        if said is not None:
            found = {int(count): Reading(*values) for count, values in said.items()}
            for count in COUNTS:
                if _read_stage(stages, _ran_out(question, count)) is not None:
                    found[count] = Reading(0.0, 0.0, 0.0)
            if choose(found, question.most).unknown is None:
                return found
    return {}


def _read_stage(stages: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    if not stages.is_dir():  # a plan makes no store
        return None
    try:
        found: dict[str, Any] = json.loads((StageStore(stages).folder(KIND, key) / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def write(folder: Path, readings: Mapping[int, Reading]) -> None:
    """Write what was measured into the folder of its stage."""
    write_json(folder / _FILE, readings)
    note_made(folder, 0.0)  # no trial would measure it for itself, so finding it saves none


def _ran_out(question: Question, count: int) -> dict[str, Any]:
    """Return the key of the stage that is there if trials with the n-th part of a GPU ran out of memory."""
    return {**question.key, "ran_out": count}


def note_out_of_memory(
    spec: SweepSpec, stages: Path, machines: Sequence[Machine], config: TrialConfig, gpus: float
) -> None:
    """Note that a trial with so much of a GPU ran out of memory: from now on trials of its backbone get more."""
    questions = questions_of(spec, machines)
    own = [question for question in questions if question.load["backbone"] == config.backbone]
    for question in own or questions:
        StageStore(stages).get_or_make(KIND, _ran_out(question, round(1 / gpus)), partial(write, readings={}))


def share_of(spec: SweepSpec, stages: Path, machines: Sequence[Machine]) -> Share:
    """Return the share of a trial and how many run at a time; ``auto`` is a whole GPU until it was measured.

    Args:
        spec: the sweep.
        stages: folder of the store.
        machines: that run the trials; each trial runs on one.

    Raises:
        InputError: a trial asks for more than any machine has.
    """
    if spec.gpus_per_trial is None and any(machine.gpus for machine in machines):
        questions = questions_of(spec, machines)
        counts = [choose(read(stages, question), question.most).processes for question in questions]
        spec = spec.model_copy(update={"gpus_per_trial": 1 / min(counts, default=1)})
    return trial_resources(spec, *machines)


def share_text(spec: SweepSpec, stages: Path, machines: Sequence[Machine]) -> str:
    """Return in one sentence which part of a GPU trials get, and by which measurement; nothing where that was given."""
    if spec.gpus_per_trial is not None or not any(machine.gpus for machine in machines):
        return ""
    questions = questions_of(spec, machines)
    if not questions:
        return "GPU share: a whole GPU."
    found = [(question, read(stages, question)) for question in questions]
    if not all(readings for _, readings in found):
        return "GPU share: measured at the start."
    question, readings = min(found, key=lambda one: choose(one[1], one[0].most).processes)
    count = choose(readings, question.most).processes
    share = f"1/{count}" if count > 1 else "a whole GPU"
    return f"GPU share: {share} ({load_text(question.load)}: {_readings_text(readings, count)})."


def _readings_text(readings: Mapping[int, Reading], chosen: int) -> str:
    """Return what was measured alone, of the chosen count, and of the next one, which was too many."""
    said, alone = [], readings[1]
    for count in dict.fromkeys((chosen, 2 * chosen)):
        found = readings.get(count)
        if found is not None and count > 1:
            said.append(
                f"{found.images_per_second:,.0f} by {_WORDS[count]}"
                if found.images_per_second
                else f"{_WORDS[count]} run out of memory"
            )
    memory = readings[chosen].memory / 2**30
    return f"{', '.join([f'{alone.images_per_second:,.0f} images/s alone', *said])}; {memory:.1f} GiB each"
