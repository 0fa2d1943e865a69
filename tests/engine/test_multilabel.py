"""Several labels an image: trained, evaluated, cut off and resumed, as PaddleClas's PULC attribute files ask for it."""

import json
import math

import numpy as np
import paddle
import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.engine import evaluate, step
from ppcls_ssld.engine.evaluate import eval_reader, score
from ppcls_ssld.engine.preflight import attribute_bound
from ppcls_ssld.engine.task import build_loss
from ppcls_ssld.errors import ConfigError, DataError, WeightsError
from ppcls_ssld.targets import WriteOptions, write_targets

from world import changed, cut_and_resumed, rows, run, same_arrays, student

MEASURES = ["ma", "label_f1", "label_pos_recall", "label_neg_recall", "instance_f1", "instance_acc",
            "instance_precision", "instance_recall"]
LABEL_FREE = [{"DistillationDMLLoss": {"act": "sigmoid", "model_name_pairs": [["Student", "Teacher"]]}}]


def test_paddleclass_pulc_form_trains_and_the_best_ma_chooses_the_student(pulc, capsys):
    result = run(changed(pulc, Global__epochs=4))
    trained, evaluated = rows(result.output_dir), rows(result.output_dir, "eval")
    assert result.steps == 12 and list(trained[0]["parts"]) == ["MultiLabelLoss_Student", "DMLLoss_Student_Teacher_0"]
    assert all(row["parts"]["MultiLabelLoss_Student"] > 0 for row in trained)
    assert [key for key in evaluated[0] if key in MEASURES] == MEASURES and evaluated[0]["images"] == 24
    assert result.best == max(row["ma"] for row in evaluated) and result.last == evaluated[-1]["ma"]
    about = json.load(open(f"{result.output_dir}/best_model.json"))
    assert about["ma"] == result.best and "top1" not in about
    assert f"best ma {result.best:.2%}" in capsys.readouterr().out
    again = evaluate(resolve(changed(pulc, Global__pretrained_model=result.student_weights)))
    best = next(row for row in evaluated if row["step"] == about["step"])
    assert again.accuracy == pytest.approx({name: best[name] for name in MEASURES})
    assert (again.name, again.main) == ("ma", again.accuracy["ma"])
    assert again.loss == pytest.approx(best["loss"], rel=1e-4)


def test_labels_alone_teach_the_attributes(pulc):
    """Supervised: PULC's PPLCNet_x1_0.yaml in small. What is learnt is the labels, not their complement or order."""
    arch = {"name": "MobileNetV3_small_x0_35", "class_num": 2, "infer_add_softmax": False}
    loss = [{"MultiLabelLoss": {"weight": 1.0, "weight_ratio": True, "size_sum": True}}]
    tree = changed(pulc, Arch=arch, Loss__Train=loss, Global__epochs=20, Global__eval_interval=20)
    assert run(tree).last > 0.9


@pytest.mark.parametrize("changes", [{}, {"DataLoader__Train__loader__num_workers": 2}])
def test_cut_in_mid_epoch_and_resumed_equals_unbroken(pulc, monkeypatch, changes):
    whole, resumed = cut_and_resumed(changed(pulc, **changes), monkeypatch)
    assert whole.steps == 9
    assert rows(resumed.output_dir) == rows(whole.output_dir)
    assert rows(resumed.output_dir, "eval") == rows(whole.output_dir, "eval")
    assert same_arrays(student(resumed.output_dir, 9), student(whole.output_dir, 9))
    assert (resumed.best, resumed.last) == (whole.best, whole.last)


def test_other_labels_teach_otherwise(pulc, attributes):
    """Two images change their labels; the shares of yes stay."""
    one = run(changed(pulc, Global__max_steps=2))
    text = (attributes / "attributes.txt").read_text()
    swapped = text.replace("01.png\t0,1", "01.png\t1,0").replace("02.png\t1,0", "02.png\t0,1")
    (attributes / "other.txt").write_text(swapped)
    pulc["DataLoader"]["Train"]["dataset"]["cls_label_path"] = str(attributes / "other.txt")
    two = run(changed(pulc, Global__max_steps=2, Global__output_dir=one.output_dir + "_other"))
    assert rows(one.output_dir)[-1]["loss"] != rows(two.output_dir)[-1]["loss"]


def label_free(pulc, attributes):
    """The recipe of this project on attributes: nothing of the labels, also of images that have none."""
    sources = [{"name": "few", "list": str(attributes / "attributes.txt"), "root": str(attributes)},
               {"name": "many", "list": str(attributes / "unlabelled.txt"), "root": str(attributes), "labelled": False}]
    train = pulc["DataLoader"]["Train"]
    return changed(pulc, Loss__Train=LABEL_FREE, DataLoader__Train={
        "sources": sources, "transform_ops": train["dataset"]["transform_ops"], "batch_size": 8, "shuffle": True,
        "num_workers": 0})


