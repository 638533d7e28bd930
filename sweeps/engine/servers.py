"""Ray's servers on this machine: started in process groups of their own, and watched.

Time limits and terminals signal the whole process group of a command. Ray's servers would die with it, and Ray ends a
driver that waits for them after a minute, without a word. Where they die all the same (a control group is signalled,
memory runs out), the command is told at once. The names used here are Ray's own; without them Ray runs as it comes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray._private import services
from ray._private.node import Node

# Of the dashboard, of scaling a cluster, of bringing logs to the terminal: nobody asks them here, and they take two
# seconds of computing.
_SERVICES = ("start_api_server", "start_monitor", "start_log_monitor")
_LOOK_SECONDS = 0.5


class Servers:
    """The processes that Ray started here.

    Args:
        lost: called once, from another thread, when one of them serves no more and ``leave`` was not called.
    """

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._processes: list[subprocess.Popen[bytes]] = []
        self._left = threading.Event()
        self._head = ("", 0)

    @contextmanager
    def started(self) -> Iterator[None]:
        """Take in what Ray starts inside."""

        def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(*arguments, **options, process_group=0)  # noqa: S603 - Ray's own call
            self._processes.append(process)
            return process

        popen = getattr(services, "ConsolePopen", None)
        kept = {name: found for name in _SERVICES if (found := getattr(Node, name, None)) is not None}
        for name in kept:
            setattr(Node, name, lambda _node, **_options: None)
        if popen is not None:
            services.ConsolePopen = start
        try:
            yield
        finally:
            for name, service in kept.items():
                setattr(Node, name, service)
            if popen is not None:
                services.ConsolePopen = popen

    def watch(self, address: str) -> None:
        """Begin to look after them; ``address`` is where Ray's head answers, as ``host:port``."""
        host, _, port = address.rpartition(":")
        self._head = (host, int(port))
        threading.Thread(target=self._watch, name="carsweep-ray-watch", daemon=True).start()

    def leave(self) -> None:
        """Watch no more: they are about to be ended."""
        self._left.set()

    def kill(self) -> None:
        """End what is left of them and of their helpers; the processes of trials follow them."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    @property
    def serve(self) -> bool:
        """Whether all do. After SIGTERM gcs_server (ray 2.60.0) closes its port and hangs."""
        if any(process.poll() is not None for process in self._processes):
            return False
        try:
            socket.create_connection(self._head, timeout=_LOOK_SECONDS).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # slow, or behind a network that has just changed
        return True

    def _watch(self) -> None:
        while not self._left.wait(_LOOK_SECONDS):
            if not self.serve:
                self._lost()
                return
