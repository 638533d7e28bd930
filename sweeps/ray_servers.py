"""Ray's servers on this machine: started in process groups of their own, and watched.

Time limits and terminals signal the whole process group of a command. Ray's servers would die with it, and Ray ends a
driver that waits for them after a minute, without a word. Where they die all the same (a control group is signalled,
memory runs out), the command is told at once. The names used here are Ray's own; without them Ray runs as it comes.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        lost: called once, from another thread, when one of them has ended and ``leave`` was not called.
    """

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._processes: list[subprocess.Popen[bytes]] = []
        self._left = threading.Event()

    @contextmanager
    def started(self) -> Iterator[None]:
        """Take in what Ray starts inside, and watch it from then on."""

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
        threading.Thread(target=self._watch, name="carsweep-ray-watch", daemon=True).start()

    def leave(self) -> None:
        """Watch no more: they are about to be ended."""
        self._left.set()

    @property
    def are_alive(self) -> bool:
        """Whether none has ended."""
        return all(process.poll() is None for process in self._processes)

    def _watch(self) -> None:
        while not self._left.wait(_LOOK_SECONDS):
            if not self.are_alive:
                self._lost()
                return
