"""The config of stage 2 that a run of stage 1 leaves."""

from pathlib import Path

import pytest

from ppcls_ssld.config import load_config, resolve
from ppcls_ssld.engine import train
from ppcls_ssld.engine.next_stage import next_stage
from ppcls_ssld.errors import ConfigError

from world import changed, run


def test_the_next_stage_is_written_and_trains_from_the_first_ones_student(tree, tmp_path):
    path = tmp_path / "stage2.yaml"
    result = run(changed(tree, Global__next_stage=str(path), Global__eval_during_train=True))
    config = load_config(str(path))
    assert config.Arch.network("Student").pretrained == result.student_weights
    assert [s.name for s in config.DataLoader.Train.sources] == ["few"]
    assert config.Optimizer.lr["learning_rate"] == pytest.approx(0.05 * 0.01)
    assert train(config).steps == 3


@pytest.mark.parametrize("lr", [0.01, {"name": "Piecewise", "decay_epochs": [1], "values": [0.1, 0.01]}])
def test_the_next_stage_takes_every_schedule(tree, tmp_path, lr):
    tree = changed(tree, Global__next_stage=str(tmp_path / "stage2.yaml"), Optimizer={"name": "Momentum", "lr": lr})
    rate = next_stage(resolve(tree), "student")["Optimizer"]["lr"]
    assert rate.get("values", rate.get("learning_rate")) == pytest.approx([0.001, 0.0001] if "values" in rate else 1e-4)


@pytest.mark.parametrize("lr, key, scaled", [
    ({"name": "Piecewise", "decay_epochs": [120, 240, 300], "values": [0.1, 0.01, 0.001, 0.0001]}, "decay_epochs",
     [10, 20, 25]),
    ({"name": "MultiStepDecay", "learning_rate": 0.1, "milestones": [2, 3, 180]}, "milestones", [1, 2, 15]),
    ({"name": "Step", "learning_rate": 0.1, "step_size": 90, "gamma": 0.1}, "step_size", 8)])
def test_epochs_that_a_schedule_names_shrink_with_the_stage(tree, tmp_path, lr, key, scaled):
    tree = changed(tree, Global__next_stage=str(tmp_path / "stage2.yaml"), Global__epochs=360,
                   Global__start_eval_epoch=180, Optimizer={"name": "Momentum", "lr": lr})
    written = next_stage(resolve(tree), "student")
    assert written["Optimizer"]["lr"][key] == scaled
    assert (written["Global"]["epochs"], written["Global"]["start_eval_epoch"]) == (30, 15)


def test_a_next_stage_that_cannot_be_written_is_known_before_the_first_step(tree, tmp_path):
    tree = changed(tree, Global__next_stage=str(tmp_path / "stage2.yaml"))
    del tree["DataLoader"]["Train"]["sources"][0]
    with pytest.raises(ConfigError, match="no labelled source to fine-tune on"):
        run(tree)
    assert not checkpoints_exist(tree)


def checkpoints_exist(tree):
    return Path(tree["Global"]["output_dir"], "checkpoints").exists()


def test_a_next_stage_of_a_run_without_images_to_train_on_is_refused_for_that(tree, tmp_path):
    tree = changed(tree, Global__next_stage=str(tmp_path / "stage2.yaml"))
    del tree["DataLoader"]["Train"]
    with pytest.raises(ConfigError, match="DataLoader.Train: missing"):
        run(tree)


@pytest.mark.parametrize("arch, where", [
    ({"name": "PPLCNet_x0_25", "class_num": 4}, ()),
    ({"class_num": 4, "Student": {"name": "PPLCNet_x0_25"}}, ("Student",)),
    ({"name": "DistillationModel", "class_num": 4, "models": [{"Peer": {"name": "PPLCNet_x0_25"}},
                                                              {"Student": {"name": "PPLCNet_x0_25"}}]},
     ("models", 1, "Student"))])
def test_the_next_stage_starts_from_the_student_in_every_form_of_arch(tree, tmp_path, arch, where):
    tree = changed(tree, Global__next_stage=str(tmp_path / "stage2.yaml"), Arch=arch)
    section = next_stage(resolve(tree), "weights")["Arch"]
    for key in where:
        section = section[key]
    assert section["pretrained"].endswith("/weights")
