"""Results of the pool's blocks as Parquet files, folder/part-00012.parquet: whole or absent, same rows same bytes.

Any tool that reads Parquet opens a folder of them as one table. The file's own metadata says which format, kind, block
and settings made it, so that a run never continues on results of another.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import replacing
from ..errors import ConfigError, DataError

FORMAT = 1
STATUSES = ("kept", "removed", "unreadable")
STAGES = ("", "path", "bytes", "pixels", "hash", "thumbnail", "embedding", "keypoints")
MOST_PAIRS = 50  # matched points kept per image, for the report
_DIGEST = pa.binary(16)
_SCORE = {"index": pa.int64(), "name": pa.string(), "id": _DIGEST, "classes": pa.int32(), "log_probs": pa.float16(),
          "logsumexp": pa.float32(), "entropy": pa.float32()}
_DEDUP = {"index": pa.int64(), "name": pa.string(), "id": _DIGEST, "status": pa.dictionary(pa.int8(), pa.string()),
          "stage": pa.string(), "protected": pa.string(), "score": pa.float32(), "transform": pa.list_(pa.float32()),
          "mirrored": pa.bool_(), "pairs": pa.list_(pa.float32()), "reason": pa.string(), "kinds": pa.string(),
          "width": pa.int32(), "height": pa.int32(), "hash": pa.uint64(), "pixels": _DIGEST}
_KINDS = {"score": _SCORE, "dedup": _DEDUP}
_NUMPY = {pa.int32(): np.int32, pa.int64(): np.int64, pa.float16(): np.float16, pa.float32(): np.float32,
          pa.bool_(): np.bool_}
_PER_CLASS = ("classes", "log_probs")  # [n, P]: their type in the file is a list of P
_NAME = re.compile(r"part-(\d{5,})\.parquet")
_KEY = b"ppcls_ssld.mining"


def write_part(folder: Path | str, block: int, columns: Mapping[str, Any], kind: str,
               settings: Mapping[str, Any]) -> Path:
    """Write one block's rows, atomically; an older part of that block is replaced. Raises CheckpointError (disk).

    kind 'score': index int64, name text, id 16 bytes, classes int32 [n, P], log_probs float16 [n, P] (descending),
        logsumexp float32, entropy float32 (nats).
    kind 'dedup': index int64, name text, id 16 bytes, status (STATUSES), stage (STAGES), protected text ('' none),
        score float32 (nan none), transform float32 [n, 2, 3] or [n, 6] (a row with nan: none), mirrored bool,
        pairs list of float32 [m, 4] (cut to MOST_PAIRS), reason text, kinds text (comma-separated), width and height
        int32, hash uint64 (0 none: a perceptual hash has about half its bits set), pixels 16 bytes.
    16 bytes: array of dtype V16, or bytes each; zeros or None: none. All columns are needed, none else is taken.
    settings: whatever decided these rows (thresholds, digests), as JSON takes it; read_part compares them.
    """
    table = _table(columns, kind).replace_schema_metadata({_KEY: _about(kind, block, settings)})
    folder = Path(folder)
    path = folder / f"part-{block:05d}.parquet"
    with replacing(path) as file:
        # One row group; page checksums, since a disk may damage a file long after it was written.
        pq.write_table(table, file, row_group_size=max(1, len(table)), compression="zstd", compression_level=3,
                       version="2.6", write_page_checksum=True)
    return path


def read_part(folder: Path | str, block: int, kind: str, settings: Mapping[str, Any] | None = None,
              columns: Iterable[str] | None = None) -> dict[str, np.ndarray | list[np.ndarray]]:
    """Columns of one part, all or those asked for, as write_part takes them.

    Text comes as object arrays of str, 16 bytes as V16, transform as float32 [n, 2, 3], pairs as a list of float32
    [m, 4] each.
    DataError: absent or damaged. ConfigError: made with other settings (None: any), another kind or format.
    """
    path = _path(folder, block)
    wanted = list(_schema(kind) if columns is None else columns)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check(path, file, kind, block, settings)
            table = file.read(wanted, use_threads=False)  # small, and many processes read at once
    except (OSError, pa.ArrowException, json.JSONDecodeError) as e:
        raise DataError(f"{path}: no whole part of this block ({_one_line(e)}); run the same command again, it makes "
                        "the parts that are missing or damaged") from e
    return {name: _to_numpy(table.column(name).combine_chunks(), name) for name in wanted}


def read_parts(folder: Path | str, blocks: Iterable[int], kind: str, settings: Mapping[str, Any] | None = None,
               columns: Iterable[str] | None = None) -> Iterator[dict[str, np.ndarray | list[np.ndarray]]]:
    """read_part of one block after another: memory of one part."""
    columns = None if columns is None else list(columns)
    for block in blocks:
        yield read_part(folder, block, kind, settings, columns)


def parts(folder: Path | str) -> list[int]:
    """Sorted numbers of the blocks that have a file, whole or not; [] when there is no folder."""
    if not os.path.isdir(folder):
        return []
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, os.listdir(folder)) if match)


def missing(folder: Path | str, count: int, kind: str, settings: Mapping[str, Any]) -> list[int]:
    """Blocks of 0 .. count-1 that have no file, or one whose end is damaged. ConfigError: one has other settings.

    Reads the end of each file only; damage inside is found by read_part, through its checksums.
    """
    there, lacking = set(parts(folder)), []
    for block in range(count):
        path = _path(folder, block)
        try:
            if block not in there:
                raise FileNotFoundError(path)
            with pq.ParquetFile(path) as file:
                _check(path, file, kind, block, settings)
        except (OSError, pa.ArrowException, json.JSONDecodeError):
            lacking.append(block)
    return lacking


def _table(columns: Mapping[str, Any], kind: str) -> pa.Table:
    schema = _schema(kind)
    if set(columns) != set(schema):
        raise DataError(f"a {kind} part has the columns {', '.join(schema)}; found {', '.join(columns)}")
    arrays = {name: _to_arrow(columns[name], name, type_) for name, type_ in schema.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        raise DataError(f"a part has columns of one length, found { {n: len(a) for n, a in arrays.items()} }")
    return pa.table(arrays)


def _to_arrow(values: Any, name: str, type_: pa.DataType) -> pa.Array:
    if name in _PER_CLASS:
        values = np.ascontiguousarray(values, _NUMPY[type_])
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    if type_ == _DIGEST:
        return pa.array([bytes(v) if v is not None and any(bytes(v)) else None for v in values], type_)
    if name == "transform":
        # Of no fixed size in the file: Arrow 22 cannot read back its own nulls of fixed-size lists.
        values = np.asarray(values, np.float32).reshape(-1, 6)
        return pa.array([None if np.isnan(v).any() else v for v in values], type_)
    if name == "pairs":
        return pa.array([np.asarray(v, np.float32).reshape(-1, 4)[:MOST_PAIRS].ravel() for v in values], type_)
    if name in ("status", "stage"):
        allowed = STATUSES if name == "status" else STAGES
        wrong = sorted(set(values) - set(allowed))
        if wrong:
            raise DataError(f"{name} {wrong[0]!r} is none of {', '.join(map(repr, allowed))}")
        if name == "status":
            codes = pa.array([allowed.index(v) for v in values], pa.int8())
            return pa.DictionaryArray.from_arrays(codes, pa.array(allowed))
    if name == "hash":
        values = [int(v) if v is not None and int(v) else None for v in values]
        return pa.array(values, type_)
    if pa.types.is_string(type_):
        return pa.array(list(values), type_)
    return pa.array(np.asarray(values, _NUMPY[type_]))


def _to_numpy(array: pa.Array, name: str) -> np.ndarray | list[np.ndarray]:
    if name in _PER_CLASS:
        return array.flatten().to_numpy().reshape(len(array), array.type.list_size)
    if array.type == _DIGEST:
        array = array.fill_null(bytes(16))
        return np.frombuffer(array.buffers()[1], "V16")[array.offset:array.offset + len(array)]
    if name == "transform":
        return np.array([v or [np.nan] * 6 for v in array.to_pylist()], np.float32).reshape(-1, 2, 3)
    if name == "pairs":
        points = array.flatten().to_numpy().reshape(-1, 4)
        return np.split(points, (array.offsets.to_numpy()[1:-1] - array.offsets[0].as_py()) // 4) if len(array) else []
    if name == "hash":
        return array.fill_null(0).to_numpy()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.to_numpy(zero_copy_only=False)


def _schema(kind: str) -> dict[str, pa.DataType]:
    if kind not in _KINDS:
        raise ConfigError(f"a part is of kind {' or '.join(_KINDS)}, found {kind!r}")
    return _KINDS[kind]


def _about(kind: str, block: int, settings: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, "kind": kind, "block": block, "settings": settings}, sort_keys=True)


def _check(path: Path, file: pq.ParquetFile, kind: str, block: int, settings: Mapping[str, Any] | None) -> None:
    """ConfigError unless the part was made as asked."""
    text = (file.schema_arrow.metadata or {}).get(_KEY)
    if text is None:
        raise ConfigError(f"{path}: a Parquet file, but no part of the miner; choose another output folder")
    found = json.loads(text)
    for key, expected in (("format", FORMAT), ("kind", kind), ("block", block)):
        if found.get(key) != expected:
            raise ConfigError(f"{path}: {key} {found.get(key)!r}, expected {expected!r}; choose another output folder, "
                              "or delete this one and start afresh")
    if settings is None:
        return
    old, new = found["settings"], json.loads(json.dumps(settings))
    differing = [f"{key} {old.get(key, 'absent')} there, {new.get(key, 'absent')} now"
                 for key in sorted(old.keys() | new.keys()) if old.get(key, ...) != new.get(key, ...)]
    if differing:
        raise ConfigError(f"{path}: made with other settings ({'; '.join(differing)}); take the same again, choose "
                          "another output folder, or delete this one and start afresh")


def _path(folder: Path | str, block: int) -> Path:
    return Path(folder) / f"part-{block:05d}.parquet"


def _one_line(error: Exception) -> str:
    return str(error).split("\n")[0]
