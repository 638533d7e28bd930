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
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from carcls.errors import InputError
from sweeps.engine.resources import Machine, this_machine
from sweeps.engine.servers import Servers
from sweeps.interrupts import end_now, keeping_handlers, last_words, uninterrupted

# Ray, Tune and glibc read these from the environment; whoever set one of them keeps it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in trials as on the command line
    "RAY_task_oom_retries": "2",  # without it, a refit that the memory monitor ends begins again for ever
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints a header whatever its verbosity
    "MALLOC_ARENA_MAX": "1",  # each trial of a process has a new thread, whose arena would keep what it has freed
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the journal is what a sweep resumes from
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a stopped trial may take so long to let go of its process
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "600",
}
_PRELOAD = "RAY_preload_python_modules"  # Ray's own setting, read when it starts
# Ray's sockets lie some 64 characters below its folder, and a socket's path has at most 107.
_LONGEST_FOLDER = 24
# In the folder for Ray, once its process has locked the folder. What nobody has locked any more is of a dead process.
_OWNED = "owned"
_IN_WORKERS = (
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "RAY_CHDIR_TO_TRIAL_DIR",
    "MALLOC_ARENA_MAX",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S",
)


class RaySession:
    """The Ray of a command: started or joined when it is first needed, ended last of all.

    Where Ray runs in this process already, it is used and left alone.

    Args:
        address: of a running cluster; None starts Ray here.
        machine: what a Ray that is started here believes to have; None takes what there is.
    """

    def __init__(self, address: str | None = None, machine: Machine | None = None) -> None:
        self.address = address
        self.preloading: Any = None  # Ray's promise that one more process has loaded what trials need
        self._machine = machine
        self._exits = ExitStack()
        self._ahead: Future[None] | None = None  # done once the Ray that was started ahead is there
        self._over = threading.Event()
        self._is_ours = False
        self._servers: Servers | None = None
        self._folder: str | None = None

    def __enter__(self) -> RaySession:
        self._exits.enter_context(last_words(self._clear))
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted(), self._exits:
            self._end()

    def start_ahead(self, log: Path, *, preload: bool) -> None:
        """Begin to start Ray here, while this process loads libraries and decodes images.

        Args:
            log: where Ray's messages go.
            preload: whether the processes that Ray keeps ready, one a core, load what trials need.
        """
        if self._ahead is None and not ray.is_initialized():
            self._ahead = Future()
            arguments = (self._ahead, log, preload)
            threading.Thread(target=self._begin, args=arguments, name="carsweep-ray", daemon=True).start()

    @contextmanager
    def connected(self, log: Path) -> Iterator[tuple[Machine, ...]]:
        """Yield the machines of Ray, which is there now; its messages and Tune's go to the file ``log``."""
        _set_environment()
        if self._ahead is not None:
            self._ahead.exception()  # waits: whoever sends messages to a file puts back what was before
        with _messages_to(log):
            if not ray.is_initialized():
                self._start()
            yield _machines()

    def _begin(self, ahead: Future[None], log: Path, preload: bool) -> None:
        _set_environment()
        ours = preload and _PRELOAD not in os.environ
        if ours:
            os.environ[_PRELOAD] = "sweeps.engine.preload"
        try:
            with _messages_to(log):
                self._start()
        except Exception as error:
            ahead.set_exception(error)
            return
        finally:
            if ours:
                del os.environ[_PRELOAD]
        ahead.set_result(None)
        self._over.wait()  # Linux kills Ray's processes with the thread that started them

    def _start(self) -> None:
        if self.address is None:
            self._start_here()
        else:
            self._join(self.address)
        self._is_ours = True

    def _join(self, address: str) -> None:
        # The cluster's machines do not have this process's environment.
        environment = {"env_vars": {name: os.environ[name] for name in _IN_WORKERS}}
        try:
            with keeping_handlers():
                ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--address must be of a Ray cluster that this machine can join, got {address!r}: "
                f"{str(error).splitlines()[0]} Start one with ray start --head, or leave --address out."
            ) from None

    def _start_here(self) -> None:
        # Ray answers only who holds a token. One for this session keeps it from writing its own to the home folder.
        if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        machine = self._machine or this_machine()
        self._servers, self._folder = Servers(lost=_lost), self._folder or _make_folder()
        with keeping_handlers(), self._servers.started():
            ray.init(
                address="local",
                num_cpus=machine.cores,
                num_gpus=machine.gpus,
                include_dashboard=False,
                _temp_dir=self._folder,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        self._servers.watch(ray.get_runtime_context().gcs_address)

    def _end(self) -> None:
        if self._ahead is not None:
            self._ahead.exception()  # waits
        if self._is_ours and ray.is_initialized():
            if self._servers is not None and not self._servers.serve:
                threading.Event().wait()  # who watches them ends this process; Ray would only wait for them
            if self._servers is not None:
                self._servers.leave()
            self.preloading = None
            _shut_down()
        self._over.set()
        self._clear()

    def _clear(self) -> None:
        if self._servers is not None:
            self._servers.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _shut_down() -> None:
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        ray.shutdown(wait_for_processes=True)
    finally:
        if collects:
            gc.enable()


def _set_environment() -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def _machines() -> tuple[Machine, ...]:
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(Machine(int(has["CPU"]), int(has.get("GPU", 0))) for has in found if has.get("CPU", 0) >= 1)


def _lost() -> None:
    if ray.is_initialized():  # else somebody has ended Ray on purpose
        end_now("Ray's servers on this machine have ended: perhaps its memory ran out, or somebody stopped them.")


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


@contextmanager
def _messages_to(log: Path) -> Iterator[None]:
    """Send what Ray's loggers say to a file; the terminal belongs to the command line."""
    logger = logging.getLogger("ray")
    before, propagated = logger.handlers[:], logger.propagate
    handler = logging.FileHandler(log, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        handler.close()
        logger.handlers, logger.propagate = before, propagated
