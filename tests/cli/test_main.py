"""What a user who types something wrong is told, and the exit code that goes with it."""

import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from ppcls_ssld import parallel, targets
from ppcls_ssld.cli.main import VERBS, main
from ppcls_ssld.errors import EXIT_USER

SOURCE = "DataLoader.Train.sources.0"


@pytest.fixture
def config(tmp_path):
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((32, 32, 3), 60 * i, np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i % 2}\n" for i in range(4)))
    source = {"name": "few", "list": str(tmp_path / "list.txt"), "root": str(tmp_path)}
    ops = [{"DecodeImage": {}}, {"NormalizeImage": {"order": ""}}]
    tree = {
        "Global": {"output_dir": str(tmp_path / "run"), "image_shape": [3, 32, 32], "epochs": 1},
        "Arch": {"class_num": 2, "Student": {"name": "PPLCNet_x0_25"}},
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}]},
        "DataLoader": {"Train": {"sources": [source], "transform_ops": ops, "batch_size": 2, "num_workers": 0},
                       "Eval": {"sources": [source], "transform_ops": ops, "batch_size": 2, "num_workers": 0}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def told(capsys, verb, config, *overrides):
    """What one command prints to stderr; it must fail as the user's to mend."""
    code = main([verb, "-c", str(config), *(part for o in overrides for part in ("-o", o))])
    assert code == EXIT_USER
    return capsys.readouterr().err


@pytest.mark.parametrize("override,answer", [
    ("Global.epohcs=3", "did you mean 'epochs'"),
    ("Global.epochs=__import__('os')", "Global.epochs: expected a positive integer"),
    ("Global.device=gpux", "expected cpu, gpu, gpu:N"),
    ("Global.device=gpu", "take -o Global.device=cpu"),
    ("Arch.Student.name=PPLCNt_x0_25", "did you mean 'PPLCNet_x0_25'"),
    ("Arch.Student.pretrained=nowhere", "no such weights file"),
    ("Arch.Student.scalee=2", "no argument 'scalee'; did you mean 'scale'"),
    ("Loss.Train.0.CELoss.wieght=2", "did you mean 'weight'"),
    ("Optimizer.name=Momentun", "did you mean 'Momentum'"),
    ("DataLoader.Train.transform_ops.1.NormalizeImage.meen=0", "did you mean 'mean'"),
    (f"{SOURCE}.list=nowhere.txt", "nowhere.txt"),
    ("Arch.class_num=1", "class_num"),
])
def test_a_wrong_value_is_answered_with_what_to_do(config, capsys, override, answer):
    assert answer in told(capsys, "train", config, override)


def test_a_missing_config_is_named(tmp_path, capsys):
    assert "nowhere.yaml: cannot be read" in told(capsys, "train", tmp_path / "nowhere.yaml")


def test_a_label_out_of_range_names_file_and_line(config, capsys):
    (config.parent / "list.txt").write_text("0.png 0\n1.png 7\n")
    message = told(capsys, "train", config)
    assert "list.txt:2" in message and "7" in message


def test_an_empty_list_is_named(config, capsys):
    (config.parent / "list.txt").write_text("\n")
    assert "list.txt" in told(capsys, "train", config)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_stops_the_run_with_its_path(config, capsys, workers):
    (config.parent / "2.png").write_bytes(b"this is no image")
    message = told(capsys, "train", config, f"DataLoader.Train.num_workers={workers}",
                   "Global.eval_during_train=false")
    assert "2.png" in message and "on_corrupt" in message


def test_a_corrupt_image_is_skipped_and_counted_when_asked(config, capsys):
    (config.parent / "2.png").write_bytes(b"this is no image")
    code = main(["train", "-c", str(config), "-o", "DataLoader.Train.on_corrupt=skip", "-o",
                 "Global.eval_during_train=false", "-o", "Global.print_batch_step=1"])
    assert code == 0
    rows = [yaml.safe_load(line) for line in (config.parent / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["skipped"] == 1
    assert "2.png" in capsys.readouterr().out


def test_training_refuses_weights_that_it_would_not_read_and_says_where_they_belong(config, capsys):
    weights, network = "Global.pretrained_model=some/weights", "{name: PPLCNet_x0_25}"
    assert "starts from Arch.Student.pretrained;" in told(capsys, "train", config, weights)
    one = "Arch={name: PPLCNet_x0_25, class_num: 2}"
    assert "starts from Arch.pretrained;" in told(capsys, "train", config, weights, one)
    theirs = f"Arch={{name: DistillationModel, class_num: 2, models: [{{Teacher: {network}}}, {{Student: {network}}}]}}"
    assert "starts from Arch.models.1.Student.pretrained;" in told(capsys, "train", config, weights, theirs)
    assert not (config.parent / "run").exists()
    assert "pretrained_model" not in told(capsys, "train", config, "Global.pretrained_model=null", "Optimizer.name=X")


def test_processes_that_write_targets_say_that_nobody_checks_the_teacher(config, capsys, monkeypatch):
    def write_targets(*_, look_at):
        look_at(SimpleNamespace(role="Teacher"))

    monkeypatch.setattr(targets, "write_targets", write_targets)
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    teacher = "Arch.Teacher={name: PPLCNet_x0_25, bn_mode: eval, allow_partial: true}"
    flags = ("-o", teacher, "-o", "Loss.Train=[{SymmetricKL: {}}]", "--output", str(config.parent / "targets"))
    for rank, times in ((0, 1), (1, 0)):
        monkeypatch.setattr(parallel, "rank", lambda: rank)
        assert main(["targets", "write", "-c", str(config), *flags]) == 0
        assert capsys.readouterr().out.count("Teacher: not checked on the Eval list, which several processes") == times


def test_eval_without_weights_says_how_to_give_them(config, capsys):
    assert "Global.pretrained_model" in told(capsys, "eval", config)


def test_weights_of_another_network_are_refused_at_evaluation(config, capsys, tmp_path):
    import paddle
    paddle.save({"w": paddle.zeros([1])}, str(tmp_path / "other.pdparams"))
    assert "fits the network" in told(capsys, "eval", config, f"Global.pretrained_model={tmp_path}/other")


@pytest.mark.end_to_end
@pytest.mark.parametrize("verb", VERBS)
def test_help_needs_no_paddle(verb):
    code = f"import sys; sys.modules['paddle'] = None; sys.argv = ['x', '{verb}', '--help']; " \
           "from ppcls_ssld.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "usage: ppcls-ssld" in done.stdout, done.stderr
