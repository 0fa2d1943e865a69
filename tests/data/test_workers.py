"""Life and death of the reader's processes."""

import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys

import numpy as np
import pytest

from ppcls_ssld.data import TrainReader
from ppcls_ssld.errors import DataError


def train(config):
    return TrainReader(config, 5, 0)


def crew(before):
    return [p for p in multiprocessing.active_children() if p not in before]


@pytest.fixture
def before():
    return multiprocessing.active_children()


@pytest.mark.parametrize("end", ["exhaust", "close", "drop", "throw"])
def test_workers_leave_when_the_iterator_ends_in_whatever_way(loader, before, end):
    batches = train(loader(num_workers=2)).batches(0, 9)
    next(batches)
    workers = crew(before)
    assert len(workers) == 2
    descriptors = [os.pidfd_open(p.pid) for p in workers]
    if end == "exhaust":
        assert len(list(batches)) == 8
    elif end == "close":
        batches.close()
    elif end == "throw":
        with pytest.raises(KeyError):
            batches.throw(KeyError("the consumer's"))
    del batches
    gc.collect()
    assert crew(before) == [] and all(ended(d) for d in descriptors)


def ended(descriptor, timeout_s=0):
    """True when the process of a pid descriptor has ended, or ends within the time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def test_batches_may_be_kept_for_as_long_as_one_likes(loader):
    expected = [b.images.copy() for b in train(loader()).batches(0, 12)]
    kept = list(train(loader(num_workers=2, prefetch_factor=1)).batches(0, 12))
    assert all(map(np.array_equal, [b.images for b in kept], expected))
    batches = train(loader(num_workers=2, prefetch_factor=1)).batches(0, 12)
    views = [next(batches).images[1:, :, ::2].reshape(-1) for _ in range(12)]  # the batch itself is not kept
    del batches
    assert all(np.array_equal(v, e[1:, :, ::2].reshape(-1)) for v, e in zip(views, expected))


def test_a_batch_stays_as_it_is_while_later_ones_are_read(loader):
    batches = train(loader(num_workers=2, prefetch_factor=1)).batches(0, 12)
    first = next(batches)
    part, copy = first.images[1:3][:, 1], first.images[1:3][:, 1].copy()
    del first
    assert len(list(batches)) == 11
    assert np.array_equal(part, copy)


def test_signals_for_the_main_process_do_not_end_workers(loader, before):
    expected = list(train(loader()).batches(0, 12))
    batches = train(loader(num_workers=2)).batches(0, 12)
    got = [next(batches)]
    for worker in crew(before):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.pid, number)
    got += batches
    assert len(got) == 12 and all(np.array_equal(a.images, b.images) for a, b in zip(got, expected))


def test_a_killed_worker_is_an_error_and_no_hang(loader, before):
    batches = train(loader(num_workers=2)).batches(0, 40)
    next(batches)
    os.kill(crew(before)[0].pid, signal.SIGKILL)
    with pytest.raises(DataError, match="died.*-9.*num_workers"):
        list(batches)
    assert crew(before) == []


def test_a_defect_in_a_worker_arrives_with_its_traceback(loader, monkeypatch):
    monkeypatch.setattr("ppcls_ssld.data.transforms.RandCropImage.apply",
                        lambda self, image, params, out: image[0, 0, 0, 0])
    reader = train(loader(num_workers=1))
    reader._assembler.image_shape = (3, 16, 16)
    with pytest.raises(RuntimeError, match="(?s)Traceback.*IndexError"):
        list(reader.batches(0, 2))


def test_this_process_keeps_its_signal_handlers_and_opencv_threads(loader):
    import cv2

    threads, handlers = cv2.getNumThreads(), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    batches = train(loader(num_workers=1)).batches(0, 3)
    next(batches)
    assert cv2.getNumThreads() == threads and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    batches.close()


SCRIPT = """
import multiprocessing, sys
from ppcls_ssld.config.schema import LoaderConfig, SourceConfig
from ppcls_ssld.data import TrainReader
source = SourceConfig("photos", list="list.txt")
config = LoaderConfig((source,), ({"RandCropImage": {"size": 16}},), batch_size=4, num_workers=2)
batches = TrainReader(config, 5, 0).batches(0, 1000)
next(batches)
print(*(p.pid for p in multiprocessing.active_children()), flush=True)
"""


def start(photos, more):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT + more], cwd=photos, stdout=subprocess.PIPE,
                            stdin=subprocess.PIPE, text=True, env=environment)


def test_workers_die_with_their_parent_even_by_kill_9(photos):
    with start(photos, "sys.stdin.read()") as parent:
        descriptors = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(descriptors) == 2 and not any(map(ended, descriptors))
        parent.kill()
    assert all(ended(d, 60) for d in descriptors)


def test_a_program_with_an_open_iterator_ends_by_itself(photos):
    with start(photos, "multiprocessing.keep = batches") as parent:
        try:
            out, _ = parent.communicate(timeout=30)
        finally:
            parent.kill()
        assert parent.returncode == 0 and len(out.split()) == 2
