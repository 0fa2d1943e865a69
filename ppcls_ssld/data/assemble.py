"""Keys (source, index, pass) -> a Batch: read, transform, stack, mix. The same bits in every process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..rng import Stream, generator
from ..structs import Batch
from . import files, pixels
from .lists import ImageList
from .mix import Cutmix, Mixup, OpSampler
from .transforms import Pipeline


class Assembler:
    """Makes the batches of one reader.

    image_shape: (3, H, W) of the reader's first image, once there was one; all others must have it.
    on_corrupt: 'stop' raises DataError for an image that cannot be read, 'skip' leaves it out of its batch.
    """

    def __init__(self, lists: Sequence[ImageList], pipeline: Pipeline, mix: Mixup | Cutmix | OpSampler | None,
                 seed: int, on_corrupt: str, where: str):
        self.lists, self.pipeline, self.mix, self.seed = lists, pipeline, mix, seed
        self.skip_corrupt, self.where = on_corrupt == "skip", where
        self.may_be_empty = False  # for evaluation, where a batch of corrupt images only is no reason to stop
        self.image_shape: tuple[int, int, int] | None = None
        self._archives = files.Archives()
        self._offsets = np.concatenate([[0], np.cumsum([len(images) for images in lists])])

    def learn_shape(self, keys: np.ndarray) -> None:
        """Set image_shape from the first readable image; workers need it before they share memory."""
        for key in keys:
            if self.image_shape is None:
                self._image(key, [])

    def assemble(self, keys: np.ndarray, out: np.ndarray | None = None) -> Batch:
        """Batch of int64 [N, 3] keys, without the images that were skipped.

        out: float32 [>= N, 3, H, W] that receives the images. DataError when none is left, or sizes differ.
        """
        skipped: list[str] = []
        kept = []
        for row, key in enumerate(keys):
            image = self._image(key, skipped)
            if image is None:
                continue
            if out is None:
                out = np.empty((len(keys), *self.image_shape), np.float32)
            out[len(kept)] = image
            kept.append(row)
        if not kept and self.may_be_empty:
            return Batch(np.zeros((0, 3, 1, 1), np.float32), *np.zeros((4, 0), np.int64), np.zeros(0, np.float32),
                         tuple(skipped))
        if not kept:
            raise DataError(f"{self.where}: none of the {len(keys)} images of a batch can be read, {skipped[0]} first; "
                            "is the root folder right?")
        sources, indices = keys[kept, 0], keys[kept, 1]
        labels = np.array([self.lists[s].labels[i] for s, i in zip(sources, indices)], np.int64)
        batch = Batch(out[:len(kept)], labels, self._offsets[sources] + indices, sources.copy(), labels.copy(),
                      np.ones(len(kept), np.float32), tuple(skipped))
        if self.mix is None:
            return batch
        source, index, pass_ = keys[0].tolist()
        rng = generator(self.seed, pass_, int(self._offsets[source]) + index, Stream.MIX)
        mixed = self.mix.apply(batch, self.mix.draw(rng, len(batch), *self.image_shape[1:]))
        out[:len(kept)] = mixed.images
        return mixed

    def _image(self, key: np.ndarray, skipped: list[str]) -> np.ndarray | None:
        """float32 [3, H, W] of one key; None, with its path in `skipped`, when it cannot be read and need not be."""
        source, index, pass_ = key.tolist()
        path = self.lists[source].path(index)
        try:
            image = pixels.decode(files.read_bytes(path, self._archives), path)
        except DataError as e:
            if not self.skip_corrupt:
                raise DataError(f"{e}, or set on_corrupt: skip") from e
            skipped.append(path)
            return None
        try:
            rng = generator(self.seed, pass_, int(self._offsets[source]) + index, Stream.AUGMENT)
            image = self.pipeline(image, rng)
        except DataError as e:
            raise DataError(f"{path}: {e} ({self.where}.transform_ops)") from e
        self.image_shape = self.image_shape or image.shape
        if image.shape != self.image_shape:
            found, expected = ("{2}x{1}".format(*shape) for shape in (image.shape, self.image_shape))
            raise DataError(f"{path}: comes out of {self.where}.transform_ops with {found} pixels, the first image "
                            f"with {expected}, and a batch has one size; add RandCropImage, CropImage, or ResizeImage "
                            "with `size` (`resize_short` alone keeps the aspect ratio)")
        return image
