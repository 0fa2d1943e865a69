import sys
import threading

import numpy as np
import paddle
import pytest
from ppcls_ssld.errors import ConfigError, DataError, WeightsError
from ppcls_ssld.export import export_network
from ppcls_ssld.inference import InferenceEngine, check_params_file
from ppcls_ssld.inference.engine import _gpu_id


@pytest.fixture(scope="module")
def network():
    paddle.seed(0)
    layers = (paddle.nn.Conv2D(3, 8, 3), paddle.nn.ReLU(), paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten(),
              paddle.nn.Linear(8, 5))
    network = paddle.nn.Sequential(*layers)
    network.eval()
    return network


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    export_network(network, folder, (3, 16, 16), head=None)
    return folder


def test_a_folder_a_path_without_suffix_or_a_program_names_the_model(model):
    images = np.ones((2, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(InferenceEngine(model)(images), InferenceEngine(str(model / "inference"))(images))
    engine = InferenceEngine(model / "inference.pdmodel")
    assert engine.backend == "inference.pdmodel, oneDNN"
    np.testing.assert_allclose(engine(images), InferenceEngine(model)(images), rtol=1e-5, atol=1e-6)
    (model / "inference.onnx").touch()
    with pytest.raises(WeightsError, match="inference.onnx"):
        InferenceEngine(model / "inference.onnx")


def test_strided_and_float64_arrays_mean_what_they_say(model, network):
    wide = np.random.default_rng(0).standard_normal((2, 32, 16, 3))
    for images in (wide[:, ::2].transpose(0, 3, 1, 2), wide[:, ::2].astype(np.float32).transpose(0, 3, 1, 2)):
        expected = network(paddle.to_tensor(np.array(images, np.float32, order="C"))).numpy()
        np.testing.assert_allclose(InferenceEngine(model)(images), expected, rtol=1e-4, atol=1e-6)


def test_an_answer_is_a_copy_that_the_next_call_leaves_alone(model):
    engine = InferenceEngine(model)
    first = engine(np.ones((1, 3, 16, 16), np.float32))
    kept = first.copy()
    engine(np.zeros((1, 3, 16, 16), np.float32))
    np.testing.assert_array_equal(first, kept)


def test_threads_that_share_an_engine_get_their_own_answers(model):
    engine = InferenceEngine(model)
    inputs = [np.full((1, 3, 16, 16), i, np.float32) for i in range(8)]
    expected = [engine(x) for x in inputs]
    found: dict[int, list] = {}

    def ask(i):
        found[i] = [engine(inputs[i]) for _ in range(20)]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places after nearly every instruction
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    for i, answers in found.items():
        for answer in answers:
            np.testing.assert_array_equal(answer, expected[i])
    assert len(found) == 8


def test_shapes_that_the_network_cannot_take_are_named(model):
    engine = InferenceEngine(model)
    for shape in ((3, 16, 16), (0, 3, 16, 16), (2, 1, 16, 16)):
        with pytest.raises(DataError) as caught:
            engine(np.zeros(shape, np.float32))
        assert str(list(shape)) in str(caught.value)
    assert engine(np.zeros((1, 3, 16, 16), np.float32)).shape == (1, 5)  # and the engine is none the worse


@pytest.mark.parametrize("asked, here, card", [("gpu", "gpu:3", 3), ("gpu:1", "gpu:3", 1), ("gpu", "cpu", 0),
                                               ("cpu", "gpu:3", None)])
def test_gpu_without_a_number_is_the_card_of_this_process(monkeypatch, asked, here, card):
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device, "get_device", lambda: here)
    assert _gpu_id(asked) == card


def test_devices_and_precisions_that_cannot_be_are_refused(model):
    with pytest.raises(ConfigError, match="device 'tpu'"):
        InferenceEngine(model, device="tpu")
    with pytest.raises(ConfigError, match="precision 'fp16' on cpu"):
        InferenceEngine(model, precision="fp16")
    if not paddle.is_compiled_with_cuda():
        with pytest.raises(ConfigError, match="without CUDA"):
            InferenceEngine(model, device="gpu:0")


def test_a_missing_model_says_what_was_looked_for_and_what_is_there(tmp_path):
    with pytest.raises(WeightsError, match="no such folder"):
        InferenceEngine(tmp_path / "absent" / "inference")
    (tmp_path / "student.pdparams").write_bytes(b"x")
    with pytest.raises(WeightsError, match="inference.pdmodel, and inference.pdiparams; found student.pdparams"):
        InferenceEngine(tmp_path)


def test_a_whole_parameter_file_is_counted_tensor_by_tensor(model, network):
    assert check_params_file(model / "inference.pdiparams") == len(network.state_dict())