def test_without_labels_the_same_student_comes_of_any_labels_and_is_evaluated(pulc, attributes):
    tree = changed(label_free(pulc, attributes), Global__epochs=1)
    one = run(tree)
    assert one.steps == 5 and rows(one.output_dir, "eval")[-1]["ma"] == one.best
    lines = (attributes / "attributes.txt").read_text().splitlines()
    (attributes / "unknown.txt").write_text("".join(line.split("\t")[0] + "\t-1,-1\n" for line in lines))
    tree["DataLoader"]["Train"]["sources"][0]["list"] = str(attributes / "unknown.txt")
    two = run(changed(tree, Global__output_dir=one.output_dir + "_unknown"))
    assert same_arrays(student(one.output_dir, 5), student(two.output_dir, 5))


def test_agreement_is_of_each_yes_and_no():
    student, teacher = paddle.to_tensor([[1.0, -1.0], [1.0, 2.0]]), paddle.to_tensor([[2.0, -3.0], [-1.0, 2.0]])
    assert step._agreement(student, {"Teacher": teacher}, True).tolist() == [[True, True], [False, True]]
    assert step._agreement(student, {"Teacher": teacher}, False).tolist() == [True, True]


def test_the_losses_know_how_often_each_label_is_yes(pulc):
    """About every other time here: each label then weighs exp(1/2) = 1.65 where weight_ratio asks for it."""
    losses = []
    for ratio in (False, True):
        entry = {"MultiLabelLoss": {"weight_ratio": ratio, "size_sum": True}}
        tree = changed(pulc, Arch={"name": "MobileNetV3_small_x0_35", "class_num": 2}, Loss__Train=[entry],
                       Global__max_steps=1, Global__output_dir=f"{pulc['Global']['output_dir']}_{ratio}")
        losses.append(rows(run(tree).output_dir)[0]["loss"])
    assert 1.5 < losses[1] / losses[0] < 1.8


def test_the_loss_of_an_evaluation_is_the_mean_over_images_with_a_known_label(pulc, attributes):
    """Of a network that answers 0 to everything, whose binary cross entropy is ln 2 times the weights."""
    dataset = pulc["DataLoader"]["Eval"]["dataset"]
    dataset["cls_label_path"] = str(attributes / "attributes.txt")
    config = resolve(pulc)
    labels = np.array([line.split("\t")[1].split(",") for line in open(dataset["cls_label_path"])], int)
    result = score(lambda batch: np.zeros((len(batch), 2), "f4"), eval_reader(config), config)
    share = (labels == 1).sum(0) / (labels >= 0).sum(0)
    weights = np.where(labels == 1, np.exp(1 - share), np.exp(share)) * (labels >= 0)
    assert result.images == 22 and result.loss == pytest.approx(math.log(2) * weights.sum() / 22)


def test_a_teacher_at_chance_level_stops_the_run_and_chance_is_a_half(pulc, attributes):
    weights = paddle.load(str(attributes / "attributes.pdparams"))
    weights = {key: value * 0 if key.startswith("fc") else value for key, value in weights.items()}
    paddle.save(weights, str(attributes / "silent.pdparams"))  # answers 0.5 to everything, which is no
    pulc["Arch"]["models"][0]["Teacher"]["pretrained"] = str(attributes / "silent")
    with pytest.raises(WeightsError, match=r"the teacher's ma is 50.00% on 24 images, guessing gives 50.00%"):
        run(changed(pulc, Global__teacher_check_images=24))


def test_the_bound_on_guessing_holds_for_coins_and_is_below_a_perfect_teacher():
    known = np.array([[60, 30, 3], [20, 50, 0]])
    coins = np.random.default_rng(0)
    trials = [np.mean([(coins.binomial(no, 0.5) / no + coins.binomial(yes, 0.5) / yes) / 2
                       for no, yes in zip(*known[:, :2].tolist())]) for _ in range(4000)]
    assert 0.9 * attribute_bound(known) < np.quantile(trials, 1 - 1 / 700) <= attribute_bound(known) < 0.7
    assert attribute_bound(np.array([[1], [1]])) < 1


