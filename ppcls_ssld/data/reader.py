"""The mixed reader of training, and the reader of evaluation: a LoaderConfig -> batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from ..config.schema import LoaderConfig
from ..errors import ConfigError
from ..registry import nearest
from ..rng import Stream, generator
from ..structs import Batch
from .assemble import Assembler, Views
from .label_vectors import known_counts, yes_share
from .lists import ImageList, read_source
from .mix import build_mix
from .sampler import TrainSampler, eval_indices
from .transforms import build_transforms
from .workers import read_ahead


class TrainReader:
    """Micro-batches of one rank, for ever; batch m is the same whenever, and with however many workers, it is read.

    Images are uint8, to be normalised on the device, unless transforms or Mixup make floats of them.
    multilabel: an image has class_num labels, see Batch. known: int64 [2, class_num], images whose label is known to be
    no, and yes; yes_share: float32 [class_num], the share of yes among them. Both None without multilabel.
    stored: views and a teacher's answers to use instead of drawing. lists: of the sources, in the config's order. sizes:
    their lengths. skipped: path -> times, of the corrupt images that this process left out (on_corrupt: skip); the batch
    is smaller by them, nothing takes their place.
    """

    def __init__(self, config: LoaderConfig, class_num: int, seed: int, rank: int = 0, world: int = 1,
                 where: str = "DataLoader.Train", stored: Views | None = None, multilabel: bool = False):
        self._config, self._where, self._world = config, where, world
        self.lists, self._assembler = _open(config, class_num, seed, where, stored=stored, multilabel=multilabel)
        self.known = known_counts(images.labels for images in self.lists) if multilabel else None
        self.yes_share = yes_share(self.known) if multilabel else None
        self.sizes = tuple(len(images) for images in self.lists)
        self.skipped: Counter[str] = Counter()
        names, ratios = [s.name for s in config.sources], [s.ratio for s in config.sources]
        if any(ratio is None for ratio in ratios) and any(ratio is not None for ratio in ratios):
            raise ConfigError(f"{where}: expected a ratio for every source or for none, "
                              f"found {dict(zip(names, ratios))}")
        if config.epoch_of is not None and config.epoch_of not in names:
            raise ConfigError(f"{where}.epoch_of: no source '{config.epoch_of}'{nearest(config.epoch_of, names)}")
        self._ratios = None if ratios[0] is None else ratios
        epoch_of = None if config.epoch_of is None else names.index(config.epoch_of)
        self._sampler = TrainSampler(self.sizes, self._ratios, config.batch_size, seed, rank, world, config.shuffle,
                                     epoch_of, config.drop_last, [images.weights for images in self.lists])
        self.batches_per_epoch = self._sampler.batches_per_epoch

    def describe(self) -> str:
        """Sources, counts, labels and shares, one line each."""
        config, total = self._config, sum(self.sizes)
        visits = [n if images.weights is None else images.weights.sum(dtype=np.float64)
                  for n, images in zip(self.sizes, self.lists)]
        processes = f" on each of {self._world} processes" if self._world > 1 else ""
        lines = [f"{self._where}: {total:,} images, batches of {config.batch_size}{processes}, "
                 f"{self.batches_per_epoch:,} an epoch"]
        for i, (source, n) in enumerate(zip(config.sources, self.sizes)):
            share = self._ratios[i] if self._ratios else visits[i] / sum(visits)
            weighted = f", {visits[i]:,.6g} visits a pass by {source.weights}" if source.weights else ""
            lines.append(f"  {source.name}: {n:,} images {'with' if source.labelled else 'without'} labels, "
                         f"{share * config.batch_size:.4g} of a batch ({share:.1%}), "
                         f"from {source.list or source.folder}{weighted}")
        return "\n".join(lines)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Micro-batches first .. last-1. DataError for a corrupt image (on_corrupt: stop) or an unequal size."""
        yield from _counted(_read(self._assembler, self._sampler.batch, first, last, self._config), self.skipped)


