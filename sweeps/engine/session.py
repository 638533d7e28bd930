"""Ray, started and ended around a sweep, quiet, and closed to strangers.

Ray ends last, when all that a command does is done. Tune's handles are garbage then. Before Ray ends they are freed
here, and while it ends Python's cyclic collector rests: it runs in any thread, and were one freed there meanwhile,
Ray's core would end the process without a word.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from carcls.errors import InputError, SweepStopped
from carcls.machine import gpu_kind
from sweeps.engine.compat import Servers
from sweeps.engine.resources import Machine, Process, this_machine
from sweeps.interrupts import keeping_handlers, last_words, uninterrupted
from sweeps.waits import Waiting

# Ray, Tune, CUDA and glibc read these from the environment; whoever set one of them keeps it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi numbers GPUs; else the fastest of unequal ones is 0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in trials as on the command line
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints a header whatever its verbosity
    "MALLOC_ARENA_MAX": "1",  # each trial of a process has a new thread, whose arena would keep what it has freed
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the journal is what a sweep resumes from
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a stopped trial may take so long to let go of its process
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "600",
}
# Trainers that start workers of their own set it: Ray then hides no GPU, and all trials would compute on the first one.
_SHOWS_ALL_GPUS = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
# Ray's sockets lie some 64 characters below its folder, and a socket's path has at most 107.
_LONGEST_FOLDER = 24
# So long machines may take to say what their GPUs are called.
_GPU_SECONDS = 60.0
# In the folder for Ray, once its process has locked the folder. What nobody has locked any more is of a dead process.
_OWNED = "owned"


class RaySession:
    """The Ray of a command: started or joined when it is first needed, ended last of all.

    Where Ray runs in this process already, it is used and left alone.

    Args:
        address: of a running cluster; None starts Ray here.
        machine: what a Ray that is started here believes to have; None takes what there is.
        notify: gets a sentence where ending it takes long.
    """

    def __init__(
        self,
        address: str | None = None,
        machine: Machine | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.address = address
        self.process: Process | None = None  # that ran the last trial, for what comes after it
        self._group: Any = None  # what Ray has reserved for it
        self._machine, self._notify = machine, notify
        self._exits = ExitStack()
        self._ready: Future[None] | None = None  # done once the Ray of this session is there
        self._over = threading.Event()
        self._servers = Servers()
        self._folder: str | None = None
        self._gpu_kinds: dict[str, str] = {}  # by Ray's id of the machine

    def __enter__(self) -> RaySession:
        self._exits.enter_context(last_words(self._clear))
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted(), Waiting(self._notify, "ending Ray and its processes …"), self._exits:
            self._end()

    @property
    def is_up(self) -> bool:
        """Whether Ray is there already."""
        return bool(ray.is_initialized())

    def start_in_background(self, log: Path, *, preload: bool, processes: int | None = None) -> None:
        """Begin to start or join Ray, while this process loads libraries and decodes images.

        Args:
            log: where Ray's messages go.
            preload: whether the processes that a Ray here keeps ready load what trials need.
            processes: how many it keeps ready; None has it take one a core.
        """
        if self._ready is None and not ray.is_initialized():
            self._ready = Future()
            arguments = (self._ready, log, preload, processes)
            threading.Thread(target=self._begin, args=arguments, name="carsweep-ray", daemon=True).start()

    def connect(self, log: Path) -> tuple[Machine, ...]:
        """Start or join Ray unless it is there; return its machines. What it and Tune say goes to the file ``log``.

        Raises:
            InputError: the cluster cannot be joined, or there is no room for Ray's folder.
            SweepStopped: Ray did not start on this machine; nothing of it is left running once the session ends.
        """
        self.start_in_background(log, preload=False)
        if self._ready is not None:
            self._ready.result()
        _prepare(log)
        found = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        self._learn_gpus(found)
        kinds, resources = self._gpu_kinds, [node["Resources"] for node in found]
        sizes = [(int(has["CPU"]), int(has.get("GPU", 0))) for has in resources]
        return tuple(
            Machine(*size, gpu_kind=kinds.get(node["NodeID"], "")) for node, size in zip(found, sizes, strict=True)
        )

    def node_with(self, kind: str) -> str:
        """Return Ray's own resource of a machine that has GPUs of a kind, ``node:ADDRESS``; empty where none has."""
        names = [
            name
            for node in ray.nodes()
            if node["Alive"] and self._gpu_kinds.get(node["NodeID"]) == kind
            for name in node["Resources"]
            if name.startswith("node:") and not name.startswith("node:__")
        ]
        return names[0] if names else ""

    def _learn_gpus(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Find out what the GPUs of machines are called: each is asked once, unless it is this one."""
        fresh = [
            node["NodeID"] for node in nodes if node["Resources"].get("GPU") and node["NodeID"] not in self._gpu_kinds
        ]
        if self._ready is not None and self.address is None:
            self._gpu_kinds |= dict.fromkeys(fresh, (self._machine or this_machine()).gpu_kind)
            return
        task = ray.remote(gpu_kind)
        there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in fresh]
        answers = [task.options(num_cpus=0, scheduling_strategy=place).remote() for place in there]
        ready = ray.wait(answers, num_returns=len(answers), timeout=_GPU_SECONDS)[0] if answers else []
        for node, answer in zip(fresh, answers, strict=True):
            self._gpu_kinds[node] = ""
            with suppress(ray.exceptions.RayError):
                self._gpu_kinds[node] = ray.get(answer) if answer in ready else ""

    def keep(self, process: Process, group: Any) -> None:
        """Leave a process what Ray has reserved for it, its placement group, until it is let go."""
        self.process, self._group = process, group

    def release(self) -> None:
        """End the process that was kept, and give back what was reserved for it."""
        if self.process is not None:
            ray.kill(self.process.actor)
        if self._group is not None:
            ray.util.remove_placement_group(self._group)
        self.process = self._group = None

    def _begin(self, ready: Future[None], log: Path, preload: bool, processes: int | None) -> None:
        _prepare(log)
        try:
            with keeping_handlers():
                if self.address is not None:
                    _join(self.address)
                else:
                    # Ray answers only who holds a token; one for this session keeps Ray from writing its own at home.
                    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
                        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
                    self._folder = _make_folder()
                    machine = self._machine or this_machine()
                    self._servers.start(self._folder, machine, preload=preload, processes=processes)
        except InputError as error:
            ready.set_exception(error)
            return
        except Exception as error:  # whatever Ray calls it; it gives its servers half a minute
            why = f"({' '.join(str(error).split())[:200]}): perhaps it is too busy, or has too little memory."
            ready.set_exception(SweepStopped(f"Ray did not start on this machine {why}"))
            return
        ready.set_result(None)
        self._over.wait()  # Linux kills Ray's processes with the thread that started them

    def _end(self) -> None:
        is_ours = self._ready is not None and self._ready.exception() is None  # waits
        if ray.is_initialized():
            if not self._servers.serve:
                threading.Event().wait()  # who watches them ends this process; Ray would only wait for them
            self.release()
            self._servers.leave()
            if is_ours:
                _shut_down()
        self._over.set()
        self._clear()

    def _clear(self) -> None:
        self._servers.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _join(address: str) -> None:
    # The cluster's machines do not have this process's environment.
    environment = {"env_vars": {name: os.environ[name] for name in _SETTINGS}}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise InputError(
            f"--address must be of a Ray cluster that this machine can join, got {address!r}: "
            f"{' '.join(str(error).split())[:300]} Start one with ray start --head, or leave --address out."
        ) from None


def _shut_down() -> None:
    gc.collect()
    gc.disable()
    try:
        ray.shutdown(wait_for_processes=True)
    finally:
        gc.enable()


def _prepare(log: Path) -> None:
    """Set what Ray reads, and send what its loggers say to a file; the terminal belongs to the command line."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.pop(_SHOWS_ALL_GPUS, None)
    logger, handler = logging.getLogger("ray"), logging.FileHandler(log, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for before in logger.handlers:
        before.close()
    logger.handlers, logger.propagate = [handler], False


def _make_folder() -> str:
    """Make a folder for Ray whose path leaves room for the names of its sockets; batch systems give long TMPDIRs.

    What killed processes have left beside it goes.
    """
    wanted = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    for root in (wanted, "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - mkdtemp chooses the name
        if len(os.fsencode(os.path.realpath(root))) <= _LONGEST_FOLDER and os.access(root, os.W_OK):
            _remove_orphans(Path(root))
            folder = tempfile.mkdtemp(prefix="carsweep-", dir=root)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)  # while this process lives
                Path(folder, _OWNED).touch()
            return folder
    raise InputError(
        f"TMPDIR must be a folder with a path of at most {_LONGEST_FOLDER} characters that can be written, got "
        f"{wanted!r}: Ray keeps sockets there. Set TMPDIR to a shorter one."
    )


def _remove_orphans(root: Path) -> None:
    for owned in root.glob(f"carsweep-*/{_OWNED}"):
        with suppress(OSError):
            descriptor = os.open(owned.parent, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(owned.parent, ignore_errors=True)
            finally:
                os.close(descriptor)
