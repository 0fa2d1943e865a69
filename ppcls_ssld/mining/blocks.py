"""The unit of work: a block of the listing, its result one file, whoever makes it and when.

Everything that a block's result depends on is the block itself and the settings. So any number of processes, a kill at
any moment and a second start end in the same files.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
from threadpoolctl import threadpool_limits

from ..data.workers import die_with_parent
from ..errors import DataError, StoppedBySignal
from ..stop import StopRequest

_SMALL, _LARGE, _LARGE_POOL = 256, 1024, 65_536  # images


class Blocks:
    """Consecutive ranges of `count` images. The size depends on nothing but the pool, unless it is given."""

    def __init__(self, count: int, size: int | None = None):
        self.count = count
        self.size = size or (_LARGE if count >= _LARGE_POOL else _SMALL)

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def range(self, block: int) -> range:
        """Positions in the listing."""
        return range(block * self.size, min(self.count, (block + 1) * self.size))


def share(blocks: Sequence[int], rank: int, world: int) -> list[int]:
    """This rank's part of the blocks that are still to do.

    By number and not by place in the list: a rank that looks later finds fewer missing.
    """
    return [block for block in blocks if block % world == rank]


class Stoppable:
    """Context in which a run can be asked to stop: `check()` raises StoppedBySignal after SIGTERM or SIGINT."""

    def __init__(self):
        self._request = StopRequest()

    def __enter__(self) -> Stoppable:
        self._request.__enter__()
        return self

    def __exit__(self, *args) -> None:
        self._request.__exit__(*args)

    def check(self) -> None:
        if self._request:
            raise StoppedBySignal(f"stopped by {self._request.signal_name}; what is finished is kept, start the same "
                                  "command again to go on")


def stream(work: Callable[[Any], Any], tasks: Iterable[Any], workers: int,
           check: Callable[[], None] = lambda: None) -> Iterator[Any]:
    """work(task) of every task, in order, by forked processes (0: by this one), a few tasks ahead of the consumer.

    check: called before every task or result, and once a second while a result is waited for; may raise.

    `work` is inherited by the fork, with every index and memory map it holds; tasks and results are pickled. DataError
    when a process dies. The processes end with the iterator, and with this process however it ends.
    """
    if workers == 0:
        for task in tasks:
            check()
            yield work(task)
        return
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _adopt, (work,))
    pending: deque = deque()
    try:
        for task in tasks:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside Paddle's threads
                pending.append(executor.submit(_call, task))
            if len(pending) > 2 * workers:
                yield _result(pending.popleft(), check)
        while pending:
            yield _result(pending.popleft(), check)
    except BrokenProcessPool as e:
        raise DataError("a process that reads and compares images died (often: out of memory); finished blocks are "
                        "kept; start again with a smaller Mine.num_workers, or with 0 to see the error itself") from e
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        cv2.setNumThreads(threads)


def _result(future: Future, check: Callable[[], None]) -> Any:
    while True:
        check()
        try:
            return future.result(timeout=1)
        except concurrent.futures.TimeoutError:
            if future.done():  # the work's own TimeoutError, which is the same class from Python 3.11 on
                raise


_work: Callable[[Any], Any] | None = None  # of a forked process, which serves one `stream` and ends with it


def _adopt(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the main process decides what they mean
    die_with_parent()
    cv2.setNumThreads(0)
    # Of BLAS and OpenMP: there is a process for each core, and OpenMP's threads do not survive a fork.
    threadpool_limits(1)


def _call(task: Any) -> Any:
    return _work(task)
