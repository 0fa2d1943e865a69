import shutil

import cv2
import numpy as np
import paddle
import pytest
import yaml
from deploy.predict import list_images
from deploy.predictor import Classifier, Predictor
from ppcls_ssld.errors import ConfigError, DataError, WeightsError
from ppcls_ssld.export import export_network

CLASSES = ("apple", "birch tree", "cat", "dune", "elk")


@pytest.fixture(scope="module")
def predictor(model_dir) -> Predictor:
    return Predictor(model_dir)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def test_image_files_get_the_eager_networks_probabilities(predictor, logits_by_hand, photos):
    predictions = predictor.predict(list_images([str(photos)]))
    assert len({p.class_ids[0] for p in predictions}) > 1, "a test whose images all look alike proves little"
    for p in predictions:
        expected = softmax(logits_by_hand(p.path))
        assert p.class_ids == tuple(np.argsort(-expected)[:3])
        np.testing.assert_allclose(p.scores, np.sort(expected)[::-1][:3], rtol=1e-4)
        assert p.labels == tuple(CLASSES[i] for i in p.class_ids)


def test_folders_are_searched_through_in_sorted_order_and_files_taken_as_given(photos):
    names = [p.removeprefix(f"{photos}/") for p in list_images([str(photos), str(photos / "notes.txt")])]
    assert names == ["a.png", "b.PNG", "c.png", "more/d.png", "more/e.png", "notes.txt"]


def test_batches_do_not_change_predictions_nor_their_order(predictor, photos):
    paths = list_images([str(photos)])
    together, in_twos = predictor.predict(paths), predictor.predict(paths, batch_size=2)
    assert [p.path for p in in_twos] == [p.path for p in together] == paths
    for a, b in zip(together, in_twos):
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5)


def test_no_batch_is_larger_than_asked_and_none_is_empty():
    sizes = []

    def forward(images):
        sizes.append(len(images))
        return np.ones((len(images), 1))

    Classifier(forward, [{"NormalizeImage": {"order": ""}}]).predict([np.zeros((8, 8, 3), np.uint8)] * 7, batch_size=3)
    assert sizes == [3, 3, 1]


def test_arrays_are_rgb_images(predictor, photos):
    path = str(photos / "a.png")
    rgb = cv2.imread(path)[:, :, ::-1]
    from_array, from_file = predictor.predict([np.ascontiguousarray(rgb), path])
    assert from_array.path is None and from_array.scores == from_file.scores
    with pytest.raises(DataError, match=r"uint8 \[H, W, 3\]; found float32"):
        predictor.predict([rgb.astype(np.float32)])


def test_images_that_keep_their_proportions_are_predicted_too(model_dir, photos, tmp_path):
    shutil.copytree(model_dir, tmp_path / "model")
    file = tmp_path / "model" / "inference.yml"
    tree = yaml.safe_load(file.read_text())
    tree["PreProcess"]["transform_ops"] = [op for op in tree["PreProcess"]["transform_ops"] if "CropImage" not in op]
    file.write_text(yaml.safe_dump(tree))
    predictor, paths = Predictor(tmp_path / "model"), list_images([str(photos)])
    assert [p.scores for p in predictor.predict(paths)] == [predictor.predict([path])[0].scores for path in paths]


def test_nothing_gives_nothing(predictor):
    assert predictor.predict([]) == []


def test_topk_and_labels_can_be_given_and_topk_may_exceed_the_classes(model_dir, photos):
    p, = Predictor(model_dir, topk=9, labels=list("vwxyz")).predict([photos / "a.png"])
    assert sorted(p.class_ids) == [0, 1, 2, 3, 4] and sum(p.scores) == pytest.approx(1)
    assert p.labels == tuple("vwxyz"[i] for i in p.class_ids)
    with pytest.raises(ConfigError, match="topk 0"):
        Predictor(model_dir, topk=0)
    with pytest.raises(ConfigError, match="2 class names for a network with 5 classes"):
        Predictor(model_dir, labels=("a", "b")).predict([photos / "a.png"])


def test_a_corrupt_image_stops_predict_and_is_handed_to_on_corrupt(predictor, photos, tmp_path):
    good, bad = str(photos / "a.png"), str(tmp_path / "bad.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(DataError, match="bad.jpg"):
        predictor.predict([good, bad])
    errors = []
    assert [p.path for p in predictor.stream([bad, good, bad], on_corrupt=errors.append)] == [good]
    assert len(errors) == 2 and "bad.jpg" in str(errors[0])


def test_an_image_too_small_for_its_crop_is_named(photos):
    classifier = Classifier(lambda x: np.ones((len(x), 1)), [{"CropImage": {"size": 400}}])
    with pytest.raises(DataError, match="a.png: .*400"):
        classifier.predict([photos / "a.png"])


def test_a_network_exported_without_softmax_is_refused(network, model_dir, photos, tmp_path):
    shutil.copytree(model_dir, tmp_path / "model")
    export_network(network, tmp_path / "model", (3, 24, 24), head=None)
    with pytest.raises(ConfigError, match="softmax"):
        Predictor(tmp_path / "model").predict([photos / "a.png"])


def test_missing_pieces_of_a_model_folder_are_named(model_dir, tmp_path):
    with pytest.raises(ConfigError, match="inference.yml: cannot be read"):
        Predictor(tmp_path / "absent")
    shutil.copy(model_dir / "inference.yml", tmp_path)
    with pytest.raises(WeightsError, match="inference.pdiparams; found inference.yml"):
        Predictor(tmp_path)
    (tmp_path / "inference.yml").write_text("PreProcess: [")
    with pytest.raises(ConfigError, match="inference.yml: expected PreProcess.transform_ops"):
        Predictor(tmp_path)
