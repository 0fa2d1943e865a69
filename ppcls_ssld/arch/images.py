"""A batch's images on the device, as networks take them."""

from __future__ import annotations

import paddle

from ..structs import Batch


@paddle.no_grad()
def on_device(batch: Batch) -> paddle.Tensor:
    """float32 [N, 3, H, W], normalised. uint8 images travel as they are, a quarter of the bytes, and become numbers there.

    The same operations in the same order as `data.pixels.normalize`, so the same bits on CPU.
    """
    images = paddle.to_tensor(batch.images)
    if batch.normalization is None:
        return images
    todo = batch.normalization
    images = images.transpose([0, 3, 1, 2]).astype("float32") * todo.scale
    mean, std = (paddle.to_tensor(values, dtype="float32").reshape([1, 3, 1, 1]) for values in (todo.mean, todo.std))
    return (images - mean) / std
