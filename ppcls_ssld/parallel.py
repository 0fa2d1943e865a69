"""Rank, world size, reductions, barrier: the only importer of paddle.distributed.

Started by `python -m paddle.distributed.launch`, a process finds its rank in the environment; started alone it is
rank 0 of 1 and every call here is free. Backend: gloo on CPU, NCCL on GPU.
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist

from .errors import ConfigError, SsldError

_ARRIVED, _LEFT = "ppcls_ssld/arrived", "ppcls_ssld/left"  # counts of barriers entered and left, in Paddle's TCP store
_POLL_S = 0.02
_LONGEST_S = 3600.0  # that one rank may work while the others wait


def rank() -> int:
    return int(os.environ.get("PADDLE_TRAINER_ID", 0))


def world_size() -> int:
    return int(os.environ.get("PADDLE_TRAINERS_NUM", 1))


def is_main() -> bool:
    return rank() == 0


def init(device: str) -> None:
    """Choose this process's device and join the others. device: as of `set_device`."""
    set_device(device)
    if world_size() > 1 and not dist.is_initialized():
        if device.startswith("cpu"):
            os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"  # a Paddle with CUDA would take NCCL and the GPU
        dist.init_parallel_env()


def set_device(device: str) -> None:
    """Choose this process's device: 'cpu', 'gpu', 'gpu:0', 'xpu', ...

    A launched GPU process takes the card that the launcher gave it. On CPU no device id is asked for: Paddle 3.3.1
    raises there. ConfigError when this Paddle or this machine has no such device, or when a card is named for several
    processes.
    """
    kind, _, card = device.partition(":")
    if card and kind != "cpu" and world_size() > 1:
        raise ConfigError(f"Global.device: '{device}' puts all {world_size()} processes on one card; say {kind}, the "
                          "launcher deals the cards")
    if device == "gpu" and world_size() > 1 and paddle.is_compiled_with_cuda():
        device = f"gpu:{dist.ParallelEnv().device_id}"
    try:
        paddle.set_device(device)
    except (ValueError, RuntimeError, OSError) as e:  # Paddle's own classes of errors derive from these
        reason = str(e).strip().splitlines()[-1]
        raise ConfigError(f"Global.device: '{device}' cannot be used here ({reason}); take -o Global.device=cpu, or "
                          "install the Paddle build for that device") from e


def wrap(layer: paddle.nn.Layer, find_unused_parameters: bool = False) -> paddle.nn.Layer:
    """The layer with gradients averaged over ranks after backward; the layer itself for one process."""
    if world_size() == 1:
        return layer
    return paddle.DataParallel(layer, find_unused_parameters=find_unused_parameters)


def no_sync(layer: paddle.nn.Layer):
    """Context in which a wrapped layer keeps its gradients to itself (all micro-steps but the last)."""
    return layer.no_sync() if world_size() > 1 else nullcontext()


def sum_(values: paddle.Tensor) -> paddle.Tensor:
    """Element-wise sum over ranks, in place; returns it."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def broadcast_(values: paddle.Tensor) -> paddle.Tensor:
    """Rank 0's values on every rank, in place; returns it."""
    if world_size() > 1:
        dist.broadcast(values, src=0)
    return values


def sum_array(values: np.ndarray) -> np.ndarray:
    """Exact element-wise sum of int64 or float64 numbers over ranks."""
    if world_size() == 1:
        return values
    return np.sum(gather(values), axis=0)


def gather(value: Any) -> list[Any]:
    """Every rank's picklable value, in rank order, on every rank. For small things and rare moments."""
    if world_size() == 1:
        return [value]
    values: list[Any] = []
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for every rank, while one of them writes to a slow disk: gloo's own barrier gives up after 30 s.

    SsldError when rank 0, which keeps the count, is gone, or after an hour: launchers on several machines do not tell
    each other that a rank has died.
    """
    if world_size() == 1:
        return
    store = dist.collective._default_store
    try:
        everybody = -(-store.add(_ARRIVED, 1) // world_size()) * world_size()  # nobody arrives a next time before
        _wait_for(store, _ARRIVED, everybody)
        store.add(_LEFT, 1)
    except (RuntimeError, ValueError, OSError) as e:  # Paddle's own classes of errors derive from these
        raise SsldError(f"rank {rank()} waited for the others and rank 0 has ended; its log (workerlog.0) says why") from e
    if is_main():
        _wait_for(store, _LEFT, everybody)  # the count lives in this process, which may end next


def _wait_for(store, key: str, count: int) -> None:
    deadline = time.monotonic() + _LONGEST_S
    while store.add(key, 0) < count:
        if time.monotonic() > deadline:
            raise SsldError(f"rank {rank()} waited {_LONGEST_S / 60:.0f} minutes for the others; one of them has ended or "
                            "hangs. Their logs (workerlog.N) say more; start again with --resume")
        time.sleep(_POLL_S)
