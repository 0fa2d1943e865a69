"""Training on stored answers is training with the teacher, without the teacher."""

import json
import os

import numpy as np
import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.engine import task
from ppcls_ssld.errors import ConfigError
from ppcls_ssld.targets import WriteOptions, write_targets

from world import changed, cut_and_resumed, rows, run, same_arrays, student


@pytest.fixture
def stored(tree, tmp_path):
    """Writes the targets of a config; the config that uses them."""

    def make(tree, name="targets", temperature=1.0, **options):
        folder = str(tmp_path / name)
        write_targets(resolve(tree), WriteOptions(folder, **{"views": 2, "top_k": 4, "bits": 16, **options}), temperature,
                      say=lambda text: None)
        return changed(tree, Global__targets=folder, Global__output_dir=str(tmp_path / f"run_{name}"))

    return make


@pytest.fixture
def no_teacher(monkeypatch):
    def refuse(*_):
        raise AssertionError("the teacher was built")

    monkeypatch.setattr(task, "build_frozen", refuse)


MIX = {"DataLoader__Train__batch_transform_ops": [{"Cutmix": {"alpha": 1.0}}]}


@pytest.mark.parametrize("bn_mode", ["eval", "batch_stats"])
def test_with_all_classes_and_enough_views_it_is_the_run_with_the_teacher(tree, stored, monkeypatch, bn_mode):
    # Live batch norm over 8 images on 1x1 maps makes any rounding tenfold in a step.
    tree = changed(tree, Global__epochs=2, Arch__Teacher__bn_mode=bn_mode, Arch__Student__bn_mode="eval",
                   Arch__Student__dropout_prob=0.0)
    online, offline = run(tree), run(stored(tree))
    losses = [[row["loss"] for row in rows(r.output_dir)] for r in (online, offline)]
    if bn_mode == "eval":
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)
        ours, theirs = student(offline.output_dir, 10), student(online.output_dir, 10)
        assert all(np.allclose(ours[key], theirs[key], rtol=1e-2, atol=1e-3) for key in theirs)
    else:  # the batches that the answers were made in are not those of training
        assert losses[1] != pytest.approx(losses[0], rel=1e-3) and sum(losses[1]) == pytest.approx(sum(losses[0]), rel=0.5)


def test_the_teacher_is_not_built_and_its_weights_need_not_be_there(tree, stored, no_teacher, world, capsys):
    tree = changed(tree, Arch__Teacher__pretrained=str(world / "copy.pdparams"), Global__eval_during_train=True)
    os.link(world / "teacher.pdparams", world / "copy.pdparams")
    config = stored(tree)
    os.unlink(world / "copy.pdparams")
    result = run(config)
    said = capsys.readouterr().out
    assert "Teacher: not loaded; its answers come from" in said and "was not checked" in said
    about = json.loads(open(f"{result.output_dir}/best_model.json").read())["targets"]
    assert about["bn_mode"] == ["eval"] and about["views"] == 2 and about["k"] == 4
    assert all(row["agreement"] is not None for row in rows(result.output_dir))


@pytest.mark.parametrize("changes", [{}, MIX, {"DataLoader__Train__num_workers": 2}])
def test_cut_and_resumed_equals_unbroken(tree, stored, no_teacher, monkeypatch, changes):
    config = stored(changed(tree, Global__epochs=2, Global__save_steps=2, **changes), top_k=2, bits=8)
    whole, resumed = cut_and_resumed(config, monkeypatch)
    assert rows(resumed.output_dir) == rows(whole.output_dir)
    assert same_arrays(student(resumed.output_dir, 10), student(whole.output_dir, 10))


def test_resuming_with_other_answers_is_refused(tree, stored):
    config = stored(changed(tree, Global__max_steps=2))
    run(config)
    other = stored(tree, "other", top_k=2)
    for targets, message in ((other["Global"]["targets"], "made with the stored targets .* this run has the stored"),
                             (None, "this run has a teacher at work")):
        with pytest.raises(ConfigError, match=message):
            run(changed(config, Global__targets=targets, Global__checkpoints="auto", Global__max_steps=4))


@pytest.mark.parametrize("changes, field", [
    ({"DataLoader__Train__transform_ops": [{"DecodeImage": {}}, {"RandCropImage": {"size": 32}}]}, "transforms"),
    ({"Loss__Train": [{"SymmetricKL": {"temperature": 2.0}}]}, "temperature is 1.0 there, 2.0 here"),
    ({"Arch__Teacher__bn_mode": "batch_stats"}, "bn_mode is eval there, batch_stats here"),
    ({"Arch__Teacher__name": "ResNet18"}, "name is PPLCNet_x0_25 there, ResNet18 here"), (MIX, "mix"),
    ({"Loss__Train": [{"DistillationDistanceLoss": {"model_name_pairs": [["Student", "Teacher"]]}}]}, "takes more")])
def test_answers_to_other_questions_are_refused_and_the_field_is_named(tree, stored, changes, field):
    with pytest.raises(ConfigError, match=field):
        run(changed(stored(tree), **changes))


def test_another_list_is_refused(tree, stored, world):
    config = stored(tree)
    config["DataLoader"]["Train"]["sources"][1]["list"] = str(world / "labelled.txt")
    with pytest.raises(ConfigError, match="samples"):
        run(config)
