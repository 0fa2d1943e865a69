"""Ranks wait for each other as long as it takes, and on the device that was asked for."""

import os
import threading
from types import SimpleNamespace

import paddle
import paddle.distributed as dist
import pytest

from ppcls_ssld import parallel
from ppcls_ssld.errors import ConfigError, SsldError


class Store:
    """Paddle's TCP store, as far as it is used: counters."""

    def __init__(self):
        self.counts, self.lock = {}, threading.Lock()

    def add(self, key, amount):
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + amount
            return self.counts[key]


@pytest.fixture
def three(monkeypatch):
    """Threads that are ranks 0, 1 and 2; each says which with `who.rank = ...`."""
    who = threading.local()
    monkeypatch.setattr(parallel, "world_size", lambda: 3)
    monkeypatch.setattr(parallel, "rank", lambda: who.rank)
    monkeypatch.setattr(dist.collective, "_default_store", Store())
    return who


def test_nobody_leaves_a_barrier_before_everybody_has_come_and_rank_0_leaves_last(three):
    come, gone, wrong = [], [], []

    def work(rank):
        three.rank = rank
        for i in range(5):
            come.append(i)
            parallel.barrier()
            if come.count(i) != 3 or rank == 0 and dist.collective._default_store.counts[parallel._LEFT] < 3 * (i + 1):
                wrong.append((rank, i))
        gone.append(rank)

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(gone) == [0, 1, 2] and not wrong


def test_a_rank_that_waits_for_one_that_has_ended_says_so(three, monkeypatch):
    class Gone:
        def add(self, key, amount):
            raise ValueError("(InvalidArgument) TCP connection reset by peer")

    three.rank = 1
    monkeypatch.setattr(dist.collective, "_default_store", Gone())
    with pytest.raises(SsldError, match="rank 0 has ended"):
        parallel.barrier()


def test_a_rank_that_never_comes_ends_the_wait(three, monkeypatch):
    three.rank = 0
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(parallel, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
    with pytest.raises(SsldError, match="waited 60 minutes for the others.*--resume"):
        parallel.barrier()


@pytest.mark.parametrize("before", [None, "nccl"])
def test_ranks_on_cpu_meet_through_gloo_whatever_the_build(three, monkeypatch, before):
    monkeypatch.setenv("PADDLE_DISTRI_BACKEND", before or "")  # put back afterwards
    if before is None:
        del os.environ["PADDLE_DISTRI_BACKEND"]
    met = []
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    monkeypatch.setattr(dist, "init_parallel_env", lambda: met.append(os.environ.get("PADDLE_DISTRI_BACKEND")))
    parallel.init("cpu")
    assert met == ["gloo"]


def test_a_launched_process_that_asks_for_a_gpu_of_a_paddle_without_is_told(three, monkeypatch):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    with pytest.raises(ConfigError, match="Global.device: 'gpu' cannot be used here"):
        parallel.set_device("gpu")


@pytest.mark.parametrize("device", ["gpu:0", "xpu:1"])
def test_one_card_for_several_processes_is_refused(three, device):
    kind = device[:3]
    with pytest.raises(ConfigError, match=f"Global.device: '{device}' puts all 3 processes on one card; say {kind}, "):
        parallel.set_device(device)
