"""The output folder of a mining run, as one of its processes sees it: listings, blocks, progress, the clock.

    DIR/config.yaml  listing/  protected/  dedup/part-*.parquet  within.npz  score/part-*.parquet
        thresholds.json  false_alarms.json  seconds.json  and what `choose` and `results` write
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import parallel
from ..atomic import write_atomic
from ..config.mine import MineConfig, PoolSource, dump_mine
from ..errors import CheckpointError, ConfigError
from .blocks import Blocks, Stoppable, share, stream
from .listing import Listing, write_listing
from .outputs import write_json

ALGORITHM = 2  # raised when the same settings would give other evidence


class Workspace:
    """pool, protected: listings; protected is None when nothing is protected. about: by listing, its counts and digest.

    blocks: of the pool. workers: processes beside this one that read and compare images; all_workers: the same while
    the other ranks of this machine wait. say: prints, on rank 0 only. stop: looked at between tasks and while waiting.

    Ranks meet in files: what rank 0 alone makes, the others wait for (`wait`). Barriers would time out meanwhile.
    """

    def __init__(self, config: MineConfig, say: Callable[[str], None], stop: Stoppable, dry_run: bool = False):
        self.config, self.folder, self.stop, self.dry_run = config, Path(config.output_dir), stop, dry_run
        self.rank, self.world = parallel.rank(), parallel.world_size()
        self.say = say if self.rank == 0 else lambda text: None
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers, self.all_workers = cores // self.world, cores
        if config.num_workers is not None:
            self.workers = config.num_workers
            self.all_workers = max(config.num_workers, self.world if self.world > 1 else 0)
        # One helper beside an idle process gains nothing.
        self.workers, self.all_workers = (0 if n == 1 else n for n in (self.workers, self.all_workers))
        if self.rank == 0:
            self._prepare()
        self.wait(lambda: all(self._is_listed(name, sources) for name, sources in self._sources()))
        self.about = {name: read_json(self._listing(name, ".json")) for name in ("pool", "protected")}
        self.pool = Listing.open(self._listing("pool", ".arrow"))
        self.protected = Listing.open(self._listing("protected", ".arrow")) if config.protect else None
        self.blocks = Blocks(len(self.pool), config.block_size)

    def _prepare(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise CheckpointError(f"{self.folder}: cannot be made ({e.strerror}); choose another --output") from e
        with self.clock("list"):
            for name, sources in self._sources():
                self.list_images(name, sources)

    def _sources(self) -> tuple[tuple[str, Sequence[PoolSource]], ...]:
        return ("pool", self.config.pool), ("protected", self.config.protect)

    def _is_listed(self, name: str, sources: Sequence[PoolSource]) -> bool:
        about = self._listing(name, ".json")
        return about.is_file() and read_json(about)["asked"] == _asked(sources)

    def keep_config(self) -> None:
        """Write DIR/config.yaml, from which a later stage takes its settings. Called once they are known to fit what is
        in DIR: a refused setting must not stay there."""
        if self.rank == 0:
            write_atomic(self.folder / "config.yaml", dump_mine(self.config))

    def list_images(self, name: str, sources: Sequence[PoolSource]) -> Listing | None:
        """Write DIR/listing/NAME.arrow and NAME.json, unless they are there for the same sources.

        None without sources. ConfigError when results over other sources are there.
        """
        target, about = self._listing(name, ".arrow"), self._listing(name, ".json")
        if self._is_listed(name, sources):
            self.say(f"{name}: {read_json(about)['count']:,} images, listed before" if sources else f"{name}: none")
        else:
            if about.is_file() and any((self.folder / "dedup").glob("part-*")):
                raise ConfigError(f"{self.folder}: holds results over other images ({name}: "
                                  f"{', '.join(path for path, _ in read_json(about)['asked']) or 'none'}); choose "
                                  "another --output, or delete that folder")
            report = write_listing(sources, target) if sources else None
            write_json(about, {
                "asked": _asked(sources), "digest": Listing.open(target).digest() if report else "",
                "count": report.count if report else 0, "duplicates": report.duplicates if report else 0,
                "sources": {s.path: s.images for s in report.sources} if report else {},
                "unlistable": [list(pair) for pair in report.unlistable] if report else []})
            self.say(f"{name}: none" if not report else f"{name}: {report.count:,} images"
                     + (f", {report.duplicates:,} more lines or sources name one of them" if report.duplicates else "")
                     + (f", {len(report.unlistable):,} cannot be listed (quarantine.csv)" if report.unlistable else ""))
        return Listing.open(target) if sources else None

    def _listing(self, name: str, suffix: str) -> Path:
        return self.folder / "listing" / (name + suffix)

    def names(self, listing: Listing, positions: range) -> list[str]:
        return listing.names(positions.start, positions.stop)

    def mine(self, todo: Sequence[int]) -> list[int]:
        """This process's share of the blocks still to do."""
        return share(todo, self.rank, self.world)

    def by_block(self, work: Callable[[Any], Any], blocks: Sequence[int],
                 tasks: Iterable[list[Any]]) -> Iterator[tuple[int, list[Any]]]:
        """(block, results of its tasks) as blocks are finished; tasks: of each block, in the blocks' order."""
        sizes: list[int] = []

        def flat() -> Iterator[Any]:
            for of_block in tasks:
                sizes.append(len(of_block))
                yield from of_block

        results = stream(work, flat(), self.workers, self.stop.check)
        for k, block in enumerate(blocks):
            made: list[Any] = []
            while len(sizes) <= k or len(made) < sizes[k]:
                made.append(next(results))
            yield block, made

    def bar(self, text: str, blocks: Blocks, mine: Sequence[int]) -> tqdm:
        """Progress over the images of this process's blocks, shown by the first process."""
        images = sum(len(blocks.range(block)) for block in mine)
        return tqdm(total=images, desc=text, unit=" images", disable=self.rank != 0 or images == 0,
                    mininterval=0.5 if sys.stderr.isatty() else 30)

    def wait(self, ready: Callable[[], bool]) -> None:
        """Until other ranks have written what this one needs. A single process does not wait."""
        self.stop.check()
        while self.world > 1 and not ready():
            self.stop.check()
            time.sleep(0.5)

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Adds the seconds of its block to a stage in DIR/seconds.json; interrupted runs add up. Rank 0 only."""
        began = time.monotonic()
        try:
            yield
        finally:
            if self.rank == 0 and self.folder.is_dir() and not self.dry_run:
                file = self.folder / "seconds.json"
                seconds = read_json(file) if file.is_file() else {}
                seconds[stage] = round(seconds.get(stage, 0.0) + time.monotonic() - began, 3)
                write_json(file, seconds)


def _asked(sources: Sequence[PoolSource]) -> list[list[str]]:
    """What a listing is made from; the order of sources does not matter."""
    return sorted([os.path.abspath(source.path), os.path.abspath(source.root) if source.root else ""]
                  for source in sources)


def read_json(path: Path) -> dict[str, Any]:
    """ConfigError when it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: cannot be read ({e}); run `mine` with the same --output again from its first "
                          "stage") from e


def digest_of(settings: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()
