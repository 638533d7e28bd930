"""Ray, started and ended around a sweep, quiet, and closed to strangers.

Ray ends last, when all that a command does is done: ``one_session`` is where that stands. Tune's handles are garbage
then. Before Ray ends they are freed here, and while it ends Python's cyclic collector rests: it runs in any thread, and
were one freed there meanwhile, Ray's core would end the process without a word.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ray

from carcls.errors import InputError
from sweeps.interrupts import end_now, keeping_handlers, last_words, uninterrupted
from sweeps.ray_servers import Servers
from sweeps.resources import Machine, this_machine

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
_LONGEST_PLACE = 24
_IN_WORKERS = (
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "RAY_CHDIR_TO_TRIAL_DIR",
    "MALLOC_ARENA_MAX",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S",
)


@dataclass(slots=True)
class _Session:
    """The Ray of this process, from before it starts until it has ended.

    Attributes:
        begun: whether a Ray was started ahead, once that is over; None when none is.
        over: set when Ray has ended, for the thread that started it.
        servers: of a Ray that was started here.
        place: its folder, which is removed with it.
    """

    begun: Future[bool] | None = None
    over: threading.Event = field(default_factory=threading.Event)
    servers: Servers | None = None
    place: str | None = None


_open: list[_Session] = []


@contextmanager
def one_session() -> Iterator[None]:
    """Keep the Ray that is started inside for everything inside, and end it last of all.

    Inside of another one, or where Ray runs already, nothing is ended.
    """
    if _open or ray.is_initialized():
        yield
        return
    session = _Session()
    _open.append(session)
    try:
        with last_words(partial(_clear, session)):
            yield
    finally:
        with uninterrupted():
            _open.remove(session)
            _end(session)


def _end(session: _Session) -> None:
    if session.begun is not None:
        session.begun.exception()  # waits
    if ray.is_initialized():
        if session.servers is not None and not session.servers.serve:
            threading.Event().wait()  # who watches them ends this process; Ray would only wait for them
        if session.servers is not None:
            session.servers.leave()
        collects = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            ray.shutdown(wait_for_processes=True)
        finally:
            if collects:
                gc.enable()
    session.over.set()
    _clear(session)


def _clear(session: _Session) -> None:
    if session.servers is not None:
        session.servers.kill()
    if session.place is not None:
        shutil.rmtree(session.place, ignore_errors=True)


def start_ahead(log: Path, *, warm: bool) -> None:
    """Begin to start Ray, inside of ``one_session``, while this process loads libraries and decodes images.

    Does nothing where Ray runs already.

    Args:
        log: where Ray's messages go.
        warm: whether the processes that Ray keeps ready, one a core, load what trials need (see ``sweeps.warm``).
    """
    session = _open[-1] if _open else None
    if session is not None and session.begun is None and not ray.is_initialized():
        session.begun = Future()
        arguments = (session, session.begun, log, warm)
        threading.Thread(target=_begin, args=arguments, name="carsweep-ray", daemon=True).start()


def _begin(session: _Session, begun: Future[bool], log: Path, warm: bool) -> None:
    try:
        _start_ahead(log, warm)
    except Exception as error:
        begun.set_exception(error)
        return
    begun.set_result(True)
    session.over.wait()  # Linux kills Ray's processes with the thread that started them


def _start_ahead(log: Path, warm: bool) -> None:
    _set_environment()
    ours = warm and _PRELOAD not in os.environ
    if ours:
        os.environ[_PRELOAD] = "sweeps.warm"
    try:
        with _messages_to(log):
            _start(None, None, None)
    finally:
        if ours:
            del os.environ[_PRELOAD]


def _set_environment() -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(
    log: Path, *, address: str | None = None, cpus: int | None = None, gpus: int | None = None
) -> Iterator[tuple[Machine, ...]]:
    """Use the Ray that runs in this process, or connect to ``address``, or start one here; yield its machines.

    What was started is ended with the outermost ``one_session``. Ray's and Tune's messages go to the file ``log``.
    """
    _set_environment()
    with one_session(), _messages_to(log):
        begun = _open[-1].begun if _open else None
        if (begun is None or begun.exception() is not None) and not ray.is_initialized():
            _start(address, cpus, gpus)
        yield _machines()


def _machines() -> tuple[Machine, ...]:
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(Machine(int(has["CPU"]), int(has.get("GPU", 0))) for has in found if has.get("CPU", 0) >= 1)


def _start(address: str | None, cpus: int | None, gpus: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        # The cluster's machines do not have this process's environment.
        try:
            with keeping_handlers():
                ray.init(
                    address=address, runtime_env={"env_vars": {name: os.environ[name] for name in _IN_WORKERS}}, **quiet
                )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"--address must be of a Ray cluster that this machine can join, got {address!r}: "
                f"{str(error).splitlines()[0]} Start one with ray start --head, or leave --address out."
            ) from None
        return
    # Ray answers only who holds a token. One for this session keeps it from writing its own to the home folder.
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    here, session = this_machine(), _open[-1]
    session.servers, session.place = Servers(lost=_lost), session.place or _make_place()
    with keeping_handlers(), session.servers.started():
        ray.init(
            address="local",
            num_cpus=cpus or here.cores,
            num_gpus=here.gpus if gpus is None else gpus,
            include_dashboard=False,
            _temp_dir=session.place,
            **quiet,
        )
    session.servers.watch(ray.get_runtime_context().gcs_address)


def _lost() -> None:
    if ray.is_initialized():  # else somebody has ended Ray on purpose
        end_now("Ray's servers on this machine have ended: perhaps its memory ran out, or somebody stopped them.")


def _make_place() -> str:
    """Make a folder for Ray whose path leaves room for the names of its sockets; batch systems give long TMPDIRs."""
    wanted = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    for root in (wanted, "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - mkdtemp chooses the name
        if len(os.fsencode(os.path.realpath(root))) <= _LONGEST_PLACE and os.access(root, os.W_OK):
            return tempfile.mkdtemp(prefix="carsweep-", dir=root)
    raise InputError(
        f"TMPDIR must be a folder with a path of at most {_LONGEST_PLACE} characters that can be written, got "
        f"{wanted!r}: Ray keeps sockets there. Set TMPDIR to a shorter one."
    )


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
