"""Packing from beginning to end: plan, shards, list. Any number of processes and starts end in the same bytes.

    DIR/manifest.json  shard-00000.tar ...  index/
    and, when all is done, list.txt  originals.txt  quarantine.csv  classes.txt

Line i of list.txt, and of originals.txt, is image i of the input, with its label or labels, so weights of images stay
valid. Stored targets do not: names and pixels are others; pack first, then write them for list.txt. An image that
cannot be read keeps its line and its original's name there. With class folders, classes.txt has `id name` a line.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..atomic import write_atomic
from ..data.files import Archives
from ..errors import CheckpointError, ConfigError, DataError
from ..mining.blocks import Blocks, Stoppable, share, stream
from ..mining.outputs import write_csv, write_json
from .encode import Encoding, Packed, pack_image
from .inputs import Inputs
from .shards import Index, names_in, read_index, shard_name, stored_bytes, write_shard

FORMAT = 1  # raised when the same settings would give other bytes
_SAMPLE = 64  # images encoded first, to know how large shards and the whole will be
_TASK = 8  # images handed to a worker at once
_SETTINGS = {"format": "this version of ppcls-ssld packs otherwise", "images": "PATH or what is in it",
             "root": "--root", "short_side": "--short-side", "quality": "--quality", "shard_bytes": "--shard-size",
             "encoder": "the version of OpenCV"}


@dataclass(frozen=True)
class PackConfig:
    """output: folder. shard_bytes: about the size of a shard. workers: processes that encode; 0: this one alone.

    on_corrupt: 'stop', or 'skip', which leaves images that cannot be read where they are.
    """

    output: Path
    encoding: Encoding = Encoding()
    shard_bytes: int = 1 << 30
    workers: int = 0
    on_corrupt: str = "stop"


@dataclass(frozen=True)
class Summary:
    """images: in the list. copied: byte for byte. skipped: not packed. packed_bytes: of all shards."""

    images: int
    copied: int
    skipped: int
    packed_bytes: int


def pack(inputs: Inputs, config: PackConfig, rank: int = 0, world: int = 1,
         say: Callable[[str], None] = print) -> Summary | None:
    """Pack this rank's shards and, on rank 0, write the list when all are there; None on other ranks.

    ConfigError when the folder holds a pack of other images or settings, DataError for an image that cannot be read
    (on_corrupt: stop), CheckpointError when the disk is or gets full, StoppedBySignal; the same call goes on.
    """
    there = next(path for path in (config.output, *config.output.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise ConfigError(f"--output {config.output}: {there} is not a folder; choose another --output")
    with Stoppable() as stop:
        manifest = config.output / "manifest.json"
        settings = _settings(inputs, config)
        if rank == 0 and not manifest.is_file():
            _plan(inputs, config, settings)
        _wait(manifest.is_file, stop)
        plan = json.loads(manifest.read_text(encoding="utf-8"))
        _check_settings(plan["settings"], settings, config.output)
        blocks = Blocks(len(inputs), plan["images_per_shard"])
        todo = [shard for shard in range(len(blocks)) if read_index(config.output, shard) is None]
        if rank == 0:
            _check_disk(plan, blocks, todo, config.output)
            say(f"{len(inputs):,} images, {'with' if inputs.labelled else 'without'} labels, into {len(blocks):,} "
                f"shard(s) of {blocks.size:,}: about {plan['estimated_bytes'] / 2**20:,.0f} MiB below {config.output}"
                + (f"; {len(blocks) - len(todo):,} finished before" if len(todo) < len(blocks) else ""))
        _write_shards(inputs, config, blocks, share(todo, rank, world), stop, show=rank == 0)
        if rank != 0:
            return None
        indexes = [_wait(lambda shard=shard: read_index(config.output, shard), stop) for shard in range(len(blocks))]
        return _finish(inputs, config, plan, blocks, indexes)


def _settings(inputs: Inputs, config: PackConfig) -> dict[str, Any]:
    """What shards depend on; two runs into one folder must agree in it."""
    return {"format": FORMAT, "images": inputs.digest, "root": inputs.images.root, "short_side":
            config.encoding.short_side, "quality": config.encoding.quality, "shard_bytes": config.shard_bytes,
            "encoder": config.encoding.encoder}


def _check_settings(found: dict[str, Any], expected: dict[str, Any], output: Path) -> None:
    for key, what in _SETTINGS.items():
        if found.get(key) != expected[key]:
            raise ConfigError(f"{output}: holds a pack made with other settings ({what}: {found.get(key)}, now "
                              f"{expected[key]}); give the same, choose another --output, or delete that folder")


def _plan(inputs: Inputs, config: PackConfig, settings: dict[str, Any]) -> None:
    """Write the manifest: how many images a shard has follows from a sample, so that every process can work alone."""
    if config.output.is_dir() and any(p for p in config.output.iterdir() if not p.name.startswith(".")):
        raise ConfigError(f"{config.output}: is not empty and holds no pack to go on with; choose another --output")
    sizes = []
    with Archives() as archives:
        for index in np.unique(np.linspace(0, len(inputs) - 1, _SAMPLE).round().astype(int)):
            packed = pack_image(inputs.name(int(index)), archives, config.encoding)
            _check_readable(inputs.name(int(index)), packed, config)
            sizes += [] if packed.reason else [stored_bytes(len(packed.data))]
    if not sizes:
        raise DataError(f"{inputs.name(0)}: neither this image nor any other of a sample can be read; is the root "
                        "folder right?")
    mean = sum(sizes) / len(sizes)
    write_json(config.output / "manifest.json", {
        "what": "images packed by ppcls-ssld pack", "version": __version__, "complete": False, "settings": settings,
        "count": len(inputs), "images_per_shard": max(1, round(config.shard_bytes / mean)),
        "estimated_bytes": round(mean * len(inputs))})


def _check_readable(name: str, packed: Packed, config: PackConfig) -> None:
    if packed.reason and config.on_corrupt == "stop":
        raise DataError(f"{name}: {packed.reason}; or give --on-corrupt skip, which keeps its line in the list")


def _check_disk(plan: dict[str, Any], blocks: Blocks, todo: list[int], output: Path) -> None:
    needed = plan["estimated_bytes"] * sum(len(blocks.range(s)) for s in todo) / max(1, blocks.count)
    free = shutil.disk_usage(output).free
    if needed > free:
        raise CheckpointError(f"{output}: about {needed / 2**20:,.0f} MiB are needed, {free / 2**20:,.0f} MiB are "
                              "free; free some space, choose another --output, or lower --short-side or --quality")


def _write_shards(inputs: Inputs, config: PackConfig, blocks: Blocks, shards: list[int], stop: Stoppable,
                  show: bool) -> None:
    archives = Archives()

    def work(task: range) -> list[Packed]:
        return [pack_image(inputs.name(index), archives, config.encoding) for index in task]

    tasks = [range(first, min(first + _TASK, of.stop)) for of in map(blocks.range, shards)
             for first in range(of.start, of.stop, _TASK)]
    results = stream(work, tasks, config.workers, stop.check)
    count = sum(len(blocks.range(shard)) for shard in shards)
    with tqdm(total=count, desc="pack", unit=" images", disable=not show or not count, mininterval=1) as bar:

        def images(of: range) -> Iterator[Packed]:
            index = of.start
            while index < of.stop:
                for packed in next(results):
                    _check_readable(inputs.name(index), packed, config)
                    yield packed
                    index += 1
                    bar.update()

        try:
            for shard in shards:
                of = blocks.range(shard)
                write_shard(config.output, shard, of.start, images(of))
        except DataError as e:
            if isinstance(e.__cause__, BrokenProcessPool):
                raise DataError("a worker process died (often: out of memory); finished shards are kept; start again "
                                "with fewer --workers, or with 0 to see the error itself") from e
            raise
        finally:
            results.close()
            archives.close()


def _wait(ready: Callable[[], Any], stop: Stoppable) -> Any:
    """What `ready` returns once it is there: other ranks are at work on it."""
    while (found := ready()) in (None, False):
        stop.check()
        time.sleep(0.2)
    return found


def _finish(inputs: Inputs, config: PackConfig, plan: dict[str, Any], blocks: Blocks, indexes: list[Index]) -> Summary:
    folder = config.output
    originals = [inputs.name(i) for i in range(len(inputs))]
    names: list[str] = []
    skipped = [("", name, reason) for name, reason in inputs.unlistable]
    for shard, index in enumerate(indexes):
        first = blocks.range(shard).start
        names += [name or originals[first + k] for k, name in enumerate(names_in(shard, first, index))]
        skipped += [(first + k, originals[first + k], reason) for k, reason in sorted(index.reasons.items())]
    labels = inputs.images.labels
    if labels.ndim > 1:
        ends = ["\t" + ",".join(map(str, row)) + "\n" for row in labels.tolist()]
    else:
        ends = [f" {label}\n" for label in labels.tolist()] if inputs.labelled else ["\n"] * len(names)
    write_atomic(folder / "list.txt", "".join(name + end for name, end in zip(names, ends)))
    write_atomic(folder / "originals.txt", "".join(f"{name}\n" for name in originals))
    if inputs.images.class_names:
        lines = (f"{i} {name}\n" for i, name in enumerate(inputs.images.class_names))
        write_atomic(folder / "classes.txt", "".join(lines))
    write_csv(folder / "quarantine.csv", ("line", "original", "reason"),
              [(line + 1 if line != "" else "", name, reason) for line, name, reason in skipped])
    summary = Summary(len(inputs), sum(i.copied for i in indexes), len(skipped) - len(inputs.unlistable),
                      sum(i.tar_bytes for i in indexes))
    write_json(folder / "manifest.json", plan | {
        "complete": True, "labelled": inputs.labelled, "copied": summary.copied, "skipped": summary.skipped,
        "bytes": summary.packed_bytes, "shards": [shard_name(shard) for shard in range(len(indexes))]})
    return summary