def test_attributes_that_cannot_be_counted_are_told_and_a_list_without_any_is_refused(pulc, attributes, capsys):
    lines = (attributes / "complete.txt").read_text().splitlines()
    (attributes / "one.txt").write_text("".join(f"{line[:-1]}0\n" for line in lines))
    (attributes / "none.txt").write_text("".join(f"{line[:-3]}-1,0\n" for line in lines))
    pulc["DataLoader"]["Eval"]["dataset"]["cls_label_path"] = str(attributes / "one.txt")
    run(changed(pulc, Global__max_steps=1))
    assert "1 of 2 attributes are not known to be yes in one image and no in another, and count nowhere: number 1" in \
        capsys.readouterr().out
    pulc["DataLoader"]["Eval"]["dataset"]["cls_label_path"] = str(attributes / "none.txt")
    with pytest.raises(DataError, match="DataLoader.Eval: no attribute is known to be yes"):
        run(changed(pulc, Global__output_dir=pulc["Global"]["output_dir"] + "_none"))


def test_labels_that_no_image_of_train_has_are_told_and_a_list_without_any_is_refused(pulc, attributes, capsys):
    lines = [line.partition("\t") for line in (attributes / "attributes.txt").read_text().splitlines()]
    (attributes / "left.txt").write_text("".join(f"{path}\t{labels.split(',')[0]},-1\n" for path, _, labels in lines))
    (attributes / "nothing.txt").write_text("".join(f"{path}\t-1,-1\n" for path, _, _ in lines))
    pulc = changed(pulc, Global__max_steps=1, Global__eval_during_train=False)
    pulc["DataLoader"]["Train"]["dataset"]["cls_label_path"] = str(attributes / "left.txt")
    run(pulc)
    assert "DataLoader.Train: 1 of 2 attributes are known of no image, so labels teach nothing of them: number 1" in \
        capsys.readouterr().out
    pulc["DataLoader"]["Train"]["dataset"]["cls_label_path"] = str(attributes / "nothing.txt")
    pulc["Global"]["output_dir"] += "_nothing"
    with pytest.raises(ConfigError, match="DistillationMultiLabelLoss, DistillationDMLLoss would learn from labels.*"
                                          "'train' has labels that say nothing"):
        run(pulc)


def test_a_miners_list_of_class_ids_and_paddleclass_tab_lists_serve_as_unlabelled_sources(pulc, attributes):
    names = [line.split("\t")[0] for line in (attributes / "attributes.txt").read_text().splitlines()]
    (attributes / "mined.txt").write_text("".join(f"{attributes / name} 0\n" for name in names[:10]))
    tree = changed(label_free(pulc, attributes), Global__max_steps=2)
    mined, vectors = ({"name": name, "list": str(attributes / file), "root": str(attributes), "labelled": False}
                      for name, file in (("mined", "mined.txt"), ("vectors", "attributes.txt")))
    assert run(changed(tree, DataLoader__Train__sources=[mined, vectors])).steps == 2


@pytest.mark.parametrize("changes, message", [
    ({"Loss__Train": [{"DistillationGTCELoss": {"model_names": ["Student"]}}]}, "Loss.Train.0.*reads one class"),
    ({"Loss__Eval": [{"CELoss": {}}]}, "Loss.Eval.0.*reads one class an image"),
    ({"DataLoader__Train__dataset__batch_transform_ops": [{"Mixup": {}}]}, "batch_transform_ops: .*cannot be mixed")])
def test_what_does_not_go_with_several_labels_is_refused_before_anything_is_read(pulc, changes, message):
    pulc["DataLoader"]["Train"]["dataset"]["cls_label_path"] = "nowhere.txt"
    with pytest.raises(ConfigError, match=message):
        run(changed(pulc, **changes))


def test_images_may_be_mixed_where_no_label_is_read(pulc, attributes):
    mixed = changed(label_free(pulc, attributes), DataLoader__Train__batch_transform_ops=[{"Mixup": {}}])
    assert run(changed(mixed, Global__max_steps=1)).steps == 1


def test_stored_answers_serve_the_softmax_and_are_refused_for_the_sigmoid_and_for_weights(pulc, attributes, tmp_path):
    tree = changed(label_free(pulc, attributes), Global__max_steps=2)
    for entry, message in ((LABEL_FREE[0], "without `act: sigmoid`"), (pulc["Loss"]["Train"][1], "and weight_ratio")):
        with pytest.raises(ConfigError, match=message):
            build_loss(resolve(changed(tree, Loss__Train=[entry]))).soft_target_temperature("Teacher")
    tree = changed(tree, Loss__Train=[{"SymmetricKL": None}])
    write_targets(resolve(tree), WriteOptions(str(tmp_path / "targets"), views=1, top_k=2), 1.0, say=lambda text: None)
    result = run(changed(tree, Global__targets=str(tmp_path / "targets")))
    assert result.steps == 2 and "ma" in rows(result.output_dir, "eval")[-1]
