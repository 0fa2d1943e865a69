"""Weight files: no stranger's code, no silent mismatch."""

import os
import pickle

import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import build_network, head_keys, initialise, load_weights, read_arrays
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.errors import WeightsError


class Toy(paddle.nn.Layer):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 5, 3)
        self.bn = paddle.nn.BatchNorm2D(5)
        self.fc = paddle.nn.Linear(5, classes)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/ppcls_ssld_bomb",)


def saved(tmp_path, tree, name="w.pdparams"):
    paddle.save(tree, str(tmp_path / name))
    return str(tmp_path / name)


def test_weights_survive_the_round_trip_with_or_without_the_suffix(tmp_path):
    source, target = Toy(), Toy()
    path = saved(tmp_path, source.state_dict())
    for name in (path, path[:-len(".pdparams")]):
        report = load_weights(target, name)
        assert report.complete and not report.unused
    for key, value in source.state_dict().items():
        np.testing.assert_array_equal(target.state_dict()[key].numpy(), value.numpy())


def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path):
    path = tmp_path / "evil.pdparams"
    path.write_bytes(pickle.dumps({"conv.weight": Bomb()}))
    with pytest.raises(WeightsError, match="posix.system|os.system"):
        read_arrays(path)
    assert not os.path.exists("/tmp/ppcls_ssld_bomb")


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2])])
def test_a_file_that_is_no_weights_file_is_named(tmp_path, content):
    path = tmp_path / "odd.pdparams"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="odd.pdparams"):
        read_arrays(path)


def test_a_truncated_file_is_named(tmp_path):
    path = saved(tmp_path, Toy().state_dict())
    data = open(path, "rb").read()
    open(path, "wb").write(data[:len(data) // 2])
    with pytest.raises(WeightsError, match="is it complete"):
        read_arrays(path)


def test_the_report_tells_missing_reshaped_and_unused_keys_apart(tmp_path):
    tree = dict(Toy(classes=9).state_dict())
    tree["extra"] = paddle.zeros([1])
    del tree["bn.bias"]
    report = load_weights(Toy(classes=4), saved(tmp_path, tree))
    assert report.missing == ("bn.bias",) and set(report.reshaped) == {"fc.weight", "fc.bias"}
    assert report.unused == ("extra",) and not report.backbone_complete


def test_another_class_count_leaves_the_backbone_complete(tmp_path):
    report = load_weights(Toy(classes=4), saved(tmp_path, Toy(classes=9).state_dict()))
    assert report.backbone_complete and not report.complete


def test_a_file_of_two_networks_gives_the_part_of_the_role(tmp_path):
    student, teacher = Toy(), Toy()
    tree = {f"{role}.{k}": v for role, net in (("Student", student), ("Teacher", teacher))
            for k, v in net.state_dict().items()}
    target = Toy()
    assert load_weights(target, saved(tmp_path, tree), role="Student").complete
    np.testing.assert_array_equal(target.fc.weight.numpy(), student.fc.weight.numpy())


def test_a_file_of_another_network_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="none of its 1 keys fits"):
        load_weights(Toy(), saved(tmp_path, {"other": paddle.zeros([2])}))


def test_the_head_is_the_last_layer_with_parameters():
    assert set(head_keys(Toy())) == {"fc.weight", "fc.bias"}
    net = build_network(NetworkConfig("Student", "MobileNetV3_small_x0_35"), 10)
    assert set(head_keys(net)) == {"fc.weight", "fc.bias"}


def test_a_frozen_network_must_be_loaded_whole_unless_told_otherwise(tmp_path):
    def config(**kw):
        return NetworkConfig("Teacher", "MobileNetV3_small_x0_35", frozen=True, bn_mode="eval", pretrained=path, **kw)
    path = saved(tmp_path, build_network(NetworkConfig("Teacher", "MobileNetV3_small_x0_35"), 5).state_dict())
    net = build_network(config(), 10)
    with pytest.raises(WeightsError, match="allow_partial"):
        initialise(net, config())
    assert initialise(net, config(allow_partial=True)).backbone_complete


def test_a_trained_network_needs_all_but_its_classifier_unless_told_otherwise(tmp_path):
    def student(name, path=None, classes=10, **kw):
        config = NetworkConfig("Student", name, pretrained=path, **kw)
        return build_network(config, classes), config

    path = saved(tmp_path, student("MobileNetV3_small_x0_35", classes=5)[0].state_dict())
    assert set(initialise(*student("MobileNetV3_small_x0_35", path)).reshaped) == {"fc.weight", "fc.bias"}
    wider = "MobileNetV3_small_x0_5"
    message = (r"Arch.Student.pretrained: a trained .*_x0_5 must be .* but for its classifier"
               r".* \d+ parameters matched, \d+ of another shape .*Student.allow_partial")
    with pytest.raises(WeightsError, match=message):
        initialise(*student(wider, path))
    assert not initialise(*student(wider, path, allow_partial=True)).backbone_complete
