import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import paddle
import pytest
from ppcls_ssld.errors import ConfigError, WeightsError
from ppcls_ssld.export import export_network, writable_formats
from ppcls_ssld.export.legacy_ops import BINARY, UNARY
from ppcls_ssld.inference import InferenceEngine

SHAPE = (3, 16, 16)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("kind", writable_formats())
def test_every_format_gives_the_eager_networks_logits(kind, make_toy, eager, images, tmp_path):
    network = make_toy()
    files = export_network(network, tmp_path, SHAPE, kind, head=None)
    assert [p.name for p in files.programs] == [f"inference.{kind}"]
    expected = eager(network, images)
    assert np.abs(InferenceEngine(tmp_path)(images) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_an_export_ends_in_softmax_as_paddleclas_does_and_has_every_format(make_toy, eager, images, tmp_path):
    network = make_toy()
    files = export_network(network, tmp_path, SHAPE)
    assert {p.name for p in files.programs} == {f"inference.{kind}" for kind in writable_formats()}
    np.testing.assert_allclose(InferenceEngine(tmp_path)(images), softmax(eager(network, images)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", writable_formats())
def test_an_export_for_several_labels_ends_in_sigmoid(kind, make_toy, eager, images, tmp_path):
    network = make_toy()
    export_network(network, tmp_path, SHAPE, kind, head="sigmoid")
    expected = 1 / (1 + np.exp(-eager(network, images)))
    np.testing.assert_allclose(InferenceEngine(tmp_path)(images), expected, rtol=1e-4, atol=1e-7)


def test_the_batch_size_is_free(make_toy, images, tmp_path):
    export_network(make_toy(), tmp_path, SHAPE)
    engine = InferenceEngine(tmp_path)
    together = engine(images)
    one_by_one = np.concatenate([engine(image[None]) for image in images])
    np.testing.assert_allclose(one_by_one, together, rtol=1e-5, atol=1e-7)


def test_taps_are_left_out(make_toy, eager, images, tmp_path):
    network = make_toy(taps=True)
    export_network(network, tmp_path, SHAPE, head=None)
    np.testing.assert_allclose(InferenceEngine(tmp_path)(images), eager(network, images), rtol=1e-4, atol=1e-4)


def test_the_live_network_is_untouched_and_trains_on(make_toy, images, tmp_path):
    def step(network):
        paddle.seed(5)
        loss = (network(paddle.to_tensor(images)) ** 2).mean()
        loss.backward()
        paddle.optimizer.SGD(0.1, parameters=network.parameters()).step()
        return [loss.item()] + [t.numpy() for t in network.state_dict().values()]

    exported, twin = make_toy(), make_toy()
    exported.norm.eval()  # a mode of its own, as a run with frozen statistics has
    twin.norm.eval()
    modes = [layer.training for layer in exported.sublayers(include_self=True)]
    export_network(exported, tmp_path, SHAPE)
    assert [layer.training for layer in exported.sublayers(include_self=True)] == modes
    for a, b in zip(step(exported), step(twin)):
        np.testing.assert_array_equal(a, b)


def test_random_numbers_and_parameter_names_go_on_as_without_an_export(make_toy, tmp_path):
    def after(export: bool):
        with paddle.utils.unique_name.guard():
            network = make_toy()
            if export:
                export_network(network, tmp_path, SHAPE)
            return paddle.rand([4]).numpy().tolist(), [p.name for p in paddle.nn.Linear(2, 2).parameters()]

    assert after(export=True) == after(export=False)


def test_a_second_export_replaces_the_first_and_leaves_no_program_that_does_not_fit(make_toy, eager, images, tmp_path):
    export_network(make_toy(seed=1), tmp_path, SHAPE, head=None)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "parity.json").write_text("of the first, and no proof of the second")
    network = make_toy(seed=2)
    export_network(network, tmp_path, SHAPE, "pdmodel", head=None)
    names = {p.name for p in tmp_path.iterdir()}
    assert {"inference.pdmodel", "inference.pdiparams", "notes.txt"} <= names
    assert names <= {"inference.pdmodel", "inference.pdiparams", "inference.pdiparams.info", "notes.txt"}
    np.testing.assert_allclose(InferenceEngine(tmp_path)(images), eager(network, images), rtol=1e-4, atol=1e-4)


def test_killed_at_any_move_a_folder_with_an_inference_yml_is_whole(make_toy, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    export_network(make_toy(seed=2), whole, SHAPE, description="second")
    replace, moves = os.replace, len(contents(whole))
    for killed_at in range(moves + 1):
        folder, calls = tmp_path / str(killed_at), []

        def kill(old, new):
            if len(calls) == killed_at:
                raise KeyboardInterrupt
            calls.append(new)
            replace(old, new)

        export_network(make_toy(seed=1), folder, SHAPE, description="first")
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", kill)
            if killed_at < moves:
                with pytest.raises(KeyboardInterrupt):
                    export_network(make_toy(seed=2), folder, SHAPE, description="second")
            else:
                export_network(make_toy(seed=2), folder, SHAPE, description="second")
        assert (folder / "inference.yml").exists() == (killed_at == moves)
    for name in ("inference.pdiparams", "inference.yml"):
        assert contents(folder)[name] == contents(whole)[name]


def test_a_network_that_cannot_be_traced_leaves_the_old_files(make_toy, tmp_path):
    class Broken(paddle.nn.Layer):
        def forward(self, images):
            raise RuntimeError("no such path")

    export_network(make_toy(), tmp_path, SHAPE)
    before = contents(tmp_path)
    with pytest.raises(RuntimeError):
        export_network(Broken(), tmp_path, SHAPE)
    assert contents(tmp_path) == before


def test_a_full_disk_is_noticed_and_leaves_the_old_files(make_toy, tmp_path):
    """Paddle reports success for a file that the system cut off: here, by a limit on the size of files."""
    export_network(make_toy(), tmp_path, SHAPE)
    before = contents(tmp_path)
    script = """
        import zlib, resource, sys, paddle
        from ppcls_ssld.errors import CheckpointError
        from ppcls_ssld.export import export_network
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        network = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(768, 1000))
        try:
            export_network(network, sys.argv[1], (3, 16, 16))
        except CheckpointError as e:
            print("noticed:", e)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    assert "noticed:" in done.stdout and str(tmp_path) in done.stdout, done.stderr
    assert contents(tmp_path) == before


def test_a_format_that_this_paddle_cannot_write_is_refused_by_name(make_toy, tmp_path):
    with pytest.raises(ConfigError, match="'onnx'.*writes .*pdmodel"):
        export_network(make_toy(), tmp_path, SHAPE, "onnx")


def test_training_branches_are_folded_in_the_export_alone(images, tmp_path):
    class Branches(paddle.nn.Layer):
        """y = a(x) + b(x) while training; one convolution once folded, as RepVGG does."""

        is_repped = False

        def __init__(self):
            super().__init__()
            self.a, self.b = paddle.nn.Conv2D(3, 4, 3), paddle.nn.Conv2D(3, 4, 3)

        def forward(self, x):
            return self.folded(x) if self.is_repped else self.a(x) + self.b(x)

        def re_parameterize(self):
            self.folded = paddle.nn.Conv2D(3, 4, 3)
            self.folded.weight.set_value(self.a.weight + self.b.weight)
            self.folded.bias.set_value(self.a.bias + self.b.bias)
            self.is_repped = True
            del self.a, self.b

    network = paddle.nn.Sequential(Branches(), paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten())
    expected = network(paddle.to_tensor(images)).numpy()
    files = export_network(network, tmp_path, SHAPE, head=None)
    np.testing.assert_allclose(InferenceEngine(tmp_path)(images), expected, rtol=1e-4, atol=1e-6)
    assert not network[0].is_repped
    assert files.params.stat().st_size < 2 * 4 * 4 * 3 * 9  # bytes: less than both branches' kernels


def test_an_engine_refuses_a_parameter_file_that_was_cut_off(make_toy, images, tmp_path):
    files = export_network(make_toy(), tmp_path, SHAPE)
    whole = files.params.read_bytes()
    for part in (whole[:-1], whole[:len(whole) // 2], whole[:10], b"", whole + b"x"):
        files.params.write_bytes(part)
        with pytest.raises(WeightsError, match="export the network again"):
            InferenceEngine(tmp_path)


class Operators(paddle.nn.Layer):
    """Everything that legacy_ops.py teaches, by the names that backbones use."""

    def __init__(self):
        super().__init__()
        self.mix = paddle.nn.Linear(48, 48)

    def forward(self, images):
        x = self.mix(paddle.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))  # [N, 48]
        y = paddle.roll(x, 3, axis=1)
        parts = [getattr(paddle if hasattr(paddle, name) else paddle.nn.functional, name)(paddle.abs(x) + 0.3)
                 for name in UNARY]
        parts += [getattr(paddle, name)(x, y) for name in BINARY]
        parts += [paddle.nn.functional.gelu(x), paddle.nn.functional.gelu(x, approximate=True),
                  paddle.nn.functional.softplus(x, beta=2), paddle.nn.functional.sigmoid(x)]
        square = x.reshape([-1, 6, 8])
        parts += [paddle.matmul(square, square, transpose_y=True).reshape([-1, 36]),
                  paddle.bmm(square, square.transpose([0, 2, 1])).reshape([-1, 36]),
                  paddle.roll(square, [1, 2], [1, 2]).sum(axis=[1]), paddle.sum(square, axis=-1, keepdim=True)[:, :, 0],
                  paddle.sum(paddle.ones([3])) * x]
        return paddle.concat(parts, axis=1)


@pytest.mark.parametrize("kind", writable_formats())
def test_every_operator_that_legacy_programs_are_taught_gives_the_eager_numbers(kind, eager, images, tmp_path):
    network = Operators()
    expected = eager(network, images)
    export_network(network, tmp_path, SHAPE, kind, head=None)
    np.testing.assert_allclose(InferenceEngine(tmp_path)(images), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape[1] > 48 * (len(UNARY) + len(BINARY))


@pytest.mark.skipif(len(writable_formats()) == 1, reason="this Paddle writes .pdmodel natively")
def test_a_network_beyond_legacy_programs_is_exported_as_json_and_said_to_be(images, eager, tmp_path):
    class Hyperbolic(paddle.nn.Linear):
        def forward(self, images):
            return paddle.cosh(super().forward(images.mean([2, 3])))

    network = Hyperbolic(3, 5)
    files = export_network(network, tmp_path, SHAPE, head=None)
    assert [p.name for p in files.programs] == ["inference.json"] and "cosh" in files.left_out[0]
    np.testing.assert_allclose(InferenceEngine(tmp_path)(images), eager(network, images), rtol=1e-5)
    with pytest.raises(ConfigError, match="cosh.*use the json format"):
        export_network(network, tmp_path, SHAPE, "pdmodel")


def test_a_program_that_onednn_cannot_run_is_run_without_it(images, eager, tmp_path):
    """Paddle 3.3.1: up-sampling by a factor in a .json program, as in HRNet, raises NotImplementedError at run."""
    network = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3, stride=2), paddle.nn.Upsample(scale_factor=2.0),
                                   paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten())
    export_network(network, tmp_path, SHAPE, writable_formats()[0], head=None)
    engine = InferenceEngine(tmp_path)
    np.testing.assert_allclose(engine(images), eager(network, images), rtol=1e-4, atol=1e-6)
    assert engine.backend.split(", ")[1] in ("oneDNN", "plain")
