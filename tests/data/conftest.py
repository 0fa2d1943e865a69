"""Small images on disk, made here: a numbered set with lists, and the ugly ones."""

import io
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls_ssld.config.schema import LoaderConfig, SourceConfig

NORMALIZE = {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "order": ""}}


def pattern(height=40, width=56):
    """uint8 [H, W, 3] that golden numbers were taken on: an integer formula, the same everywhere."""
    y, x, c = np.mgrid[:height, :width, :3]
    return ((y * 7 + x * 13 + c * 50 + (x * y) % 31) % 256).astype(np.uint8)


def encoded(image, kind="JPEG", **options):
    """Bytes of a file that Pillow writes."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def image():
    return pattern()


@pytest.fixture
def encode():
    return encoded


@pytest.fixture
def photos(tmp_path):
    """30 JPEGs 44 x 36 of one colour each, the colour telling its number, and list.txt with number % 5 as label."""
    lines = []
    for i in range(30):
        color = np.full((36, 44, 3), (i * 8, 255 - i * 8, 128), np.uint8)
        cv2.imwrite(str(tmp_path / f"{i:02d}.jpg"), color[:, :, ::-1])
        lines.append(f"{i:02d}.jpg {i % 5}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    (tmp_path / "pool.txt").write_text("".join(lines[:11]))
    return tmp_path


@pytest.fixture
def loader(photos):
    """Factory of LoaderConfigs over `photos`."""

    def make(**changes):
        source = SourceConfig("photos", list=str(photos / "list.txt"), root=str(photos))
        values = {"sources": (source,), "batch_size": 4, "shuffle": True, "num_workers": 0,
                  "transform_ops": ({"RandCropImage": {"size": 16}}, {"RandFlipImage": {}}, NORMALIZE)} | changes
        return LoaderConfig(**values)

    return make


@pytest.fixture
def ugly():
    """Encoded images that decoders trip over, by name."""
    image = pattern()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise
    half = encoded(image)
    return SimpleNamespace(
        grey=encoded(image[..., 0]), grey_png=encoded(image[..., 0], "PNG"), exif=encoded(image, exif=exif),
        alpha=encoded(Image.fromarray(np.dstack([image, image[..., :1]]), "RGBA"), "PNG"),
        cmyk=encoded(Image.fromarray(image).convert("CMYK")), palette=encoded(Image.fromarray(image).quantize(), "PNG"),
        deep=cv2.imencode(".png", image.astype(np.uint16)[..., ::-1] * 257)[1].tobytes(),
        pixel=encoded(image[:1, :1], "PNG"), truncated=half[:len(half) // 2], endless=half[:-2], empty=b"",
        garbage=b"GIF87a but not really", corrupt=half[:20] + bytes(60) + half[80:])
