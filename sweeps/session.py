"""Ray, started and ended around a sweep, quiet, and closed to strangers."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import ray
from ray._private.node import Node

from carcls.errors import InputError
from sweeps.resources import Machine, this_machine

# Ray, Tune and glibc read these from the environment; whoever set one of them keeps it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without a GPU sees none
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in trials as on the command line
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints a header whatever its verbosity
    "MALLOC_ARENA_MAX": "1",  # each trial of a process has a new thread, whose arena would keep what it has freed
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the journal is what a sweep resumes from
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a stopped trial may take so long to let go of its process
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "600",
}
_PRELOAD = "RAY_preload_python_modules"  # Ray's own setting, read when it starts
_SERVICES = ("start_api_server", "start_monitor", "start_log_monitor")
_IN_WORKERS = (
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "RAY_CHDIR_TO_TRIAL_DIR",
    "MALLOC_ARENA_MAX",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S",
)


_kept = [False]
_begun: list[Future[bool]] = []


@contextmanager
def ray_ahead(log: Path, *, warm: bool) -> Iterator[None]:
    """Start Ray here while this process loads libraries and decodes images, for the first ``ray_session`` inside.

    Where there is none, it is ended. Does nothing where Ray runs already.

    Args:
        log: where Ray's messages go.
        warm: whether the processes that Ray keeps ready, one a core, load what trials need (see ``sweeps.warm``).
    """
    begun: Future[bool] = Future()
    _begun.append(begun)
    threading.Thread(target=_begin, args=(begun, log, warm), name="carsweep-ray", daemon=True).start()
    try:
        yield
    finally:
        if begun in _begun and _take_over():
            ray.shutdown()


def _begin(begun: Future[bool], log: Path, warm: bool) -> None:
    try:
        started = _start_ahead(log, warm)
    except Exception as error:
        begun.set_exception(error)
        return
    begun.set_result(started)
    if started:
        threading.Event().wait()  # for ever: Linux kills Ray's processes with the thread that started them


def _start_ahead(log: Path, warm: bool) -> bool:
    if ray.is_initialized():
        return False
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
    return True


def _take_over() -> bool:
    """Tell, once it runs, whether a Ray was started ahead, for the caller to end; one that failed was not."""
    begun = _begun.pop() if _begun else None
    return begun is not None and begun.exception() is None and begun.result()


def _set_environment() -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def one_session() -> Iterator[None]:
    """Keep the Ray that the first ``ray_session`` inside starts for all of them, and end it at the end."""
    _kept[0] = True
    ours = not ray.is_initialized()
    try:
        yield
    finally:
        _kept[0] = False
        if ours and ray.is_initialized():
            ray.shutdown()


@contextmanager
def ray_session(
    log: Path, *, address: str | None = None, cpus: int | None = None, gpus: int | None = None
) -> Iterator[tuple[Machine, ...]]:
    """Use the Ray that runs in this process, or connect to ``address``, or start one here; yield its machines.

    What was started is ended. Ray's and Tune's messages go to the file ``log``.
    """
    _set_environment()
    begun = _take_over()
    ours = begun or not ray.is_initialized()
    try:
        with _messages_to(log):
            if ours and not begun:
                _start(address, cpus, gpus)
            yield _machines()
    finally:
        if ours and not _kept[0]:
            ray.shutdown()


def _machines() -> tuple[Machine, ...]:
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return tuple(Machine(int(has["CPU"]), int(has.get("GPU", 0))) for has in found if has.get("CPU", 0) >= 1)


def _start(address: str | None, cpus: int | None, gpus: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        # The cluster's machines do not have this process's environment.
        try:
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
    here = this_machine()
    with _few_services():
        ray.init(
            address="local",
            num_cpus=cpus or here.cores,
            num_gpus=here.gpus if gpus is None else gpus,
            include_dashboard=False,
            **quiet,
        )


@contextmanager
def _few_services() -> Iterator[None]:
    """Start no service that nobody asks here: of the dashboard, of scaling a cluster, of bringing logs to the terminal.

    They take two seconds of computing. The names are Ray's own; one that is gone is left alone.
    """
    kept = {name: found for name in _SERVICES if (found := getattr(Node, name, None)) is not None}
    for name in kept:
        setattr(Node, name, lambda _node, **_options: None)
    try:
        yield
    finally:
        for name, start in kept.items():
            setattr(Node, name, start)


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
