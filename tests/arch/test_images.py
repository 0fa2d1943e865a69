import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import on_device
from ppcls_ssld.data import pixels
from ppcls_ssld.structs import Batch, Normalization

ROWS = (np.zeros(4, np.int64),) * 4 + (np.ones(4, np.float32),)


@pytest.mark.parametrize("scale, mean, std", [(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                                              (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
                                              (1 / 127.5, (1.0, 1.1, 0.9), (0.9, 1.0, 1.7))])
def test_bytes_become_the_numbers_that_the_reader_would_have_made(scale, mean, std):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3), np.uint8)
    op = pixels.NormalizeImage(scale, mean, std, "")
    expected = np.stack([pixels.to_chw(op.apply(image)) for image in images])
    found = on_device(Batch(images, *ROWS, normalization=Normalization(scale, mean, std))).numpy()
    assert found.dtype == np.float32 and np.array_equal(found, expected)


def test_numbers_stay_as_they_are():
    images = np.random.default_rng(0).standard_normal((4, 3, 5, 7)).astype(np.float32)
    found = on_device(Batch(images, *ROWS))
    assert np.array_equal(found.numpy(), images) and str(found.place) == str(paddle.to_tensor(images).place)
