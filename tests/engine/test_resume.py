"""A run that was cut off and resumed equals the unbroken one, bit for bit."""

import importlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import paddle
import pytest
import yaml

from ppcls_ssld.arch import read_arrays
from ppcls_ssld.engine.checkpoint import TrainState, load_checkpoint, save_checkpoint
from ppcls_ssld.errors import EXIT_STOPPED, ConfigError

from world import Cut, changed, checkpoints, cut_after, cut_and_resumed, rows, run, same_arrays, student


VARIANTS = {
    "momentum": {},
    "adamw_ema_dropout": {"Optimizer": {"name": "AdamW", "weight_decay": 0.01,
                                        "lr": {"name": "Cosine", "learning_rate": 0.001, "warmup_epoch": 1}},
                          "EMA": {"decay": 0.9}, "Arch__Student__dropout_prob": 0.5},
    "live_teacher_accumulated": {"Arch__Teacher__bn_mode": "batch_stats", "Global__update_freq": 2,
                                 "DataLoader__Train__batch_size": 4},
    "workers": {"DataLoader__Train__num_workers": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_cut_in_mid_epoch_and_resumed_equals_unbroken(tree, monkeypatch, variant):
    tree = changed(tree, Global__epochs=2, Global__save_steps=2, Global__eval_during_train=True, **VARIANTS[variant])
    whole, resumed = cut_and_resumed(tree, monkeypatch)
    assert rows(resumed.output_dir) == rows(whole.output_dir)
    assert rows(resumed.output_dir, "eval") == rows(whole.output_dir, "eval")
    assert same_arrays(student(resumed.output_dir, 10), student(whole.output_dir, 10))
    assert (resumed.best, resumed.last) == (whole.best, whole.last)


def test_resuming_under_another_teacher_keeps_the_optimisers_state(tree):
    """Optimiser state is keyed by parameter names; those must not depend on what else is built."""
    first = run(changed(tree, Global__max_steps=3))
    tree["Arch"]["Teacher"] = {"name": "ResNet18_vd", "bn_mode": "eval", "engine": "eager", "allow_partial": True}
    second = run(changed(tree, Global__checkpoints="auto", Global__max_steps=4, Global__allow_chance_teacher=True))
    before, after = (read_arrays(f"{r.output_dir}/checkpoints/{r.steps:08d}/optimizer.pdopt") for r in (first, second))
    assert before.keys() == after.keys() and len(before) > 100


@pytest.mark.parametrize("change", [{"Global__seed": 5}, {"DataLoader__Train__batch_size": 4}])
def test_another_seed_or_batch_is_refused(tree, change):
    run(changed(tree, Global__max_steps=2))
    with pytest.raises(ConfigError, match="make them equal"):
        run(changed(tree, Global__checkpoints="auto", **change))


def test_lists_of_another_length_are_refused(tree, world, tmp_path):
    run(changed(tree, Global__max_steps=2))
    shorter = tmp_path / "shorter.txt"
    shorter.write_text("".join((world / "labelled.txt").read_text().splitlines(keepends=True)[:-1]))
    tree["DataLoader"]["Train"]["sources"][0]["list"] = str(shorter)
    with pytest.raises(ConfigError, match=r"sources of \[24, 16\] images, this run has \[23, 16\]"):
        run(changed(tree, Global__checkpoints="auto"))


def test_going_back_to_an_older_checkpoint_is_refused_while_newer_ones_exist(tree):
    first = run(changed(tree, Global__save_steps=2, Global__keep_checkpoints=5))
    older = f"{first.output_dir}/checkpoints/00000002"
    with pytest.raises(ConfigError, match="is older than .*00000005"):
        run(changed(tree, Global__checkpoints=older))
    elsewhere = run(changed(tree, Global__checkpoints=older, Global__output_dir=first.output_dir + "_branch"))
    assert [row["step"] for row in rows(elsewhere.output_dir)] == [3, 4, 5]


@pytest.mark.parametrize("left", ["checkpoints", "best_model.pdparams"])
def test_going_on_from_another_run_in_a_used_folder_is_refused_and_changes_nothing(tree, left):
    """Its higher step numbers would outlive every new checkpoint."""
    other = run(changed(tree, Global__output_dir=tree["Global"]["output_dir"] + "_other", Global__max_steps=2))
    first = run(changed(tree, Global__eval_during_train=True))
    for path in {"checkpoints", "best_model.pdparams"} - {left}:
        Path(first.output_dir, path).rename(Path(first.output_dir, "moved_" + path))
    kept = rows(first.output_dir)
    with pytest.raises(ConfigError, match=f"already holds a run .*{other.output_dir}.*another output_dir"):
        run(changed(tree, Global__checkpoints=other.output_dir))
    assert rows(first.output_dir) == kept


@pytest.mark.parametrize("where", ["score", "save_best", "save_state"])
def test_a_run_cut_off_in_an_evaluation_does_that_evaluation_again_and_nothing_else(tree, monkeypatch, where):
    tree = changed(tree, Global__epochs=2, Global__eval_during_train=True, EMA={"decay": 0.5})
    whole = run(tree)
    cut = changed(tree, Global__output_dir=whole.output_dir + "_cut")

    def fail(*args, **kwargs):
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("ppcls_ssld.engine.train"), where, fail)
        with pytest.raises(Cut):
            run(cut)
    assert checkpoints(cut["Global"]["output_dir"]) == ["00000005"]  # no training is lost
    resumed = run(changed(cut, Global__checkpoints="auto"))
    for kind in ("train", "eval"):
        assert rows(resumed.output_dir, kind) == rows(whole.output_dir, kind)
    assert same_arrays(student(resumed.output_dir, 10), student(whole.output_dir, 10))
    assert (resumed.best, resumed.last) == (whole.best, whole.last)
    evaluated = len(rows(whole.output_dir, "eval"))
    run(changed(cut, Global__checkpoints="auto"))  # all is done, and known to be
    assert len(rows(whole.output_dir + "_cut", "eval")) == evaluated


def test_a_resume_that_finds_nothing_says_so_and_drops_the_rows_of_a_killed_start(tree, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        with pytest.raises(Cut):
            run(tree)
    result = run(changed(tree, Global__checkpoints="auto"))
    assert "nothing to resume" in capsys.readouterr().out
    assert [row["step"] for row in rows(result.output_dir)] == [1, 2, 3, 4, 5]


def test_optimiser_tensors_keep_their_names_through_a_checkpoint(tmp_path):
    """AMP O2 keys accumulators by the names of the master weights, which sit in a nested dict."""
    master = paddle.to_tensor([1.0, 2.0])
    master.name = "weight_fp32_master_0"

    class Optimizer:
        def state_dict(self):
            return {"master_weights": {"weight": master}, "weight_fp32_master_0_velocity_0": paddle.zeros([2])}

    folder = save_checkpoint(str(tmp_path), {"student": {}}, Optimizer(), TrainState(step=1), keep=1)
    _, _, optimizer = load_checkpoint(folder)
    assert optimizer["master_weights"]["weight"].name == "weight_fp32_master_0"
    assert optimizer["master_weights"]["weight"].tolist() == [1.0, 2.0]


def test_a_checkpoint_from_when_accuracy_was_top1_alone_is_read(tmp_path):
    linear = paddle.nn.Linear(2, 2)
    optimizer = paddle.optimizer.Momentum(parameters=linear.parameters())
    state = TrainState(step=3, best=0.5, last=0.25)
    folder = save_checkpoint(str(tmp_path), {"student": linear.state_dict()}, optimizer, state, 1)
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text.replace('"best"', '"best_top1"').replace('"last"', '"last_top1"'))
    state, _, _ = load_checkpoint(folder)
    assert (state.step, state.best, state.last) == (3, 0.5, 0.25)


@pytest.mark.parametrize("metric, kept", [("ma", False), ("top1", True), (None, True)])
def test_the_best_of_another_measure_is_left_behind(tree, capsys, metric, kept):
    """A checkpoint that names no measure is from when there was top-1 alone."""
    tree = changed(tree, Global__eval_during_train=True)
    first = run(changed(tree, Global__max_steps=2))
    file = Path(first.output_dir, "checkpoints", "00000002", "state.json")
    state = json.loads(file.read_text())
    assert state.pop("metric") == "top1" and state["best"] == first.best
    file.write_text(json.dumps(state | {"best": 1.5} | ({"metric": metric} if metric else {})))
    second = run(changed(tree, Global__checkpoints="auto", Global__max_steps=3))
    assert second.best == (1.5 if kept else rows(first.output_dir, "eval")[-1]["top1"])
    assert json.load(open(f"{first.output_dir}/best_model.json"))["step"] == (2 if kept else 3)
    assert ("the best and the last ma are left behind" in capsys.readouterr().out) is not kept
    state = json.loads(Path(first.output_dir, "checkpoints", "00000003", "state.json").read_text())
    assert (state["metric"], state["best"]) == ("top1", second.best)


def test_resume_says_what_changed(tree, capsys):
    run(changed(tree, Global__max_steps=2))
    run(changed(tree, Global__checkpoints="auto", Optimizer__momentum=0.8))
    assert "momentum" in capsys.readouterr().out


DRIVER = textwrap.dedent("""
    import os, signal, sys
    from ppcls_ssld.cli.main import main
    from ppcls_ssld.engine.step import TrainStep
    original, count = TrainStep.__call__, [0]
    def step(self, *args, **kwargs):
        count[0] += 1
        if count[0] == {at}:
            os.kill(os.getpid(), signal.{signal})
        return original(self, *args, **kwargs)
    TrainStep.__call__ = step
    sys.exit(main(["train", "-c", sys.argv[1], *sys.argv[2:]]))
""")


@pytest.mark.end_to_end
@pytest.mark.parametrize("signal,code", [("SIGKILL", -9), ("SIGTERM", EXIT_STOPPED), ("SIGINT", EXIT_STOPPED)])
def test_a_killed_process_started_again_equals_the_unbroken_run(tree, tmp_path, signal, code):
    tree = changed(tree, Global__epochs=2, Global__save_steps=2)
    whole = run(tree)
    cut = changed(tree, Global__output_dir=whole.output_dir + "_cut")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(cut))
    first = subprocess.run([sys.executable, "-c", DRIVER.format(at=6, signal=signal), str(path)], capture_output=True)
    assert first.returncode == code, first.stderr.decode()[-2000:]
    second = subprocess.run([sys.executable, "-m", "ppcls_ssld", "train", "-c", str(path), "--resume"],
                            capture_output=True)
    assert second.returncode == 0, second.stderr.decode()[-2000:]
    assert rows(whole.output_dir + "_cut") == rows(whole.output_dir)
    assert same_arrays(student(whole.output_dir + "_cut", 10), student(whole.output_dir, 10))


def test_going_on_from_the_last_step_of_another_run_leaves_a_student_here(tree):
    first = run(changed(tree, Global__max_steps=2))
    second = run(changed(tree, Global__max_steps=2, Global__checkpoints=first.output_dir,
                         Global__output_dir=first.output_dir + "_again"))
    assert second.student_weights.startswith(second.output_dir)
    assert same_arrays(read_arrays(second.student_weights), student(first.output_dir, 2))
    saved = Path(second.student_weights).stat().st_mtime_ns
    run(changed(tree, Global__max_steps=2, Global__checkpoints="auto", Global__output_dir=second.output_dir))
    assert Path(second.student_weights).stat().st_mtime_ns == saved  # it is there already
