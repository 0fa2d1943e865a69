"""Keys (source, index, pass) -> a Batch: read, transform, stack, mix. The same bits in every process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from ..rng import Stream, generator
from ..structs import Batch, Drawn, SparseTargets
from . import files
from .lists import ImageList
from .mix import Mix, mix_batch
from .transforms import Pipeline, TransformError

_PARTNERS = 100  # tries to find a readable partner


class Views(Protocol):
    """Stored views: `targets.TargetStore`, which this room does not import."""

    views: int

    def read(self, sample_ids: np.ndarray, views: np.ndarray) -> np.ndarray: ...
    def targets(self, records: np.ndarray) -> SparseTargets: ...
    def drawn(self, record: Any) -> Drawn | None: ...


class Assembler:
    """Makes the batches of one reader.

    raw: leave normalisation to the device where the transforms and the mix allow it; batches are uint8 then.
    record: give each image its own mixing partner, from all sources, and fill Batch.drawn. stored: instead of drawing, do
    what was recorded for view `pass % views`, and fill Batch.targets.
    image_shape: of one image in a batch, (3, H, W) or raw (H, W, 3), once there was one; all others must have it.
    label_type: of its label, see Batch.
    on_corrupt: 'stop' raises DataError for an image that cannot be read, 'skip' leaves it out of its batch.
    """

    def __init__(self, lists: Sequence[ImageList], pipeline: Pipeline, mix: Mix | None, seed: int, on_corrupt: str,
                 where: str, raw: bool = False, record: bool = False, stored: Views | None = None):
        self.lists, self.pipeline, self.mix, self.seed = lists, pipeline, mix, seed
        self.skip_corrupt, self.where, self.record, self.stored = on_corrupt == "skip", where, record, stored
        self.may_be_empty = False  # for evaluation, where a batch of corrupt images only is no reason to stop
        raw = raw and not (mix and mix.makes_floats)
        self.normalization = pipeline.raw if raw else None
        self.dtype = np.float32 if self.normalization is None else np.uint8
        self.image_shape: tuple[int, int, int] | None = None
        shape = lists[0].labels.shape[1:]
        self.label_type = np.dtype((np.int8, shape)) if shape else np.dtype(np.int64)  # of one image
        self._archives = files.Archives()
        self._last_read = ("", b"")  # views of one image that follow each other read it once
        self._offsets = np.concatenate([[0], np.cumsum([len(images) for images in lists])])

    def place(self, sample_id: int) -> tuple[int, int]:
        """(source, index) of a sample."""
        source = int(np.searchsorted(self._offsets, sample_id, side="right")) - 1
        return source, int(sample_id - self._offsets[source])

    def learn_shape(self, keys: np.ndarray) -> None:
        """Set image_shape from the first readable image; workers need it before they share memory."""
        for key in keys:
            if self.image_shape is None:
                self.assemble(key[None], may_be_empty=True)

    def assemble(self, keys: np.ndarray, out: np.ndarray | None = None, may_be_empty: bool | None = None) -> Batch:
        """Batch of int64 [N, 3] keys, without the images that were skipped.

        out: [>= N, *image_shape] of `dtype`, receives the images. DataError when none is left, or sizes differ.
        """
        records = self._records(keys)
        skipped: list[str] = []
        kept, drawn, partners, shares = [], [], [], []
        # All of them before the first image: each takes several times as long once a decoder has emptied the caches.
        todo = [(key, self._path(key), self._rng(key, Stream.AUGMENT) if records is None else None)
                for key in keys.tolist()]
        for row, (key, path, rng) in enumerate(todo):
            place = out[len(kept)] if out is not None and self.dtype is np.uint8 else None
            view = self._view(key, path, rng, None if records is None else records[row], place, skipped)
            if view is None:
                continue
            image, what, share = view
            if out is None:
                out = np.empty((len(keys), *self.image_shape), self.dtype)
            if image is not place:
                out[len(kept)] = image
            kept.append(row)
            drawn.append(what)
            partners.append(what.partner)
            shares.append(share)
        if not kept:
            return self._empty(len(keys), skipped, self.may_be_empty if may_be_empty is None else may_be_empty)
        sources, indices = keys[kept, 0], keys[kept, 1]
        sample_ids = self._offsets[sources] + indices
        labels = self._labels(sources, indices)
        partner_labels, partners = labels.copy(), np.array(partners)
        for row in np.flatnonzero(partners >= 0):
            source, index = self.place(partners[row])
            partner_labels[row] = self.lists[source].labels[index]
        batch = Batch(out[:len(kept)], labels, sample_ids, sources.copy(), partner_labels,
                      np.array(shares, np.float32), tuple(skipped), self.normalization,
                      None if records is None else self.stored.targets(records[kept]),
                      tuple(drawn) if self.record else ())
        if self.mix is None or self.record or self.stored is not None:
            return batch
        mixed = mix_batch(self.mix, batch, self._rng(keys[0].tolist(), Stream.MIX))
        out[:len(kept)] = mixed.images
        return replace(mixed, images=out[:len(kept)])

    def _records(self, keys: np.ndarray) -> np.ndarray | None:
        if self.stored is None:
            return None
        return self.stored.read(self._offsets[keys[:, 0]] + keys[:, 1], keys[:, 2] % self.stored.views)

    def _view(self, key: list[int], path: str, rng: np.random.Generator | None, record: Any, out: np.ndarray | None,
              skipped: list[str]) -> tuple[np.ndarray, Drawn, float] | None:
        """(image, what was drawn, its share in the mix) of one key; None when it is skipped."""
        try:
            if record is not None:
                return self._replayed(path, record, out, skipped)
            image, drawn = self._opened(path, rng, out)
            self._check_shape(image, path)
            if not self.record or self.mix is None:
                return image, drawn, 1.0
            return self._mixed(key, image, drawn)
        except TransformError:
            raise
        except DataError as e:
            if not self.skip_corrupt:
                raise DataError(f"{e}, or set on_corrupt: skip") from e
            skipped.append(path)
            return None

    def _opened(self, path: str, rng: np.random.Generator,
                out: np.ndarray | None = None) -> tuple[np.ndarray, Drawn]:
        return self.pipeline.from_bytes(self._read(path), path, rng, self.dtype is np.uint8, out)

    def _mixed(self, key: list[int], image: np.ndarray, drawn: Drawn) -> tuple[np.ndarray, Drawn, float]:
        """The image with a partner of its own, recorded; the partner may be any image of any source."""
        rng = self._rng(key, Stream.PARTNER)
        mix = self.mix.draw(rng, *self._height_and_width())
        if mix is None:
            return image, drawn, 1.0
        for _ in range(_PARTNERS):
            partner = int(rng.integers(self._offsets[-1]))
            try:
                other, theirs = self._opened(self._path(self.place(partner)), rng)
                break
            except TransformError:
                raise
            except DataError:
                if not self.skip_corrupt:
                    raise
        else:
            raise DataError(f"{self._path(key)}: none of {_PARTNERS} partners to mix it with can be read; is the root "
                            "folder right?")
        self._check_shape(other, self._path(self.place(partner)))
        drawn = replace(drawn, partner=partner, partner_transforms=theirs.transforms, partner_size=theirs.size, mix=mix)
        return self._blended(image, other, drawn)

    def _replayed(self, path: str, record: Any, out: np.ndarray | None,
                  skipped: list[str]) -> tuple[np.ndarray, Drawn, float] | None:
        drawn = self.stored.drawn(record)
        if drawn is None:
            raise DataError(f"{path}: has no targets, as it could not be read when they were written; write them again")
        raw = self.dtype is np.uint8
        image = self.pipeline.replay_bytes(self._read(path), path, drawn, raw, out)
        self._check_shape(image, path)
        if drawn.partner < 0:
            return image, drawn, 1.0
        path = self._path(self.place(drawn.partner))
        try:
            other = self.pipeline.replay_bytes(self._read(path), path,
                                               Drawn(drawn.partner_transforms, drawn.partner_size), raw)
        except TransformError:
            raise
        except DataError:
            if not self.skip_corrupt:
                raise
            skipped.append(path)  # it is the partner that cannot be read
            return None
        self._check_shape(other, path)
        return self._blended(image, other, drawn)

    def _blended(self, image: np.ndarray, other: np.ndarray, drawn: Drawn) -> tuple[np.ndarray, Drawn, float]:
        images, share = self.mix.blend(image[None], other[None], drawn.mix)
        return images[0], drawn, float(share)

    def _check_shape(self, image: np.ndarray, path: str) -> None:
        self.image_shape = self.image_shape or image.shape
        if image.shape != self.image_shape:
            sides = (1, 0) if self.dtype is np.uint8 else (2, 1)
            found, expected = (f"{shape[sides[0]]}x{shape[sides[1]]}" for shape in (image.shape, self.image_shape))
            raise TransformError(
                f"{path}: comes out of {self.where}.transform_ops with {found} pixels, the first image with {expected}, "
                "and a batch has one size; add RandCropImage, CropImage, or ResizeImage with `size` (`resize_short` "
                "alone keeps the aspect ratio)")

    def _height_and_width(self) -> tuple[int, int]:
        return self.image_shape[:2] if self.dtype is np.uint8 else self.image_shape[1:]

    def _empty(self, count: int, skipped: list[str], allowed: bool) -> Batch:
        if not allowed:
            raise DataError(f"{self.where}: none of the {count} images of a batch can be read, {skipped[0]} first; "
                            "is the root folder right?")
        labels, ids = np.zeros(0, self.label_type), np.zeros(0, np.int64)
        return Batch(np.zeros((0, 3, 1, 1), np.float32), labels, ids, ids, labels, np.zeros(0, np.float32),
                     tuple(skipped))

    def _read(self, path: str) -> bytes:
        if path != self._last_read[0]:
            # The file and the image before go first, so that this one gets their memory while caches still hold it.
            self._last_read = ("", b"")
            self.pipeline.forget()
            self._last_read = (path, files.read_bytes(path, self._archives))
        return self._last_read[1]

    def _path(self, key: Sequence[int]) -> str:
        return self.lists[key[0]].path(key[1])

    def _labels(self, sources: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return np.array([self.lists[s].labels[i] for s, i in zip(sources.tolist(), indices.tolist())],
                        self.label_type.base)

    def _rng(self, key: Sequence[int], stream: Stream) -> np.random.Generator:
        source, index, pass_ = key
        return generator(self.seed, pass_, int(self._offsets[source]) + index, stream)
