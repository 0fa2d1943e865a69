from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from ppcls_ssld.export import export_network, write_inference_yml

CLASSES = ("apple", "birch tree", "cat", "dune", "elk")
TRANSFORMS = (
    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
    {"ResizeImage": {"resize_short": 28}},
    {"CropImage": {"size": 24}},
    {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "order": ""}},
    {"ToCHWImage": None},
)


@pytest.fixture(scope="session")
def network() -> paddle.nn.Layer:
    paddle.seed(0)
    layers = (paddle.nn.Conv2D(3, 8, 3, stride=2), paddle.nn.BatchNorm2D(8), paddle.nn.Hardswish(),
              paddle.nn.AdaptiveAvgPool2D(2), paddle.nn.Flatten(), paddle.nn.Linear(32, len(CLASSES)))
    network = paddle.nn.Sequential(*layers)
    network[-1].weight.set_value(network[-1].weight * 5)
    network.eval()
    return network


@pytest.fixture(scope="session")
def model_dir(network, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export_network(network, folder, (3, 24, 24))
    write_inference_yml(folder, "Toy", TRANSFORMS, 3, CLASSES)
    return folder


@pytest.fixture(scope="session")
def attribute_dir(network, tmp_path_factory) -> Path:
    """The same network with each of its outputs a yes or no."""
    folder = tmp_path_factory.mktemp("attributes")
    export_network(network, folder, (3, 24, 24), head="sigmoid")
    post = {"MultiLabelThreshOutput": {"threshold": [0.1, 0.5, 0.5, 0.5, 0.9]}}
    write_inference_yml(folder, "Toy", TRANSFORMS, labels=CLASSES, attributes=post)
    return folder


@pytest.fixture(scope="session")
def logits_by_hand(network):
    """float32 [C] of an image file, by formulas of the tests' own."""

    def logits(path) -> np.ndarray:
        rgb = cv2.imread(path)[:, :, ::-1]
        height, width = rgb.shape[:2]
        scale = 28 / min(height, width)
        width, height = round(width * scale), round(height * scale)
        rgb = cv2.resize(np.ascontiguousarray(rgb), (width, height))
        left, top = (width - 24) // 2, (height - 24) // 2
        pixels = (rgb[top:top + 24, left:left + 24] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
        with paddle.no_grad():
            return network(paddle.to_tensor(pixels.transpose(2, 0, 1)[None].astype(np.float32))).numpy()[0]

    return logits


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Five PNGs of different sizes and colours, two of them in a sub-folder, and a text file."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    rng = np.random.default_rng(3)
    for i, name in enumerate(("c.png", "a.png", "b.PNG", "more/e.png", "more/d.png")):
        smooth = cv2.resize(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), (30 + 7 * i, 50 - 4 * i))
        (folder / name).write_bytes(cv2.imencode(".png", smooth)[1].tobytes())
    (folder / "notes.txt").write_text("not an image")
    return folder
