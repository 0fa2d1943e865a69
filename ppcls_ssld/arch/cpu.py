"""Convolutions as matrix products where Paddle's own CPU kernels are slow: small maps and depthwise.

Paddle convolves on CPU image by image (and group by group): one matrix product each. On small maps these products
are tiny and their overhead is nearly the whole cost; a depthwise layer on a 2x2 map takes 100 times what one product
over the batch takes. Here the batch is one product. Same sums in another order: equal within float32 rounding.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache
from pathlib import Path

import numpy as np
import paddle

_LARGEST_MATRIX = 1 << 24  # elements of a depthwise layer's matrix, which the backward pass keeps: 64 MiB
Geometry = tuple[int, int, int, int, int, int, int, int]  # height, width, kernel h, w, stride h, w, padding h, w
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def fast_on_cpu(network: paddle.nn.Layer) -> paddle.nn.Layer:
    """The same network, in place: its convolutions compute as matrix products where that pays.

    Parameters, their names, state dict, hooks and modes stay. Only what runs eagerly in float32 changes; a traced or
    exported program keeps plain convolutions. Convolutions with dilation, channels last, or padding other than equal
    zeros narrower than the kernel stay as they are, as does every subclass of Conv2D.
    """
    for layer in network.sublayers(include_self=True):
        if type(layer) is paddle.nn.Conv2D and _is_ordinary(layer):
            layer.__class__ = MatmulConv2D
    return network


def prepare_process(cpuinfo: str | None = None) -> list[str]:
    """Settings of this process that Paddle's CPU computations gain from; call before the first of them.

    Paddle's matrix library (Intel's, inside its wheels 2.6.2 and 3.3.1) takes its slowest kernels on AMD processors
    unless MKL_DEBUG_CPU_TYPE says otherwise; a value that is set already is respected. The C library returns large
    blocks to the system at once, which then hands them out anew page by page; here it keeps them.
    Returns a sentence for the log for each thing done. cpuinfo: text of /proc/cpuinfo, if not this machine's.
    """
    if cpuinfo is None:
        cpuinfo = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    done = []
    flags = next((set(line.split()) for line in cpuinfo.splitlines() if line.startswith("flags")), set())
    if "AuthenticAMD" in cpuinfo and {"avx2", "fma"} <= flags and "MKL_DEBUG_CPU_TYPE" not in os.environ:
        os.environ["MKL_DEBUG_CPU_TYPE"] = "5"
        done.append("MKL_DEBUG_CPU_TYPE=5: Paddle's matrix library may use AVX2 on this AMD processor")
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        done.append("memory that a step frees is kept for the next")
    return done


class MatmulConv2D(paddle.nn.Conv2D):
    """A Conv2D that runs eagerly, in float32, by the fastest of four equal formulations. Never built, converted to."""

    def forward(self, x):
        if not paddle.in_dynamic_mode() or x.dtype != paddle.float32:
            return paddle.nn.Conv2D.forward(self, x)  # not super(): Paddle 2.6's tracer cannot follow it
        geometry = (*x.shape[2:], *self.weight.shape[2:], *self._stride, *self._updated_padding)
        compute = _choose(x.shape[0], self.weight.shape, self._groups, geometry)
        if compute is None:
            return paddle.nn.Conv2D.forward(self, x)
        y = compute(x, self.weight, geometry)
        return y if self.bias is None else y + self.bias.reshape([1, -1, 1, 1])


def one_pixel(x: paddle.Tensor, weight: paddle.Tensor, geometry: Geometry) -> paddle.Tensor:
    """[N, C, H, W], [O, C, kh, kw] -> [N, O, 1, 1]: the part of the map under the kernel times the part on the map."""
    height, width, kernel_h, kernel_w, _, _, pad_h, pad_w = geometry
    rows, columns = min(height, kernel_h - pad_h), min(width, kernel_w - pad_w)
    seen = x[:, :, :rows, :columns]
    used = weight[:, :, pad_h:pad_h + rows, pad_w:pad_w + columns]
    y = paddle.matmul(seen.reshape([x.shape[0], -1]), used.reshape([weight.shape[0], -1]), transpose_y=True)
    return y.reshape([*y.shape, 1, 1])


def gathered(x: paddle.Tensor, weight: paddle.Tensor, geometry: Geometry) -> paddle.Tensor:
    """[N, C, H, W], [O, C, kh, kw] -> [N, O, H', W']: one product of all pixels' neighbourhoods with the weights."""
    n, channels, height, width = x.shape
    filters, _, kernel_h, kernel_w = weight.shape
    out_h, out_w = _out_shape(geometry)
    taps = kernel_h * kernel_w
    pixels = x.reshape([n, channels, height * width]).transpose([0, 2, 1])  # [N, HW, C]
    weight = weight.reshape([filters, channels, taps])
    if geometry[2:] != (1, 1, 1, 1, 0, 0):
        pixels = paddle.concat([pixels, paddle.zeros([n, 1, channels], x.dtype)], axis=1)  # the last: padding
        pixels = paddle.index_select(pixels, _neighbours(geometry), axis=1)  # [N, H'W' kk, C]
        weight = weight.transpose([0, 2, 1])
    y = paddle.matmul(pixels.reshape([n * out_h * out_w, taps * channels]), weight.reshape([filters, -1]),
                      transpose_y=True)
    return y.reshape([n, out_h * out_w, filters]).transpose([0, 2, 1]).reshape([n, filters, out_h, out_w])


