"""Batches read ahead by worker processes, delivered in order through shared memory.

Not paddle.io.DataLoader: it delivers Paddle tensors where a Batch holds arrays, turns a worker's DataError into a
traceback and needs room in /dev/shm. The memory here is anonymous: inherited by fork, and gone with the processes,
however they end.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import signal
import traceback
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from typing import Any

import cv2
import numpy as np

from ..errors import DataError
from ..structs import Batch
from .assemble import Assembler

_HELD = 2  # delivered batches that may stay in shared memory; one that is kept beyond these is copied
_PR_SET_PDEATHSIG = 1
_SENT = ("skipped", "normalization", "targets", "drawn")  # through the pipe: small, or empty as a rule


class _Slot:
    """Shared memory of one batch: what to read, and what was read."""

    def __init__(self, batch_size: int, image_shape: tuple[int, ...], dtype: type, label_type: np.dtype):
        self.image_shape, self.dtype = image_shape, np.dtype(dtype)
        self.memory = mmap.mmap(-1, batch_size * int(np.prod(image_shape)) * self.dtype.itemsize)
        row = np.dtype([("key", "i8", 3), ("label", label_type), ("sample_id", "i8"), ("source", "i8"),
                        ("partner_label", label_type), ("share", "f4")])
        self.rows = np.frombuffer(mmap.mmap(-1, batch_size * row.itemsize), row)

    def images(self, n: int) -> np.ndarray:
        """[n, *image_shape] on the shared memory; all views of it keep `base` alive."""
        flat = np.frombuffer(self.memory, self.dtype, n * int(np.prod(self.image_shape)))
        return flat.reshape(n, *self.image_shape)

    def store(self, batch: Batch) -> None:
        rows = self.rows[:len(batch)]
        rows["label"], rows["sample_id"], rows["source"] = batch.labels, batch.sample_ids, batch.sources
        rows["partner_label"], rows["share"] = batch.partner_labels, batch.share

    def load(self, n: int, rest: dict[str, Any]) -> Batch:
        """The batch again; rest: its fields that are not in shared memory."""
        rows = self.rows[:n]
        return Batch(self.images(n), rows["label"].copy(), rows["sample_id"].copy(), rows["source"].copy(),
                     rows["partner_label"].copy(), rows["share"].copy(), **rest)


def read_ahead(assembler: Assembler, keys_of: Callable[[int], np.ndarray], first: int, last: int, batch_size: int,
               num_workers: int, prefetch: int) -> Iterator[Batch]:
    """Batches first .. last-1 of `keys_of`, in order, up to `prefetch` per worker ahead of the consumer.

    Workers end when the iterator does, is closed or is dropped, and with this process, however it ends. DataError of a
    worker is raised here, in its batch's turn; so is the death of a worker.
    """
    slots = [_Slot(batch_size, assembler.image_shape, assembler.dtype, assembler.label_type)
             for _ in range(num_workers * prefetch + _HELD)]
    free = deque(range(len(slots)))
    slot_of: dict[int, int] = {}
    replies: dict[int, tuple] = {}
    unsent = first
    crew = _Crew(assembler, slots, num_workers, prefetch)
    try:
        for m in range(first, last):
            timeout = 0.0  # first what is there already, so that no worker waits while the consumer works
            while m not in replies or timeout == 0:
                replies.update(crew.receive(timeout))
                while unsent < last and free and crew.has_room():
                    slot_of[unsent] = free.popleft()
                    keys = keys_of(unsent)
                    slots[slot_of[unsent]].rows["key"][:len(keys)] = keys
                    crew.send(unsent, slot_of[unsent], len(keys))
                    unsent += 1
                timeout = None
            slot = slot_of.pop(m)
            batch = slots[slot].load(*_unwrap(replies.pop(m)))
            if len(slots) - len(free) - len(slot_of) > _HELD:
                batch = replace(batch, images=batch.images.copy())
                free.append(slot)
            else:
                # The slot is free again when nobody holds its images any more: every view of them holds their base.
                weakref.finalize(batch.images.base, free.append, slot).atexit = False
            yield batch
            del batch
    finally:
        crew.dismiss()


def _unwrap(reply: tuple) -> tuple[int, dict[str, Any]]:
    """(number of images, fields that are not in shared memory) of a worker's reply, or the error that it reports."""
    kind, *content = reply
    if kind == "data error":
        raise DataError(content[0])
    if kind == "bug":
        raise RuntimeError(f"a reader process failed:\n{content[0]}")
    return tuple(content)


