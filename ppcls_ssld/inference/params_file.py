"""Is a `.pdiparams` file whole? Paddle itself neither notices a full disk when it writes one nor a short file when it
reads one (2.6.2, 3.3.1): the missing weights are whatever lies in memory."""

from __future__ import annotations

import os
import struct
from math import prod
from pathlib import Path

from ..errors import WeightsError

# paddle/fluid/framework/framework.proto, VarType.Type -> bytes per element
ELEMENT_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16}


def check_params_file(path: str | os.PathLike) -> int:
    """Walk a combined parameter file from header to header; number of tensors in it. WeightsError when it is cut off.

    Layout of one tensor (paddle/phi/core/framework/dense_tensor_serialize.cc): u32 version, u64 number of LoD levels,
    per level u64 size and that many bytes, u32 version, i32 size of the description, the description (protobuf: field 1
    is the type, field 2 the dimensions), the elements.
    """
    path = Path(path)
    size, position, tensors = path.stat().st_size, 0, 0
    with path.open("rb") as file:

        def read(layout: str):
            data = file.read(struct.calcsize(layout))
            return struct.unpack(layout, data)

        try:
            while position < size:
                file.seek(position)
                _, levels = read("<IQ")
                for _ in range(levels):
                    file.seek(read("<Q")[0], os.SEEK_CUR)
                _, description_bytes = read("<Ii")
                kind, dims = _describe(file.read(description_bytes))
                position = file.tell() + ELEMENT_BYTES[kind] * prod(dims)
                tensors += 1
        except (struct.error, KeyError, IndexError, OSError, ValueError, OverflowError) as e:
            raise WeightsError(f"{path}: not a parameter file of Paddle Inference, or damaged after {position} of its "
                               f"{size} bytes; export the network again, or copy the file again") from e
    if position != size or not tensors:
        raise WeightsError(f"{path}: cut off: {size} bytes on disk, {position} or more expected; "
                           f"export the network again, or copy the file again")
    return tensors


def _describe(description: bytes) -> tuple[int, list[int]]:
    """(type, dimensions) of a VarType.TensorDesc."""
    kind, dims, at = -1, [], 0
    while at < len(description):
        tag, at = _varint(description, at)
        value, at = _varint(description, at)
        if tag == 8:  # field 1
            kind = value
        elif tag == 16:  # field 2
            dims.append(value)
        else:
            raise ValueError(f"unknown field {tag}")
    return kind, dims


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position behind it) of a protobuf variable-length integer."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
