"""Deaths of trials' processes that Ray tells in other words than Tune knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

# The first is of Ray's memory monitor, which ends a process on purpose; the others mean that it, or what it was about
# to tell, went with its machine.
_DEATHS = (OutOfMemoryError, NodeDiedError, WorkerCrashedError, ObjectLostError)


def as_death(error: Exception) -> Exception:
    """Return the error as one that Tune takes for the death of a process, with the same words, if it is one.

    >>> type(as_death(OutOfMemoryError("the node was low on memory"))).__name__
    'RayActorError'
    """
    return RayActorError(error_msg=str(error)) if isinstance(error, _DEATHS) else error


@contextmanager
def every_death_is_one() -> Iterator[None]:
    """Let Tune answer every death of a trial's process as one; of those above it would give up the experiment.

    The name that is replaced is not public. Without it, trials run all the same.
    """
    manager: Any = getattr(sys.modules.get("ray.air.execution._internal.actor_manager"), "RayActorManager", None)
    failed = getattr(manager, "_actor_task_failed", None)
    if failed is None:
        yield
        return

    def told(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        failed(self, tracked_actor_task, as_death(exception))

    manager._actor_task_failed = told
    try:
        yield
    finally:
        manager._actor_task_failed = failed
