"""Asking the teacher once about every view, part file by part file.

What a part holds depends on the part and the header alone, so any number of processes, a kill at any moment and a
second start end in the same files. Processes share the parts by number and meet in files; a barrier would time out.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from .. import __version__, parallel
from ..arch import Ensemble, LoadReport, Teacher, build_frozen, logits_of, on_device, prepare_process
from ..atomic import write_atomic
from ..config.schema import RunConfig
from ..data import ViewReader
from ..data.files import Archives, read_bytes
from ..errors import CheckpointError, ConfigError, StoppedBySignal, WeightsError
from ..stop import StopRequest
from ..structs import Batch
from .answers import TAILS
from .header import HEADER, check, complete, expect, read_header, teacher_of
from .parts import part_sizes, readable, remove_leftovers, write_part
from .record import NOTES
from .rows import MOST_PARTS, block_of
from .store import TargetStore


@dataclass(frozen=True)
class WriteOptions:
    """What a store is asked for beside the config. block: images of a part file; None chooses by the list's length."""

    output: str
    views: int = 1
    top_k: int = 10
    bits: int = 12
    tail: str = "student"
    block: int | None = None


def write_targets(config: RunConfig, options: WriteOptions, temperature: float, say: Callable[[str], None] = print,
                  look_at: Callable[[Teacher | Ensemble], None] = lambda teacher: None) -> None:
    """Make the parts of DIR that are not there yet: all of them, or this process's share under a launcher.

    temperature: of the loss that is to use them. look_at: called with the loaded teacher, may raise.
    Errors: ConfigError and DataError for what the user gave, WeightsError for the teacher, CheckpointError (disk full),
    StoppedBySignal. In each case the same call goes on from there.
    """
    _check(config, options)
    prepare(config)
    rank, world = parallel.rank(), parallel.world_size()
    say = say if rank == 0 else lambda text: None
    with StopRequest() as stop:
        reader = ViewReader(config.DataLoader.Train, config.Arch.class_num, config.Global.seed,
                            multilabel=config.Global.use_multilabel)
        header = _header(config, options, temperature, reader)
        folder = Path(options.output)
        if rank == 0:
            _prepare(folder, header, say)
        while not (folder / HEADER).is_file():
            _wait(stop)
        _check_same(folder, header)
        store = TargetStore(folder, partial=True)
        mine = [part for part in store.missing if part % world == rank]
        if mine:
            teacher, reports = load_teacher(config)
            for role, report in reports.items():
                say(f"{role}: {report.summary() if report else 'nothing loaded'}")
            say(f"engine {teacher.engine} ({teacher.reason})")
            look_at(teacher)
            _write_parts(Views(config, store, reader, teacher), mine, stop, rank)
        while world > 1 and rank == 0 and len(part_sizes(folder)) < store.parts:
            _wait(stop)
        if rank == 0:
            remove_leftovers(folder)
            say(f"complete: {TargetStore(folder).describe()}")


def prepare(config: RunConfig) -> None:
    """This process, before Paddle computes anything in it."""
    if config.Global.on_fast_cpu:
        prepare_process()
    parallel.set_device(config.Global.device)


def load_teacher(config: RunConfig) -> tuple[Teacher | Ensemble, dict[str, LoadReport | None]]:
    """The frozen network as training runs it, and by role what its weights files gave."""
    return build_frozen(teacher_of(config), config.Arch.class_num, config.Global.image_shape, config.Global.device,
                        fast_cpu=config.Global.on_fast_cpu)


class Views:
    """Views of a list and what the teacher says of them, for writing and for verifying."""

    def __init__(self, config: RunConfig, store: TargetStore, reader: ViewReader, teacher: Teacher | Ensemble):
        self.store, self.reader, self._teacher = store, reader, teacher
        self.batch_size = store.header["batch_size"]
        self._amp = amp_of(config)

    def answered(self, rows: np.ndarray, views: np.ndarray
                 ) -> Iterator[tuple[np.ndarray, np.ndarray, Batch, np.ndarray]]:
        """(places in `rows` that a batch has, their sample ids, the batch, float32 logits [N, C]), batch by batch.

        Unreadable images are missing.
        """
        ids = self.store.rows.samples_of(rows)
        for i, batch in enumerate(self.reader.batches(ids, views, self.batch_size)):
            places = np.arange(i * self.batch_size, min(len(ids), (i + 1) * self.batch_size))
            places = places[np.isin(ids[places], batch.sample_ids)]
            if len(places):
                yield places, ids[places], batch, self._logits(batch)

    @paddle.no_grad()
    def _logits(self, batch: Batch) -> np.ndarray:
        level = self._amp and self._amp.split()
        with paddle.amp.auto_cast(level=level[0], dtype=level[1]) if level else nullcontext():
            return logits_of(self._teacher(on_device(batch))).astype("float32").numpy()


def amp_of(config: RunConfig) -> str | None:
    """'O1 float16' and the like: how training would run the teacher. None on CPU, where Paddle has no AMP."""
    if not config.AMP.use_amp or config.Global.device.startswith("cpu"):
        return None
    return f"{config.AMP.level} {config.AMP.dtype}"


def _check(config: RunConfig, options: WriteOptions) -> None:
    for flag, value in (("--views", options.views), ("--top-k", options.top_k), ("--block", options.block)):
        if value is not None and value < 1:
            raise ConfigError(f"{flag}: expected 1 or more, found {value}")
    if options.tail not in TAILS:
        raise ConfigError(f"--tail: expected {' or '.join(TAILS)}, found {options.tail}")
    if config.DataLoader.Train is None:
        raise ConfigError("DataLoader.Train: missing; its images and transforms are those that targets are stored for")