def depthwise(x: paddle.Tensor, weight: paddle.Tensor, geometry: Geometry) -> paddle.Tensor:
    """[N, C, H, W], [C, 1, kh, kw] -> [N, C, H', W']: each channel's map times that channel's Toeplitz matrix."""
    n, channels, height, width = x.shape
    out_h, out_w = _out_shape(geometry)
    matrix = paddle.matmul(weight.reshape([channels, -1]), _toeplitz(geometry))
    maps = x.reshape([n, channels, height * width]).transpose([1, 0, 2])
    y = paddle.matmul(maps, matrix.reshape([channels, height * width, out_h * out_w]))
    return y.transpose([1, 0, 2]).reshape([n, channels, out_h, out_w])


def _choose(n: int, weight_shape: list[int], groups: int, geometry: Geometry):
    """The formulation that is faster forth and back, by bounds measured (docs/performance.md); None: Paddle's own."""
    height, width, kernel_h, kernel_w = geometry[:4]
    out_h, out_w = _out_shape(geometry)
    if out_h < 1 or out_w < 1:
        return None  # Paddle says what is wrong
    pixels, taps = out_h * out_w, kernel_h * kernel_w
    if groups == 1:
        if pixels == 1:
            return one_pixel
        return gathered if pixels <= 9 else None
    if weight_shape[1] != 1 or weight_shape[0] != groups or groups * height * width * pixels > _LARGEST_MATRIX:
        return None
    # Paddle pays by (image, channel) and tap; this pays by element of the matrix, which a larger batch shares.
    return depthwise if height * width * pixels * (2.3 + n / 40) < n * (800 + taps * pixels) else None


def _out_shape(geometry: Geometry) -> tuple[int, int]:
    height, width, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w = geometry
    return (height + 2 * pad_h - kernel_h) // stride_h + 1, (width + 2 * pad_w - kernel_w) // stride_w + 1


def _table(geometry: Geometry) -> np.ndarray:
    """int64 [H'W', kh kw]: the input pixel under each tap of each output pixel; H W where that is padding."""
    height, width, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w = geometry
    out_h, out_w = _out_shape(geometry)
    row = (np.arange(out_h)[:, None] * stride_h + np.arange(kernel_h) - pad_h)[:, None, :, None]
    column = (np.arange(out_w)[:, None] * stride_w + np.arange(kernel_w) - pad_w)[None, :, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return np.where(inside, row * width + column, height * width).reshape(out_h * out_w, kernel_h * kernel_w)


@lru_cache(maxsize=64)
def _neighbours(geometry: Geometry) -> paddle.Tensor:
    return paddle.to_tensor(_table(geometry).ravel())


@lru_cache(maxsize=64)
def _toeplitz(geometry: Geometry) -> paddle.Tensor:
    """float32 0/1 [kh kw, HW H'W']: weights times this are the matrix from input to output map."""
    table, size = _table(geometry), geometry[0] * geometry[1]
    matrix = np.zeros((table.shape[1], size + 1, table.shape[0]), np.float32)
    for tap in range(table.shape[1]):
        matrix[tap, table[:, tap], np.arange(table.shape[0])] = 1
    return paddle.to_tensor(matrix[:, :size].reshape(table.shape[1], -1))


def _is_ordinary(layer: paddle.nn.Conv2D) -> bool:
    return (layer._padding_mode == "zeros" and layer._data_format == "NCHW" and tuple(layer._dilation) == (1, 1)
            and layer._padding_algorithm == "EXPLICIT" and len(layer._updated_padding) == 2
            and all(p < k for p, k in zip(layer._updated_padding, layer._kernel_size)))
