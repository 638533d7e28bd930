"""What comes next is made by threads while what came before is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def preloaded(make: Callable[[Item], Made], items: Iterable[Item], ahead: int = 1) -> Generator[Made]:
    """Yield ``make(item)`` for each item, in order; ``ahead`` threads of one core each make what comes next.

    ``make`` must draw no numbers from global generators, so that the results are those of ``map(make, items)``. What it
    raises is raised where its result would have been yielded. When the consumer closes the iterator, what has not been
    started is dropped, and the threads have ended when ``close`` returns.
    """
    threads = torch.get_num_threads()
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(ahead, "preload", initializer=torch.set_num_threads, initargs=(1,))
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the one of our threads became the default of threads to come