class EvalReader:
    """Labelled images, each exactly once over all ranks, in order.

    limit: at most so many images, evenly spaced over all sources, in a fixed random order. size: images over all
    ranks. skipped, multilabel: as in TrainReader. class_names: of a labelled folder, else (). known: int64
    [2, class_num], images over all ranks whose label is known to be no, and yes; yes_share: from these. Both
    None without multilabel.
    """

    def __init__(self, config: LoaderConfig, class_num: int, rank: int = 0, world: int = 1, limit: int | None = None,
                 where: str = "DataLoader.Eval", multilabel: bool = False):
        unlabelled = [source.name for source in config.sources if not source.labelled]
        if unlabelled:
            raise ConfigError(f"{where}: source '{unlabelled[0]}' has no labels, and accuracy needs them; leave it out")
        weighted = [source.name for source in config.sources if source.weights is not None]
        if weighted:
            raise ConfigError(f"{where}: source '{weighted[0]}' has weights, and evaluation counts every image once; "
                              "leave them out")
        self._config = config
        lists, self._assembler = _open(config, class_num, 0, where, multilabel=multilabel)
        self._assembler.may_be_empty = True
        self.class_names = lists[0].class_names
        self.skipped: Counter[str] = Counter()
        keys = np.concatenate([np.stack([np.full(n, source), np.arange(n), np.zeros(n, np.int64)], axis=1)
                               for source, n in enumerate(map(len, lists))])
        if limit is not None:
            limit = min(limit, len(keys))
            keys = keys[np.arange(limit) * len(keys) // limit]
            # Lists are often sorted by class; a network that normalises by the batch must not see one class at a time.
            keys = keys[generator(0, 0, 0, Stream.SUBSET).permutation(limit)]
        self.size = len(keys)
        self.known = self.yes_share = None
        if multilabel:
            self.known = known_counts(images.labels[keys[keys[:, 0] == i, 1]] for i, images in enumerate(lists))
            self.yes_share = yes_share(self.known)
        self._keys = keys[eval_indices(len(keys), rank, world)]

    def batches(self) -> Iterator[Batch]:
        """All batches of this rank; the last one may be smaller."""
        size = self._config.batch_size
        yield from _counted(_read(self._assembler, lambda m: self._keys[m * size:(m + 1) * size], 0,
                                  -(-len(self._keys) // size), self._config), self.skipped)


class ViewReader:
    """Views that are asked for by number, with all that chance decided about them: what targets are written from.

    View v of an image is what a TrainReader with this seed makes of it in pass v; only a Mixup/Cutmix partner is the
    view's own and may be any image. sizes: images per source. size: of all; sample ids are 0 .. size-1.
    """

    def __init__(self, config: LoaderConfig, class_num: int, seed: int, where: str = "DataLoader.Train",
                 stored: Views | None = None, multilabel: bool = False):
        self._config = config
        self.lists, self._assembler = _open(config, class_num, seed, where, record=stored is None, stored=stored,
                                            multilabel=multilabel)
        self._assembler.may_be_empty = True
        self.sizes = tuple(len(images) for images in self.lists)
        self.size = sum(self.sizes)

    def name(self, sample_id: int) -> str:
        """The image's path, or its name in an archive."""
        source, index = self._assembler.place(sample_id)
        return self.lists[source].path(index)

    def batches(self, sample_ids: np.ndarray, views: np.ndarray, batch_size: int) -> Iterator[Batch]:
        """Batches of the (sample_id, view) pairs, in order, read ahead; corrupt images are missing under `skip`."""
        places = np.array([self._assembler.place(i) for i in sample_ids.tolist()], np.int64).reshape(-1, 2)
        keys = np.concatenate([places, views.reshape(-1, 1)], axis=1)
        yield from _read(self._assembler, lambda m: keys[m * batch_size:(m + 1) * batch_size], 0,
                         -(-len(keys) // batch_size), replace(self._config, batch_size=batch_size))


def _open(config: LoaderConfig, class_num: int, seed: int, where: str, record: bool = False,
          stored: Views | None = None, multilabel: bool = False) -> tuple[list[ImageList], Assembler]:
    if config.on_corrupt not in ("stop", "skip"):
        raise ConfigError(f"{where}.on_corrupt: expected stop or skip, found {config.on_corrupt!r}")
    pipeline = build_transforms(config.transform_ops, f"{where}.transform_ops")
    mix = build_mix(config.batch_transform_ops, f"{where}.batch_transform_ops")
    lists = [read_source(source, class_num, where, multilabel) for source in config.sources]
    return lists, Assembler(lists, pipeline, mix, seed, config.on_corrupt, where, True, record, stored)


def _read(assembler: Assembler, keys_of: Callable[[int], np.ndarray], first: int, last: int,
          config: LoaderConfig) -> Generator[Batch]:
    """Inline without workers, else read ahead. use_shared_memory needs no answer: it is for /dev/shm, unused here."""
    if last > first and config.num_workers > 0:
        assembler.learn_shape(keys_of(first))
    if config.num_workers == 0 or assembler.image_shape is None:
        return (assembler.assemble(keys_of(m)) for m in range(first, last))
    return read_ahead(assembler, keys_of, first, last, config.batch_size, min(config.num_workers, last - first),
                      max(1, config.prefetch_factor))


def _counted(batches: Generator[Batch], skipped: Counter[str]) -> Iterator[Batch]:
    with closing(batches):
        for batch in batches:
            skipped.update(batch.skipped)
            yield batch
