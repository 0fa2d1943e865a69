"""Several teachers that answer as one."""

import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import build_frozen, build_network
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.errors import ConfigError

SHAPE = (3, 32, 32)
IMAGES = np.random.default_rng(0).standard_normal((5, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    for seed in (0, 1):
        paddle.seed(seed)
        network = build_network(NetworkConfig("T", "PPLCNet_x0_25"), 4)
        for parameter in network.parameters():
            parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))  # or all would say the same
        paddle.save(network.state_dict(), str(folder / f"{seed}.pdparams"))
    return [str(folder / f"{seed}.pdparams") for seed in (0, 1)]


def member(weights, i, **more):
    return NetworkConfig(f"Teacher.teachers.{i}", "PPLCNet_x0_25", pretrained=weights[i], frozen=True, bn_mode="eval",
                         engine="eager", **more)


def ensemble(weights, *shares, **more):
    members = tuple(member(weights, i, weight=share) for i, share in enumerate(shares))
    return NetworkConfig("Teacher", "Ensemble", frozen=True, bn_mode="eval", members=members, **more)


def probabilities(logits):
    scores = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def answer(config):
    return build_frozen(config, 4, SHAPE, "cpu")[0](IMAGES).numpy()


@pytest.mark.parametrize("shares", [(1.0, 1.0), (3.0, 1.0)])
def test_the_answer_is_the_weighted_mean_of_the_members_probabilities(weights, shares):
    one, other = (probabilities(answer(member(weights, i))) for i in (0, 1))
    mean = (shares[0] * one + shares[1] * other) / sum(shares)
    together = answer(ensemble(weights, *shares))
    assert np.abs(one - other).max() > 0.01
    assert np.allclose(probabilities(together), mean, atol=1e-6) and np.allclose(np.exp(together).sum(1), 1, atol=1e-5)


def test_it_reports_each_members_weights_and_says_how_they_run(weights):
    teacher, reports = build_frozen(ensemble(weights, 1.0, 1.0), 4, SHAPE, "cpu")
    assert list(reports) == ["Teacher.teachers.0", "Teacher.teachers.1"] and all(r.complete for r in reports.values())
    assert teacher.engine == "eager" and teacher.role == "Teacher"


def test_a_sure_member_leaves_finite_logs(weights):
    class Sure:
        role, engine, reason = "t", "eager", ""

        def __call__(self, images):
            return paddle.to_tensor(np.array([[1000.0, 0, 0, 0]], np.float32))

    from ppcls_ssld.arch import Ensemble
    assert np.isfinite(Ensemble("Teacher", [Sure(), Sure()], [1, 1])(IMAGES).numpy()).all()


def test_an_ensemble_has_no_features(weights):
    with pytest.raises(ConfigError, match="Arch.Teacher: a loss reads its features .blocks."):
        build_frozen(ensemble(weights, 1.0, 1.0), 4, SHAPE, "cpu", ["blocks"])
