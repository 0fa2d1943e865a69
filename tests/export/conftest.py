import numpy as np
import paddle
import pytest


class Toy(paddle.nn.Layer):
    """A network of 20 lines with what exports get wrong: batch norm, dropout, several outputs."""

    def __init__(self, taps: bool = False, classes: int = 7):
        super().__init__()
        self.taps = taps
        self.conv = paddle.nn.Conv2D(3, 8, 3, padding=1)
        self.norm = paddle.nn.BatchNorm2D(8)
        self.drop = paddle.nn.Dropout(0.5)
        self.head = paddle.nn.Linear(8, classes)

    def forward(self, images):
        features = paddle.nn.functional.relu(self.norm(self.conv(images)))
        logits = self.head(self.drop(features.mean([2, 3])))
        return {"logits": logits, "features": features} if self.taps else logits


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def make_toy(images):
    """A Toy whose batch norm has seen data, in training mode: what a run holds when it exports."""

    def make(seed: int = 0, taps: bool = False) -> Toy:
        paddle.seed(seed)
        network = Toy(taps)
        network.train()
        for _ in range(3):
            network(paddle.to_tensor(images * 2 + 1))
        for p in network.parameters():
            p.set_value(p * 3)  # logits far enough apart for a top-1 to mean something
        return network

    return make


@pytest.fixture
def eager():
    """Logits of a network in evaluation mode, float32; the network's mode comes back."""

    def run(network: paddle.nn.Layer, images: np.ndarray) -> np.ndarray:
        network.eval()
        with paddle.no_grad():
            output = network(paddle.to_tensor(images))
        network.train()
        return (output["logits"] if isinstance(output, dict) else output).numpy()

    return run
