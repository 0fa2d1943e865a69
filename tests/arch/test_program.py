import sys

import numpy as np
import paddle
import pytest
from paddle.jit.dy2static import program_translator
from ppcls_ssld.arch.program import can_write_pir, save_program
from ppcls_ssld.inference import InferenceEngine

SHAPE = (3, 8, 8)


class Network(paddle.nn.Layer):
    def __init__(self, classes: int, fails: bool):
        super().__init__()
        self.head = paddle.nn.Linear(3, classes)
        self.fails = fails

    def forward(self, images):
        logits = self.head(images.mean([2, 3]))
        if self.fails:
            raise ZeroDivisionError("in the middle of a trace")
        return logits


@pytest.fixture
def one_id(monkeypatch):
    """Every program has the id of the one before, as happens to programs whose memory is used again."""
    for module in (program_translator, sys.modules.get("paddle.jit.dy2static.parameter_recorder")):
        if module is not None:
            monkeypatch.setattr(module, "_program_hash", lambda program: 0)


@pytest.mark.parametrize("legacy", (False, True) if can_write_pir() else (True,))
def test_a_trace_that_failed_leaves_nothing_for_the_next_program(legacy, one_id, tmp_path):
    with pytest.raises(ZeroDivisionError):
        save_program(Network(5, fails=True), str(tmp_path / "failed"), SHAPE, legacy)
    network = Network(2, fails=False)
    save_program(network, str(tmp_path / "inference"), SHAPE, legacy)
    images = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    with paddle.no_grad():
        expected = network(paddle.to_tensor(images)).numpy()
    np.testing.assert_allclose(InferenceEngine(tmp_path)(images), expected, rtol=1e-5, atol=1e-6)
