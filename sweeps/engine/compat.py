"""What Ray (2.60.0) offers by no public name: how its servers start, and when Tune ends processes.

Such names are replaced while something runs, and nowhere else; where one is gone, all runs without what it was for.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import ray
from ray._private import services
from ray._private.node import Node
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

from sweeps.interrupts import end_now

if TYPE_CHECKING:
    from sweeps.engine.resources import Machine

# Of the dashboard, of scaling a cluster, of bringing logs to the terminal: nobody asks them here, and they take two
# seconds of computing.
_SERVICES = ("start_api_server", "start_monitor", "start_log_monitor")
# The first is of Ray's memory monitor, which ends a process on purpose; the others mean that it, or what it was about
# to report, went with its machine.
_DEATHS = (OutOfMemoryError, NodeDiedError, WorkerCrashedError, ObjectLostError)
_PRELOAD = "RAY_preload_python_modules"
_PROCESSES = "--num_prestart_python_workers="
_LOOK_SECONDS = 0.5
_LOST = "Ray's servers on this machine have ended: perhaps its memory ran out, or somebody stopped them."


@contextmanager
def _replaced(owner: Any, name: str, by: Callable[[Any], Any]) -> Iterator[None]:
    """Have a name mean ``by(what it meant)`` inside."""
    known = getattr(owner, name, None)
    if known is None:
        yield
        return
    setattr(owner, name, by(known))
    try:
        yield
    finally:
        setattr(owner, name, known)


class Servers:
    """Ray's servers on this machine, started in process groups of their own, and watched.

    Time limits and terminals signal the whole process group of a command. Ray's servers would die with it, and Ray ends
    a driver that waits for them after a minute, without a word. Where they die all the same (a control group is
    signalled, memory runs out), the command says so at once, and ends.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        self._left = threading.Event()
        self._head: tuple[str, int] | None = None

    def start(self, folder: str, machine: Machine, *, preload: bool, processes: int | None) -> None:
        """Start Ray here, and begin to look after it.

        Args:
            folder: for its files.
            machine: what it believes to have.
            preload: whether the processes that it keeps ready load what trials need.
            processes: how many it keeps ready; None has it take one a core.
        """

        def popen(command: list[str], *arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
            if processes is not None:
                ready = f"{_PROCESSES}{processes}"
                command = [ready if word.startswith(_PROCESSES) else word for word in command]
            if preload:
                options["env"] = {_PRELOAD: "sweeps.engine.preload", **(options.get("env") or os.environ)}
            process = subprocess.Popen(command, *arguments, **options, process_group=0)  # noqa: S603 - Ray's own call
            self._started.append(process)
            return process

        with ExitStack() as names:
            names.enter_context(_replaced(services, "ConsolePopen", lambda _: popen))
            for name in _SERVICES:
                names.enter_context(_replaced(Node, name, lambda _: lambda _node, **_options: None))
            ray.init(
                address="local",
                num_cpus=machine.cores,
                num_gpus=machine.gpus,
                include_dashboard=False,
                _temp_dir=folder,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._head = (host, int(port))
        threading.Thread(target=self._watch, name="carsweep-ray-watch", daemon=True).start()

    def leave(self) -> None:
        """Watch no more: they are about to be ended."""
        self._left.set()

    def kill(self) -> None:
        """End what is left of them and of their helpers; the processes of trials follow them."""
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    @property
    def serve(self) -> bool:
        """Whether all do that were started. After SIGTERM gcs_server (ray 2.60.0) closes its port and hangs."""
        if self._head is None:
            return True
        if any(process.poll() is not None for process in self._started):
            return False
        try:
            socket.create_connection(self._head, timeout=_LOOK_SECONDS).close()
        except OSError as error:  # else it is slow, or behind a network that has just changed
            return not isinstance(error, ConnectionRefusedError)
        return True

    def _watch(self) -> None:
        while not self._left.wait(_LOOK_SECONDS):
            if not self.serve:
                if ray.is_initialized():  # else somebody has ended Ray on purpose
                    end_now(_LOST)
                return


@contextmanager
def processes_kept(keeps: Callable[[Any], bool]) -> Iterator[None]:
    """Have Tune ask before it gives back what is reserved for a process that it has done with, which ends the process.

    And have it take every death of a trial's process for one; for some it would give up the experiment.

    Args:
        keeps: gets the placement group, and returns whether it stays.
    """
    manager = getattr(sys.modules.get("ray.air.execution._internal.actor_manager"), "RayActorManager", None)
    groups = sys.modules.get("ray.air.execution.resources.placement_group")

    def fail(failed: Any) -> Any:
        return lambda manager, tracked_actor_task, exception: failed(manager, tracked_actor_task, as_death(exception))

    def remove(removed: Any) -> Any:
        return lambda group: None if keeps(group) else removed(group)

    with _replaced(manager, "_actor_task_failed", fail), _replaced(groups, "remove_placement_group", remove):
        yield


def id_of(process: Any) -> str:
    """Return Ray's id of an actor as its messages have it, also of one that has said nothing yet; empty for None."""
    return process._actor_id.hex() if hasattr(process, "_actor_id") else ""


def as_death(error: Exception) -> Exception:
    """Return the error as one that Tune takes for the death of a process, with the same words, if it is one.

    >>> type(as_death(OutOfMemoryError("the node was low on memory"))).__name__
    'RayActorError'
    """
    return RayActorError(error_msg=str(error)) if isinstance(error, _DEATHS) else error
