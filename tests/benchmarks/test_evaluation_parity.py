"""The comparison with PaddleClas's evaluation: its seeded network means something, and a difference would show."""

import json

import cv2
import numpy as np
import pytest
import yaml
from sklearn.datasets import load_sample_images

from benchmarks import evaluation_parity
from benchmarks.evaluation_parity import (compare, conclusion, disagreements, headline, image_paths, run_config,
                                          seeded_network)
from ppcls_ssld.arch import logits_of, on_device
from ppcls_ssld.engine.evaluate import eval_reader

PADDLECLAS = {  # the part of one of its configs that an evaluation reads
    "Global": {"device": "gpu", "image_shape": [3, 64, 64], "epochs": 1},
    "Arch": {"name": "MobileNetV3_small_x0_35", "class_num": 20},
    "Loss": {"Train": [{"CELoss": {"weight": 1.0}}], "Eval": [{"CELoss": {"weight": 1.0}}]},
    "DataLoader": {"Eval": {
        "dataset": {"name": "ImageNetDataset", "image_root": "elsewhere", "cls_label_path": "elsewhere/list.txt",
                    "transform_ops": [{"DecodeImage": {"to_rgb": True, "channel_first": False}},
                                      {"ResizeImage": {"resize_short": 72}}, {"CropImage": {"size": 64}},
                                      {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406],
                                                          "std": [0.229, 0.224, 0.225], "order": ""}}]},
        "sampler": {"name": "DistributedBatchSampler", "batch_size": 16, "drop_last": False, "shuffle": False},
        "loader": {"num_workers": 4, "use_shared_memory": True}}},
}


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(48):
        y, x, side = rng.integers(0, 200), rng.integers(0, 400), rng.integers(100, 220)
        cv2.imwrite(str(tmp_path / f"{i:02d}.png"), load_sample_images().images[i % 2][y:y + side, x:x + side])
    root, paths = image_paths(tmp_path, None)
    (tmp_path / "list.txt").write_text("".join(f"{path} 0\n" for path in paths))
    (tmp_path / "paddleclas.yaml").write_text(yaml.safe_dump(PADDLECLAS))
    return run_config(tmp_path / "paddleclas.yaml", root, tmp_path / "list.txt")


def test_a_seeded_network_tells_photographs_apart_and_is_the_same_again(config):
    one, two = (seeded_network(config, seed=4) for _ in range(2))
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    assert not one.training
    logits = np.concatenate([logits_of(one(on_device(batch))).numpy() for batch in eval_reader(config).batches()])
    assert np.abs(logits.mean(axis=0)).max() < 1e-3 and logits.std(axis=0).mean() > 0.05
    assert len(set(logits.argmax(axis=1).tolist())) > 3


def test_a_difference_is_measured_by_its_image_s_largest_logit():
    expected = np.array([[20.0, 1.0, 0.0], [0.5, 0.4, 0.0]])
    found = expected + np.array([[0.0, 0.002, 0.0], [0.0, 0.2, 0.0]])
    said = compare(found.astype("f4"), expected)
    assert said["largest_difference"] == pytest.approx(0.2, abs=1e-6) == pytest.approx(said["largest_relative"], abs=1e-6)
    assert said["top1_flips"] == 1 and said["images_beyond_1e-4"] == 2
    assert compare(found[:1].astype("f4"), expected[:1])["largest_relative"] == pytest.approx(1e-4, rel=1e-3)
    row = {"network": "net", "images": 2, "eager": compare(expected, expected), "inference": said}
    assert headline([row]) == ("net, logits of 2 photographs against PaddleClas's: eager the same bits, inference engine "
                               "within 2.0e-01 (2.0e-01 of the image's largest), 1 first classes differ")


def compared(eager=0.0, inference=0.0, identical=1):
    """One image; its second logit is off by so much."""
    expected = np.array([[1.0, 0.0]])
    return {"network": "net", "images": 1, "identical_inputs": identical,
            "eager": compare(expected + [[0, eager]], expected), "inference": compare(expected + [[0, inference]], expected)}


@pytest.mark.parametrize("row, said", [
    (compared(), []), (compared(eager=9e-5, inference=9e-5), []),
    (compared(identical=0), ["1 of 1 images reach the network as other pixels"]),
    (compared(eager=1.9e-3), ["the eager engine's logits differ by up to 1.9e-03, allowed 1e-04"]),
    (compared(inference=3e-3), ["the inference engine's logits differ by up to 3.0e-03, allowed 1e-04"]),
    (compared(eager=np.nan), ["the eager engine's logits differ by up to nan, allowed 1e-04"])])
def test_logits_of_both_engines_are_judged_by_their_absolute_difference(row, said):
    assert disagreements(row) == said
    assert conclusion([compared(), row]) == ("DIFFERS: " + "; ".join(f"net: {s}" for s in said) if said else conclusion([row]))


def test_the_conclusion_gives_both_engines_and_what_is_allowed():
    assert conclusion([compared(), compared(inference=5e-5)]) == (
        "agrees: the same pixels; eager logits within 0.0e+00, those of the inference engine within 5.0e-05 (allowed 1e-04)")


@pytest.mark.parametrize("eager, code", [(0.0, 0), (1e-3, 1)])
def test_a_difference_is_an_exit_code(tmp_path, monkeypatch, capsys, eager, code):
    logits = {"logits": {}, "top1": {}}
    monkeypatch.setattr(evaluation_parity, "run_one", lambda *_: {**compared(eager=eager), **logits})
    monkeypatch.setattr("sys.argv", ["parity", "--paddleclas", str(tmp_path), "--images", str(tmp_path), "--networks",
                                     "ResNet50_vd", "--output", str(tmp_path / "found.json")])
    assert evaluation_parity.main() == code
    verdict = json.loads((tmp_path / "found.json").read_text())["verdict"]
    assert verdict.startswith("DIFFERS" if code else "agrees") and verdict in capsys.readouterr().out


def test_images_come_from_a_folder_or_from_a_list(tmp_path):
    (tmp_path / "b.JPEG").touch()
    (tmp_path / "a.txt").touch()
    (tmp_path / "list.txt").write_text("sub/one two.jpg 3\n\nthree.png 1\n")
    assert image_paths(tmp_path, None) == (tmp_path, ["b.JPEG"])
    assert image_paths(tmp_path / "list.txt", None) == (tmp_path, ["sub/one two.jpg", "three.png"])
