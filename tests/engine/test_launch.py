"""Two processes under paddle.distributed.launch do what one does."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from ppcls_ssld.config import resolve
from ppcls_ssld.engine import evaluate
from ppcls_ssld.targets import WriteOptions, write_targets

from world import changed, rows, run, student

pytestmark = pytest.mark.end_to_end
LAUNCH = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]


def launch(tool, tree, tmp_path, *flags):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    done = subprocess.run([*LAUNCH, "--log_dir", str(tmp_path / "log"), f"tools/{tool}.py", "-c", str(path), *flags],
                          capture_output=True, text=True)
    logs = "".join(p.read_text() for p in (tmp_path / "log").glob("workerlog.*"))
    assert done.returncode == 0, (done.stdout + done.stderr + logs)[-4000:]
    return done.stdout + logs


@pytest.mark.parametrize("batch_size, update_freq", [(4, 1), (2, 2)])
def test_two_processes_give_the_losses_of_one_for_the_same_global_batch(tree, tmp_path, batch_size, update_freq):
    """Student batch norm in eval: with live statistics each process would normalise with its own half of the batch,
    which is another (legitimate) computation. Labelled images are spread unevenly over the two processes."""
    losses = [{"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}, {"SymmetricKL": {"weight": 1.0}}]
    tree = changed(tree, Arch__Student__bn_mode="eval", Arch__Student__dropout_prob=0.0, Loss__Train=losses)
    one = run(tree)
    two = changed(tree, Global__output_dir=one.output_dir + "_two", Global__update_freq=update_freq,
                  DataLoader__Train__batch_size=batch_size)
    launch("train", two, tmp_path)
    for a, b in zip(rows(one.output_dir), rows(one.output_dir + "_two"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert b["parts"] == pytest.approx(a["parts"], rel=1e-4)
    ours, theirs = student(one.output_dir, 5), student(one.output_dir + "_two", 5)
    for key in ours:
        np.testing.assert_allclose(theirs[key], ours[key], rtol=1e-2, atol=1e-4)


def test_what_two_processes_evaluate_is_the_student_that_they_save(tree, tmp_path):
    """Live batch norm: running statistics differ between processes, and those of one are saved. The loss is on a feature
    tap alone, so that the classifier has no part in it."""
    tree = changed(tree, Global__eval_during_train=True, Loss__Eval=[{"CELoss": {"weight": 1.0}}],
                   Arch__Student={"name": "PPLCNet_x0_25"}, Optimizer__lr={"name": "Constant", "learning_rate": 0.001},
                   Loss__Train=[{"DistillationDistanceLoss": {"model_name_pairs": [["Student", "Teacher"]],
                                                              "key": "blocks6"}}])
    launch("train", tree, tmp_path)
    folder = tree["Global"]["output_dir"]
    told = rows(folder, "eval")[-1]
    scored = evaluate(resolve(changed(tree, Global__pretrained_model=f"{folder}/checkpoints/00000003/student")))
    assert scored.loss == pytest.approx(told["loss"], rel=1e-4) and scored.accuracy["top1"] == told["top1"]


def test_two_processes_evaluate_every_image_once(tree, tmp_path):
    result = run(changed(tree, Global__eval_during_train=True))
    want = rows(result.output_dir, "eval")[-1]
    # 24 images in batches of 5 over two processes: partial batches on both
    tree = changed(tree, DataLoader__Eval__batch_size=5)
    out = launch("eval", tree, tmp_path, "-o", f"Global.pretrained_model={result.student_weights}", "--json")
    found = json.loads(re.search(r"\{.*\}", out)[0])
    assert found["images"] == 24 == want["images"]
    assert found["top1"] == pytest.approx(want["top1"]) and found["top2"] == pytest.approx(want["top2"])


def test_two_processes_learn_from_stored_answers_what_one_does(tree, tmp_path):
    tree = changed(tree, Arch__Student__bn_mode="eval", Arch__Student__dropout_prob=0.0,
                   DataLoader__Train__batch_transform_ops=[{"Mixup": {"alpha": 0.5}}])
    write_targets(resolve(tree), WriteOptions(str(tmp_path / "targets"), views=2, top_k=2), 1.0, say=lambda text: None)
    one = run(changed(tree, Global__targets=str(tmp_path / "targets")))
    two = changed(tree, Global__targets=str(tmp_path / "targets"), Global__output_dir=one.output_dir + "_two",
                  DataLoader__Train__batch_size=4)
    launch("train", two, tmp_path)
    for a, b in zip(rows(one.output_dir), rows(one.output_dir + "_two"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)


def test_two_processes_count_several_labels_an_image_as_one_does(pulc, tmp_path):
    result = run(changed(pulc, Global__max_steps=3))
    want = rows(result.output_dir, "eval")[-1]
    tree = changed(pulc, DataLoader__Eval__sampler__batch_size=5)
    out = launch("eval", tree, tmp_path, "-o", f"Global.pretrained_model={result.student_weights}", "--json")
    found = json.loads(re.search(r"\{.*\}", out)[0])
    assert {key: want[key] for key in found if key not in ("loss", "skipped")} == \
        {key: value for key, value in found.items() if key not in ("loss", "skipped")}
    assert found["loss"] == pytest.approx(want["loss"], rel=1e-4)