def _header(config: RunConfig, options: WriteOptions, temperature: float, reader: ViewReader) -> dict[str, Any]:
    expected = expect(config, temperature, reader.lists)
    teacher = teacher_of(config)
    for network, member in zip(expected["teacher"], teacher.members or (teacher,), strict=True):
        if network["weights"] is None:
            raise WeightsError(f"Arch.{member.role}.pretrained: {member.pretrained}: no such weights file; expected "
                               "the path of the teacher's .pdparams")
    by_batch = any(network["bn_mode"] == "batch_stats" for network in expected["teacher"])
    block = options.block or block_of(reader.size, config.DataLoader.Train.batch_size if by_batch else 1)
    if reader.size // block > MOST_PARTS:
        raise ConfigError(f"--block {block} makes {reader.size // block:,} part files of {reader.size:,} images; a "
                          f"reader keeps them open, so at most {MOST_PARTS}: leave the choice to the program, or say "
                          "more")
    return complete(expected, config, options.views, options.top_k, options.bits, options.tail, block, amp_of(config))


def _check_same(folder: Path, header: dict[str, Any]) -> None:
    """`record` follows from the other fields, which say what differs."""
    check(read_header(folder), {key: value for key, value in header.items() if key != "record"}, str(folder))


def _prepare(folder: Path, header: dict[str, Any], say: Callable[[str], None]) -> None:
    """Header on disk, and room for what is still to come."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = (folder / HEADER).is_file()
        if not there and part_sizes(folder):
            raise ConfigError(f"{folder}: holds part files without their {HEADER}; choose another --output, or delete "
                              "them")
    except (FileExistsError, NotADirectoryError) as e:
        raise ConfigError(f"{folder}: is a file, or lies below one; --output is to be a folder") from e
    except OSError as e:
        raise CheckpointError(f"{folder}: cannot be made ({e.strerror}); choose another --output") from e
    if there:
        _check_same(folder, header)
    else:
        made_with = {"ppcls_ssld": __version__, "paddle": paddle.__version__, "numpy": np.__version__,
                     "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        text = json.dumps({**header, "notes": NOTES, "made_with": made_with}, indent=1, ensure_ascii=False) + "\n"
        write_atomic(folder / HEADER, text.encode())
    store = TargetStore(folder, partial=True)
    needed, free = sum(map(store.part_bytes, store.missing)), shutil.disk_usage(folder).free
    say(f"{folder}: {store.samples:,} images x {store.views} views x {store.record_bytes} bytes = "
        f"{readable(store.bytes())} in {store.parts:,} parts; {store.parts - len(store.missing):,} are there, "
        f"{readable(needed)} are to be written, {readable(free)} are free")
    if needed > free:
        raise CheckpointError(f"{folder}: {readable(needed)} are needed and {readable(free)} are free; make room, "
                              "choose another --output, or ask for fewer --views, --top-k or --bits")


def _write_parts(views: Views, parts: list[int], stop: StopRequest, rank: int) -> None:
    store = views.store
    total = sum(len(store.rows.part_rows(part)) for part in parts) * store.views
    unreadable = 0
    with tqdm(total=total, desc="targets", unit=" views", disable=rank != 0,
              mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
        for done, part in enumerate(parts):
            content, lost = _part(views, part, stop, bar, f"{done} of {len(parts)} parts written")
            unreadable += lost
            write_part(store.folder, part, content, store.identity)
    if unreadable:
        print(f"process {rank}: {unreadable:,} images could not be read and have no targets; training leaves them out",
              flush=True)


def _part(views: Views, part: int, stop: StopRequest, bar: tqdm, so_far: str) -> tuple[bytes, int]:
    """(content of a part file, number of its images that could not be read)."""
    store, layout = views.store, views.store.layout
    rows, numbers, counts = store.rows.plan(part, views.batch_size)
    first = store.rows.part_rows(part).start
    records = np.zeros(len(store.rows.part_rows(part)) * store.views, layout.dtype)
    checksums = np.zeros(len(store.rows.part_rows(part)), "<u4")
    with Archives() as archives:
        for places, ids, batch, logits in views.answered(rows, numbers):
            if stop:
                raise StoppedBySignal(f"stopped by {stop.signal_name}; {so_far} by this process are kept, start the "
                                      "same command again to go on")
            kept = np.flatnonzero(counts[places])
            local = (rows[places] - first)[kept]
            answers = store.answers.encode(logits[kept], store.temperature)
            addresses = rows[places][kept] * store.views + numbers[places][kept]
            drawn = [batch.drawn[i] for i in kept.tolist()]
            records[local * store.views + numbers[places][kept]] = layout.encode(answers, drawn, addresses)
            for row, sample in zip(local.tolist(), ids[kept].tolist()):
                if not checksums[row]:
                    checksums[row] = zlib.crc32(read_bytes(views.reader.name(sample), archives))
            bar.update(len(kept))
    empty = np.flatnonzero(records["view"]["height"] == 0)
    records[empty] = layout.seal(records[empty], first * store.views + empty)
    return records.tobytes() + checksums.tobytes(), len(empty) // store.views


def _wait(stop: StopRequest) -> None:
    if stop:
        raise StoppedBySignal(f"stopped by {stop.signal_name}; what is written is kept, start the same command again "
                              "to go on")
    time.sleep(0.2)
