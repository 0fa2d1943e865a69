"""Rank, world size, reductions, barrier: the only importer of paddle.distributed.

Started by `python -m paddle.distributed.launch`, a process finds its rank in the environment; started alone it is
rank 0 of 1 and every call here is free. Backend: gloo on CPU, NCCL on GPU (Paddle's own choice by device).
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist

from .errors import ConfigError

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
        dist.init_parallel_env()


def set_device(device: str) -> None:
    """Choose this process's device: 'cpu', 'gpu', 'gpu:0', 'xpu', ...

    A launched GPU process takes the card that the launcher gave it. On CPU no device id is asked for: Paddle 3.3.1
    raises there. ConfigError when this Paddle or this machine has no such device.
    """
    if device == "gpu" and world_size() > 1 and paddle.is_compiled_with_cuda():  # without CUDA there is no number to ask for
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
    if world_size() > 1:
        dist.barrier()
