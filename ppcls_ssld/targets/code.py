"""What decoder, transforms and mix make of test images, as one hash, which changes when the pixels do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from ..config.schema import LoaderConfig
from ..data import pixels, reduced
from ..data.mix import build_mix
from ..data.transforms import Pipeline, build_transforms
from ..errors import DataError
from ..rng import Stream, generator
from .picture import JPEG

_SIZES = ((300, 260), (600, 480), (48, 40), (32, 32), (28, 28))  # of made-up images; the first that fits is taken
_VIEWS = 6
_REDUCED_TO = ((32, 28), (70, 60), (140, 120))  # from the whole JPEG: 1/8, 1/4, 1/2 of it


def code_digest(loader: LoaderConfig) -> str | None:
    """Hash for one loader; None when neither the JPEG nor a made-up image fits its transforms."""
    pipeline = build_transforms(loader.transform_ops, "DataLoader.Train.transform_ops")
    mix = build_mix(loader.batch_transform_ops, "DataLoader.Train.batch_transform_ops")
    decoded = _views(lambda i: pipeline.from_bytes(JPEG, "test image", _rng(i))[0])
    made_up = (_views(lambda i, size=size: pipeline.record(_made_up(*size, i), _rng(i))[0]) for size in _SIZES)
    found = [views for views in (decoded, next(filter(None, made_up), None)) if views]
    if not found:
        return None
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(pixels.decode(JPEG, "test image")))
    _reduced(pipeline, digest)
    for views in found:
        for i, image in enumerate(views):
            digest.update(np.ascontiguousarray(image))
            drawn = mix and mix.draw(generator(i, 0, 0, Stream.PARTNER), *image.shape[1:])
            if drawn is not None and image.shape == views[0].shape:
                digest.update(np.ascontiguousarray(mix.blend(image[None], views[0][None], drawn)[0]))
    return digest.hexdigest()


def _views(source: Callable[[int], np.ndarray]) -> list[np.ndarray] | None:
    """None where a crop is larger than the image, or a padding smaller."""
    try:
        return [source(i) for i in range(_VIEWS)]
    except DataError:
        return None


def _reduced(pipeline: Pipeline, digest: hashlib.blake2b) -> None:
    """A list that decodes at a fraction of the size: each fraction, which the JPEG is too small to show otherwise."""
    if not any(getattr(transform, "reduced", False) for transform in pipeline.transforms):
        return
    crop, header = pipeline.transforms[1], reduced.jpeg_header(JPEG)
    box = (3, 5, header.width - 4, header.height - 6)
    for interpolation in crop.filters:
        for size in _REDUCED_TO:
            part = reduced.crop_and_resize(JPEG, "test image", header, box, size, interpolation, crop.backend)
            digest.update(np.ascontiguousarray(part))


def _rng(seed: int) -> np.random.Generator:
    return generator(seed, 0, 0, Stream.AUGMENT)


def _made_up(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 [H, W, 3]: colours that run across, and noise."""
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([255 * y // height, 255 * x // width, (y + x) % 256], axis=2)
    noise = generator(seed, 0, 0, Stream.SUBSET).integers(0, 64, ramps.shape)
    return np.minimum(ramps + noise, 255).astype(np.uint8)