class _Crew:
    """The worker processes and what each of them has to do."""

    def __init__(self, assembler: Assembler, slots: list[_Slot], size: int, prefetch: int):
        self._prefetch = prefetch
        self._processes, self._pipes = [], []
        self._tasks: list[set[int]] = [set() for _ in range(size)]
        self._stop = mmap.mmap(-1, 1)
        context = multiprocessing.get_context("fork")
        # OpenCV's threads do not survive a fork and would be waited for; they are ended before it. A signal between the
        # fork and the worker's first line would run this process's handlers in the worker.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(0)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside Paddle's threads
                for _ in range(size):
                    mine, its = context.Pipe()
                    process = context.Process(target=_work, args=(assembler, slots, its, self._stop, os.getpid()),
                                              daemon=True)
                    process.start()
                    its.close()  # so that its death is the end of the pipe
                    self._pipes.append(mine)
                    self._processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            cv2.setNumThreads(threads)
            # Also before multiprocessing's own exit handler, which would wait for workers that ignore its SIGTERM.
            self.dismiss = Finalize(None, _dismiss, (self._processes, self._pipes, self._stop), exitpriority=10)
            if len(self._processes) < size:
                self.dismiss()

    def has_room(self) -> bool:
        return min(map(len, self._tasks)) < self._prefetch

    def send(self, m: int, slot: int, n: int) -> None:
        """Give batch m to the worker with the least to do."""
        worker = min(range(len(self._tasks)), key=lambda i: len(self._tasks[i]))
        self._tasks[worker].add(m)
        try:
            self._pipes[worker].send((m, slot, n))
        except OSError:
            self._report_death(worker)

    def receive(self, timeout: float | None) -> dict[int, tuple]:
        """Replies by batch: those that are there within `timeout` seconds, at least one if it is None."""
        replies = {}
        for pipe in wait(self._pipes, timeout):
            worker = self._pipes.index(pipe)
            try:
                m, *reply = pipe.recv()
            except (EOFError, OSError):
                self._report_death(worker)
            self._tasks[worker].discard(m)
            replies[m] = tuple(reply)
        return replies

    def _report_death(self, worker: int) -> None:
        self._processes[worker].join(1)
        raise DataError(f"a reader process died (exit code {self._processes[worker].exitcode}; -9 often means out of "
                        "memory); lower num_workers, prefetch_factor or batch_size, or see the error itself with "
                        "num_workers: 0")


def _dismiss(processes: list, pipes: list[Connection], stop: mmap.mmap) -> None:
    """End the workers: after the batch at hand, or after 5 seconds by force."""
    stop[0] = 1
    for pipe in pipes:
        try:
            pipe.send(None)
        except OSError:
            pass  # dead already
    for process, pipe in zip(processes, pipes):
        process.join(5)
        if process.exitcode is None:
            process.kill()
            process.join()
        process.close()
        pipe.close()


def _work(assembler: Assembler, slots: list[_Slot], pipe: Connection, stop: mmap.mmap, parent: int) -> None:
    """Life of a worker: (m, slot, n) in, batch m into its slot, until told to stop or orphaned."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the main process decides what they mean
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    die_with_parent()
    cv2.setNumThreads(0)
    try:
        while os.getppid() == parent:
            if not pipe.poll(5):
                continue
            task = pipe.recv()
            if task is None or stop[0]:
                return
            pipe.send((task[0], *_answer(assembler, slots[task[1]], task[2])))
    except (EOFError, OSError):
        return  # the main process is gone


def _answer(assembler: Assembler, slot: _Slot, n: int) -> tuple:
    try:
        batch = assembler.assemble(slot.rows["key"][:n].copy(), out=slot.images(n))
        slot.store(batch)
        return "batch", len(batch), {name: getattr(batch, name) for name in _SENT}
    except DataError as e:
        return "data error", str(e)
    except Exception:  # whatever it is, the main process must hear of it
        return "bug", traceback.format_exc()


def die_with_parent() -> None:
    """SIGKILL for this process when its parent ends, kill -9 included. Linux; elsewhere workers ask every 5 seconds."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
