"""Measures how many trials fit on a GPU, and how fast they are together, in processes of Ray's that share one.

All processes are started at once and hold a part of the same GPU. One computes, then two of them at the same moment,
then four, then eight, as long as ``sweeps.engine.shares.choose`` has to know it.

What a process computes is ``module:function``, such as ``carcls.training.shared:steps``: it gets a load (settings of a
TrialConfig) and the store's folder, and returns an iterator of mappings. The first comes when all is prepared, each
further one after a second or so of steps. They have ``images_per_second``, and in bytes ``peak`` (the most memory that
was reserved), ``held`` (reserved now) and ``free`` (what nobody holds on the GPU).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from carcls.machine import hold_gpus, is_lack_of_memory
from carcls.stages import StageStore
from sweeps.engine.loads import Load
from sweeps.engine.shares import COUNTS, KIND, PROBER, Question, Reading, choose, questions_of, read, share_text, write
from sweeps.failures import failure_of_death
from sweeps.waits import Waiting

if TYPE_CHECKING:
    from sweeps.engine.halt import Halt
    from sweeps.engine.resources import Machine
    from sweeps.engine.task import Work

# So long a GPU may be taken by others, and so long processes may be silent: they load PyTorch, and find the format.
FREE_SECONDS, ANSWER_SECONDS = 60.0, 300.0
_LOOK_SECONDS = 0.5
# Of what a node has of its own name, by which it is chosen.
_LEAST = 0.001


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The sweep ends while it is measured."""


def measure_shares(work: Work, machines: Sequence[Machine], halt: Halt, notify: Callable[[str], None]) -> None:
    """Measure what is not known yet for the share of the sweep's trials, and say in one line what is known then.

    Where that fails, trials get whole GPUs, and the line says why.

    Args:
        work: of the sweep; its Ray runs.
        machines: that run the trials.
        halt: ends the measuring with the sweep.
        notify: gets the line, and before it, once it takes long, what is waited for.
    """
    questions = questions_of(work.spec, machines)
    missing = [question for question in questions if not read(work.stages, question)]
    try:
        with Waiting(notify, "measuring how many trials fit on a GPU …"):
            for question in missing:
                work.session.release()  # another sweep's last process would take memory
                _answer(question, work, halt)
        said = share_text(work.spec, work.stages, machines) if questions else ""
    except Stopped:
        said = ""
    except (OSError, MemoryError, ray.exceptions.RayError) as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        why = " ".join(str(cause).split())[:300].rstrip(".")
        said = f"GPU share: a whole GPU, since it could not be measured how many share one well: {why}."
    if said:
        notify(said)


def _answer(question: Question, work: Work, halt: Halt) -> None:
    """Measure, and keep it in the store; another sweep that measures the same is waited for."""

    def look() -> None:
        if not halt.may_go_on():
            raise Stopped

    node = work.session.node_with(question.gpu_kind)

    def make(folder: Path) -> None:
        most, prober = question.most, work.prober
        write(folder, measure(question.load, work.stages, most=most, prober=prober, node=node, look=look))

    StageStore(work.stages, waits=look).get_or_make(KIND, question.stage, make)


def measure(
    load: Load,
    stages: Path,
    *,
    most: int = COUNTS[-1],
    prober: str = PROBER,
    node: str = "",
    look: Callable[[], None] = lambda: None,
    all_counts: bool = False,
) -> dict[int, Reading]:
    """Return what 1, 2, 4 … processes at once do on one GPU of the Ray that this process has begun or joined.

    A benchmark calls it with ``all_counts`` to have each count until the memory ends, such as::

        with RaySession() as session:
            session.connect(folder / "ray.log")
            readings = measure(loads_of(load_spec("transfer"))[0], folder / "stages", all_counts=True)

    Args:
        load: settings of a trial, as ``sweeps.engine.loads.loads_of`` returns them.
        stages: folder of the store, for the number format.
        most: processes, one of COUNTS; each takes a core of the GPU's machine.
        prober: ``module:function``, importable wherever trials run.
        node: Ray's resource of the machine whose GPU is taken, ``node:ADDRESS``; any when empty.
        look: called every now and then; may raise.
        all_counts: measure also what ``choose`` need not know.

    Raises:
        OSError: no GPU was free, or a process was silent for too long.
        MemoryError: one process alone has too little memory.
        ray.exceptions.RayError: a process died, or failed otherwise than by a lack of memory.
    """
    readings: dict[int, Reading] = {}
    context = card = 0.0
    alone: Mapping[str, float] = {}
    with _processes(most, node, (prober, load, str(stages)), look) as processes:
        for count in [count for count in COUNTS if count <= most]:
            if not all_counts and choose(readings, most).unknown is None:
                break
            fresh = _step(processes[count // 2 : count], look)
            if count == 2 and fresh:  # the second process took its context, and what it holds, from what was free
                context = max(0.0, alone["free"] - fresh[0]["free"] - fresh[0]["held"])
                card += context
                readings[1] = Reading(alone["images_per_second"], alone["peak"] + context, card)
            found = _step(processes[:count], look) if fresh else None
            if not found and count == 1:  # nothing is known by it; others may hold the memory
                raise MemoryError("one process alone ran out of memory")
            if not found:
                readings[count] = Reading(0.0, 0.0, 0.0)
                break
            if count == 1:
                alone = found[0]
                card = alone["free"] + alone["held"]
            speed = sum(one["images_per_second"] for one in found)
            readings[count] = Reading(speed, max(one["peak"] for one in found) + context, card)
    return readings


@contextmanager
def _processes(most: int, node: str, arguments: Sequence[Any], look: Callable[[], None]) -> Iterator[list[Any]]:
    """Yield so many processes on one GPU, which end with the body; they have it alone."""
    group = placement_group([{"GPU": 1.0, "CPU": float(most), **({node: _LEAST} if node else {})}])
    try:
        deadline = time.monotonic() + FREE_SECONDS
        while not group.wait(_LOOK_SECONDS):
            look()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no GPU was free for {FREE_SECONDS:g} s")
        there = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        prober = ray.remote(_Prober).options(num_cpus=1, num_gpus=1 / most, scheduling_strategy=there)
        yield [prober.remote(*arguments) for _ in range(most)]
    finally:
        remove_placement_group(group)  # its processes end with it


def _step(processes: Sequence[Any], look: Callable[[], None]) -> list[Mapping[str, float]] | None:
    """Let processes take their next step at the same moment; return what each has, or None if memory ran out."""
    answers, deadline = [process.step.remote() for process in processes], time.monotonic() + ANSWER_SECONDS
    while ray.wait(answers, num_returns=len(answers), timeout=_LOOK_SECONDS)[1]:
        look()
        if time.monotonic() > deadline:
            raise TimeoutError(f"a process was silent for {ANSWER_SECONDS:g} s")
    try:
        found = ray.get(answers)
    except ray.exceptions.RayError as error:
        if failure_of_death(str(error)).kind != "out_of_memory":
            raise
        return None  # so many do not fit into the machine's memory
    return None if None in found else found


class _Prober:
    """A process that holds a part of a GPU and computes when it is told to."""

    def __init__(self, prober: str, load: Load, stages: str) -> None:
        hold_gpus(1.0)
        self._steps = iter(resolve_name(prober)(load, Path(stages)))

    def step(self) -> Mapping[str, float] | None:
        """Return what the next step has; None when memory ran out."""
        try:
            found: Mapping[str, float] = next(self._steps)
        except Exception as error:
            if is_lack_of_memory(error):
                return None
            raise
        return found
