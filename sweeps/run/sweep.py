"""A sweep from its spec to a registered model.

The expensive libraries are imported where they are used, so that a mistake is answered before they load.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Literal

from carcls.disk import is_out_of_reach
from carcls.errors import InputError, SweepStopped
from carcls.stages import LOG, StageStore
from sweeps.interrupts import last_words, uninterrupted
from sweeps.lock import forget_request, locked
from sweeps.results.result import RESULT, SweepResult, find_result, used_up_note
from sweeps.run.check import Checked, fit_to_images
from sweeps.run.cleaning import DiskKeeper
from sweeps.run.conclusion import conclude
from sweeps.run.data import counts_note, prepare_data
from sweeps.run.reporting import leave_report
from sweeps.run.session import SweepSession, repeats_wanted
from sweeps.spec.sweep_file import forget, has_begun, write_file
from sweeps.study.records import read_history
from sweeps.text import command_text, plural
from sweeps.waits import Waiting

if TYPE_CHECKING:
    from sweeps.engine import Observer, Progress, Watcher
    from sweeps.engine.engine import EngineResult
    from sweeps.engine.session import RaySession
    from sweeps.run.command import Command
    from sweeps.tracking.mirror import Mirror

    # What is done with the trials of a sweep once they are over.
    Finish = Callable[[SweepSession, EngineResult, Mirror], SweepResult]

# So long MLflow gets to hear of the end when this process cannot go on.
LAST_SECONDS = 15.0


def run_sweep(
    checked: Checked, command: Command, ray: RaySession, watcher: Watcher, finish: Finish = conclude
) -> SweepResult:
    """Run the trials that a sweep still owes; choose, test and register the winner.

    Args:
        checked: the sweep, as ``check_sweeps`` lets it pass.
        command: that it is run by.
        ray: runs the trials.
        watcher: told of what happens.
        finish: makes the result of what the trials left, and writes it down.

    Raises:
        InputError: the images cannot be used, or another process runs the sweep.
        SweepStopped: trials kept failing, or the sweep's folder is full or gone; nothing is lost.
    """
    from sweeps.tracking.mirror import mirror_of

    damage = DamageNews(StageStore(command.root / "stages"), watcher.note)
    with open_session(checked, command, ray, watcher) as session:
        damage.check()
        spec, tell = session.spec, session.tell
        mirror = mirror_of(spec, session.folder, session.tracking, session.dataset.summary, tell)
        keeper = DiskKeeper(spec, command.root, tell)
        status: Literal["complete", "interrupted", "failed"] = "failed"
        with last_words(partial(mirror.close, "interrupted", LAST_SECONDS)), _loss_told(session):
            try:
                engine = _run_trials(session, watcher, [mirror, watcher, keeper, damage])
                with Waiting(tell, "writing to MLflow …"):
                    mirror.bring_in_line(engine.records)
                _tell_what_is_left(session, engine)
                result = finish(session, engine, mirror)
                if not result.interrupted:
                    is_known = session.before is not None and session.before.as_dict() == result.as_dict()
                    compute = None if is_known else session.compute  # which would start Ray for an old result
                    leave_report(command.root, str(spec.name), [str(spec.name)], tell, compute=compute)
                damage.check()
                keeper.check(last=True)
                if engine.stopped:
                    raise SweepStopped(engine.stopped)
                status = result.status
            except KeyboardInterrupt:
                status = "interrupted"
                raise
            finally:
                with uninterrupted(), Waiting(tell, "closing the runs in MLflow …"):
                    mirror.close(status)
    return result


@contextmanager
def open_session(checked: Checked, command: Command, ray: RaySession, watcher: Progress) -> Iterator[SweepSession]:
    """Read and pack the images of a sweep, and keep its folder for this process; arguments as ``run_sweep``.

    Raises:
        InputError: the images cannot be used, or another process runs the sweep.
    """
    started, spec, folder = time.monotonic(), checked.spec, command.root / str(checked.spec.name)
    for note in filter(None, (spec.note, *spec.goals.lines(), *checked.notes)):
        watcher.note(note)
    with locked(folder):
        forget_request(folder)
        has_result = (folder / RESULT).is_file()
        if command.address is None and (command.changes or not has_result):
            share = checked.share
            ray.start_in_background(folder / "ray.log", preload=not share.gpus, processes=share.concurrency)
        is_new = not has_begun(folder)
        if is_new:  # ``resume`` knows it while its images are read, unless they are wrong for it
            write_file(folder, "sweep", command.tracking_uri, [spec])
        stages = StageStore(command.root / "stages")
        try:
            dataset = prepare_data((spec, *command.specs), command.root, stages, watcher, checked.listing)
            spec, notes = fit_to_images(checked, command, dataset)
        except InputError:
            if is_new:
                forget(folder)
            raise
        before = find_result(folder)
        if has_result and before is None:
            notes = [*notes, f"{RESULT} cannot be read; it is written anew from the sweep's journal."]
        for note in (counts_note(dataset), *notes):
            watcher.note(note)
        write_file(folder, "sweep", command.tracking_uri, [spec], stages.take_used())
        dataset.save(folder / "dataset.json")
        assert checked.tracking is not None
        tracking, tell = checked.tracking, watcher.note
        yield SweepSession(spec, command, tracking, stages, dataset, ray, tell, before, started)


@contextmanager
def _loss_told(session: SweepSession) -> Iterator[None]:
    """Say how the sweep goes on when it is stopped for a reason, such as its folder being full or gone."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())
        if is_out_of_reach(error):
            said = f"{str(session.folder)!r} cannot be written or read ({said})."
        elif not isinstance(error, SweepStopped):
            raise
        resume = command_text("resume", session.command.name, out=session.command.root)
        raise SweepStopped(f"{said} The sweep is stopped; all it has is kept. Once that is mended: {resume}") from error


def _run_trials(session: SweepSession, watcher: Progress, observers: Sequence[Observer]) -> EngineResult:
    if not session.command.runs_trials:
        from sweeps.engine.engine import EngineResult

        return EngineResult(tuple(read_history(session.folder).records), interrupted=False, used_up="")
    from carcls.families import known_costs

    spec, classes = session.spec, len(session.dataset.classes)
    ray = "" if session.ray.is_up else "Ray and "
    with Waiting(watcher.note, f"starting {ray}the trials' processes, which load PyTorch …") as beginning:
        from sweeps.engine.engine import run_trials

        return run_trials(
            session.work,
            [beginning, *observers],
            confirm=partial(repeats_wanted, spec) if spec.confirm else None,
            edits=session.command.changes,
            notify=watcher.note,
            on_status=watcher.on_status,
            costs=lambda config: known_costs(config, classes),
        )


def _tell_what_is_left(session: SweepSession, engine: EngineResult) -> None:
    """Say why fewer trials were run than were asked for, if nobody interrupted them."""
    spec = session.spec
    if not session.command.runs_trials:
        if left := sum(record.status == "running" for record in engine.records):
            session.tell(
                f"{plural(left, 'trial')} did not end and can still go on: "
                + command_text("resume", session.command.name, out=session.command.root)
            )
        return
    run_here = sum(r.derived_from is None and r.confirms is None and not r.refused for r in engine.records)
    if engine.used_up:
        session.tell(used_up_note(engine.used_up, spec, session.command.name, session.command.root))
    elif not engine.interrupted and run_here < spec.trials:
        kept = " that keeps the constraints" if spec.constraints else ""
        session.tell(f"The search space holds nothing new{kept}, so the sweep ends before its number of trials.")


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
