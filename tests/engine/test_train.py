"""A run learns from the teacher alone, touches the teacher never, and stops when something is wrong."""

import importlib
import io
import json
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import read_arrays
from ppcls_ssld.config import load_config, resolve
from ppcls_ssld.engine import train
from ppcls_ssld.engine.evaluate import eval_reader
from ppcls_ssld.engine.preflight import chance_bound
from ppcls_ssld.engine.task import DistillationTask, build_loss
from ppcls_ssld.engine.train import Run
from ppcls_ssld.engine.logbook import Logbook
from ppcls_ssld.errors import CheckpointError, ConfigError, DataError, DivergedError, WeightsError

from world import NORMALIZE, changed, checkpoints, rows, run, same_arrays, student


def test_the_loss_falls_and_every_step_has_a_row(tree):
    result = run(changed(tree, Global__epochs=4))
    losses = [row["loss"] for row in rows(result.output_dir)]
    assert result.steps == len(losses) == 20
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_wrong_labels_change_nothing_in_a_label_free_run(tree, world):
    first = run(tree)
    poisoned = changed(tree, Global__output_dir=tree["Global"]["output_dir"] + "_poisoned")
    poisoned["DataLoader"]["Train"]["sources"][0]["list"] = str(world / "poisoned.txt")
    second = run(poisoned)
    assert rows(first.output_dir) == rows(second.output_dir)
    assert same_arrays(student(first.output_dir, 5), student(second.output_dir, 5))


def test_a_term_that_uses_labels_does_notice_wrong_labels(tree, world):
    losses = [{"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}, {"SymmetricKL": {"weight": 1.0}}]
    first = run(changed(tree, Loss__Train=losses))
    poisoned = changed(tree, Loss__Train=losses, Global__output_dir=tree["Global"]["output_dir"] + "_poisoned")
    poisoned["DataLoader"]["Train"]["sources"][0]["list"] = str(world / "poisoned.txt")
    assert rows(first.output_dir)[0]["loss"] != rows(run(poisoned).output_dir)[0]["loss"]


@pytest.mark.parametrize("bn_mode", ["eval", "batch_stats"])
def test_the_teacher_is_bit_identical_after_training_and_in_no_checkpoint(tree, world, bn_mode):
    tree = changed(tree, Arch__Teacher__bn_mode=bn_mode)
    with Logbook(tree["Global"]["output_dir"], True) as log:
        job = Run(resolve(tree), log)
        job.go()
        teacher = job.task.teachers["Teacher"].network
        in_optimizer = {p.name for p in job.optimizer._parameter_list}
    given = read_arrays(world / "teacher.pdparams")
    assert same_arrays({k: v.numpy() for k, v in teacher.state_dict().items()}, given)
    assert not in_optimizer & {p.name for p in teacher.parameters()}
    folder = f"{tree['Global']['output_dir']}/checkpoints/00000005"
    own = {k for k, _ in job.task.student.state_dict().items()}
    assert set(read_arrays(f"{folder}/student.pdparams")) == own
    assert not [k for k in read_arrays(f"{folder}/optimizer.pdopt") if "Teacher" in k]


def test_the_two_teacher_engines_give_the_same_losses(tree):
    traces = []
    for engine in ("eager", "inference"):
        traces.append(rows(run(changed(tree, Arch__Teacher__engine=engine,
                                       Global__output_dir=tree["Global"]["output_dir"] + engine)).output_dir))
    # the first step starts from the same weights; later ones carry the rounding of the first along
    assert traces[0][0]["loss"] == pytest.approx(traces[1][0]["loss"], rel=1e-4)
    assert traces[0][-1]["loss"] == pytest.approx(traces[1][-1]["loss"], rel=1e-2)


def test_accumulated_micro_batches_equal_the_big_batch(tree):
    """Without batch statistics the gradient is a mean over images, however they are grouped; also for a loss on the
    labelled images only, of which the groups hold different numbers."""
    losses = [{"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}, {"SymmetricKL": {"weight": 1.0}}]
    tree = changed(tree, Arch__Student__bn_mode="eval", Arch__Student__dropout_prob=0.0, Loss__Train=losses)
    whole = rows(run(tree).output_dir)
    parts = rows(run(changed(tree, Global__update_freq=4, DataLoader__Train__batch_size=2,
                             Global__output_dir=tree["Global"]["output_dir"] + "_parts")).output_dir)
    np.testing.assert_allclose([r["loss"] for r in parts], [r["loss"] for r in whole], rtol=1e-4)


def test_mutual_learning_trains_both_networks_and_keeps_both(tree):
    tree = changed(tree, Loss__Train=[
        {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student", "Peer"]}},
        {"DistillationDMLLoss": {"weight": 1.0, "model_name_pairs": [["Student", "Peer"]]}}])
    del tree["Arch"]["Teacher"]
    tree["Arch"]["Peer"] = {"name": "PPLCNet_x0_25", "frozen": False}
    before = DistillationTask(resolve(tree)).state()
    folder = run(tree).output_dir + "/checkpoints/00000005"
    for stem in ("student", "Peer"):
        after = read_arrays(f"{folder}/{stem}.pdparams")
        weights = [k for k in after if k.endswith("weight")]
        assert all(not np.array_equal(after[k], before[stem][k].numpy()) for k in weights)


def test_the_average_is_evaluated_and_saved_beside_the_student(tree):
    result = run(changed(tree, EMA={"decay": 0.5}, Global__eval_during_train=True))
    assert [r["weights"] for r in rows(result.output_dir, "eval")] == ["student", "ema"]
    folder = f"{result.output_dir}/checkpoints/00000005"
    assert not same_arrays(read_arrays(f"{folder}/ema.pdparams"), read_arrays(f"{folder}/student.pdparams"))


def test_a_teacher_at_chance_level_stops_the_run_unless_allowed(tree):
    tree = changed(tree, Global__teacher_check_images=24)
    with pytest.raises(WeightsError, match="guessing gives 25.00%.*allow_chance_teacher"):
        run(tree)
    run(changed(tree, Global__allow_chance_teacher=True))


def test_top_1_is_counted_and_decides_also_where_another_k_is_asked_for(tree, capsys):
    """Three of four classes are right in three of four guesses, which is no knowledge."""
    tree = changed(tree, Metric={"topk": [3]}, Global__teacher_check_images=24)
    with pytest.raises(WeightsError, match="the teacher's top-1 is .* guessing gives 25.00%"):
        run(tree)
    result = run(changed(tree, Global__allow_chance_teacher=True, Global__eval_during_train=True))
    row, = rows(result.output_dir, "eval")
    assert result.best == row["top1"] < row["top3"]
    assert json.load(open(f"{result.output_dir}/best_model.json"))["top1"] == result.best
    assert f"best top-1 {result.best:.2%}" in capsys.readouterr().out


def test_a_loss_that_reads_labels_is_refused_where_there_are_none(tree):
    sources = tree["DataLoader"]["Train"]["sources"]
    labels = changed(tree, Loss__Train=[{"SymmetricKL": {}}, {"CELoss": {}}], Global__max_steps=1)
    with pytest.raises(ConfigError, match="Loss.Train: CELoss would learn from labels.*'many' has labelled: false"):
        run(changed(labels, DataLoader__Train__sources=sources[1:]))
    assert run(labels).steps == 1
    assert run(changed(tree, DataLoader__Train__sources=sources[1:], Global__max_steps=1,
                       Global__output_dir=tree["Global"]["output_dir"] + "_free")).steps == 1


def test_a_teacher_without_its_head_stops_the_run(tree, world):
    arrays = {k: paddle.to_tensor(v) for k, v in read_arrays(world / "teacher.pdparams").items() if "fc" not in k}
    paddle.save(arrays, str(world / "headless.pdparams"))
    with pytest.raises(WeightsError, match="must be loaded whole.*fc.weight"):
        run(changed(tree, Arch__Teacher__pretrained=str(world / "headless.pdparams")))


def test_a_loss_that_is_not_finite_names_step_values_and_samples(tree):
    with pytest.raises(DivergedError, match=r"step \d+: loss is not finite.*sample ids of this rank: \[\d+"):
        run(changed(tree, Optimizer__lr={"name": "Constant", "learning_rate": 1e30}, Global__epochs=3))


def test_a_frozen_teacher_without_weights_stops_the_run(tree):
    with pytest.raises(WeightsError, match="teaches noise.*allow_partial"):
        run(changed(tree, Arch__Teacher__pretrained=None))


def test_a_teacher_that_needs_batch_statistics_is_checked_on_a_mixed_order(tree, world, monkeypatch):
    """Lists are often sorted by class; batches of one class would make a good teacher look bad."""
    lines = sorted((world / "labelled.txt").read_text().splitlines(), key=lambda line: line.split()[1])
    (world / "sorted.txt").write_text("\n".join(lines))
    tree["DataLoader"]["Eval"]["sources"][0]["list"] = str(world / "sorted.txt")
    labels = np.concatenate([b.labels for b in eval_reader(resolve(tree), limit=24).batches()])
    assert sorted(labels) == sorted([0, 1, 2, 3] * 6) and len(set(labels[:6])) > 1


def test_a_teacher_that_is_always_right_passes_however_few_the_images():
    assert chance_bound(class_num=2, images=8) < 1
    assert chance_bound(class_num=10, images=512) == pytest.approx(0.1 + 3 * (0.09 / 512) ** 0.5)


def test_an_evaluation_lists_the_corrupt_images_it_leaves_out(tree, world, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    listed = tmp_path / "with_bad.txt"
    good = [f"{world}/{line}" for line in (world / "labelled.txt").read_text().splitlines()[:10]]
    listed.write_text("\n".join([*good, f"{tmp_path}/bad.png 0"]))  # alone in the second batch of ten
    tree = changed(tree, Global__eval_during_train=True, DataLoader__Eval__on_corrupt="skip")
    tree["DataLoader"]["Eval"]["sources"][0].update(list=str(listed), root="/")
    assert rows(run(tree).output_dir, "eval")[-1]["images"] == 10
    assert "bad.png" in capsys.readouterr().out


def test_metrics_on_a_full_disk_are_told_in_one_sentence(tree, tmp_path):
    with Logbook(str(tmp_path / "log"), True) as log:
        log._metrics.close()
        log._metrics = open("/dev/full", "w", buffering=1)
        with pytest.raises(CheckpointError, match="metrics.jsonl: cannot be written"):
            log.eval_row({"step": 1, "weights": "student", "images": 1}, {"top1": 1.0})
        log._metrics = open("/dev/null", "w")


def test_a_network_that_no_loss_uses_is_refused(tree):
    tree["Arch"]["Spare"] = {"name": "PPLCNet_x0_25", "frozen": False}
    with pytest.raises(ConfigError, match="Arch.Spare is not trained by any loss"):
        run(tree)


def test_a_network_that_is_only_a_target_is_trained_by_nothing_and_refused(tree):
    tree["Arch"]["Peer"] = {"name": "PPLCNet_x0_25", "frozen": False}
    one_sided = {"KLDivergence": {"student": "Student", "teacher": "Peer"}}
    tree = changed(tree, Loss__Train=[{"SymmetricKL": {}}, one_sided])
    with pytest.raises(ConfigError, match="Arch.Peer is not trained by any loss: .* only what another network"):
        build_loss(resolve(tree))
    for more in ({"KLDivergence": {"student": "Peer", "teacher": "Student"}},
                 {"SymmetricKL": {"student": "Student", "teacher": "Peer"}},
                 {"DistillationGTCELoss": {"model_names": ["Peer"]}}):
        assert "Peer" in build_loss(resolve(changed(tree, Loss__Train=[{"SymmetricKL": {}}, one_sided, more]))).trained


def test_a_folder_with_a_run_in_it_is_not_overwritten(tree):
    run(tree)
    with pytest.raises(ConfigError, match="already holds a run.*--resume"):
        run(tree)


def test_a_best_model_alone_is_a_run_too_and_never_taken_for_that_of_the_next(tree):
    folder = Path(run(changed(tree, Global__eval_during_train=True)).output_dir)
    (folder / "checkpoints").rename(folder / "moved")
    with pytest.raises(ConfigError, match=r"already holds a run \(best_model.pdparams\).*--resume"):
        run(tree)
    result = run(changed(tree, Global__checkpoints="auto"))  # from step 0, and nothing is evaluated
    assert result.best is None and result.student_weights == f"{folder}/checkpoints/00000005/student.pdparams"


def test_rows_are_dropped_when_training_starts_and_not_before(tree):
    """What a killed start left is of use until then."""
    folder = Path(tree["Global"]["output_dir"])
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n')
    wrong = changed(tree)
    wrong["DataLoader"]["Train"]["sources"][0]["list"] = "no_such_list.txt"
    with pytest.raises(DataError, match="no_such_list"):
        run(wrong)
    assert len(rows(folder)) == 1
    run(tree)
    assert [row["step"] for row in rows(folder)] == [1, 2, 3, 4, 5]


def test_file_names_that_are_no_utf_8_are_written_as_they_are_and_said_with_escapes(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    with Logbook(str(tmp_path), True) as log:
        log._stream = io.TextIOWrapper(said := io.BytesIO(), "utf-8")
        log.say(f"skipped: {name}, \u732b")
        assert log.save_text("skipped.txt", f"1\t{name}\n").read_bytes() == b"1\tcaf\xe9.png\n"
        assert said.getvalue().decode() == "skipped: caf\\udce9.png, \u732b\n"


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_the_student_of_16_bits_is_evaluated_under_autocast_and_so_is_its_average(tree, monkeypatch, level):
    """O2 alone turns the weights themselves into 16 bits. On CPU Paddle casts nothing, so what is looked at is where."""
    engine = {name: importlib.import_module(f"ppcls_ssld.engine.{name}") for name in ("train", "evaluate")}
    monkeypatch.setattr(engine["train"], "fitted_to_device", lambda config: (config, []))
    inside, seen = [], []

    @contextmanager
    def auto_cast(level, dtype):
        inside.append((level, dtype))
        yield
        inside.pop()

    def logits_of(output):
        seen.append(tuple(inside))
        return output

    tree = changed(tree, AMP={"use_amp": True, "level": level, "dtype": "bfloat16"}, EMA={"decay": 0.5},
                   Arch__Teacher__engine="eager", Global__eval_during_train=True)
    with Logbook(tree["Global"]["output_dir"], True) as log:
        job = Run(resolve(tree), log)
        monkeypatch.setattr(engine["evaluate"], "logits_of", logits_of)
        monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
        job._evaluate()
    assert seen == [(("O2", "bfloat16"),) if level == "O2" else ()] * 6  # three batches, student and average


def test_shared_statistics_reach_the_average_too(tree):
    """They come from rank 0 outside a step, where the average takes them over."""
    task = DistillationTask(resolve(changed(tree, EMA={"decay": 0.5})))
    key = next(name for name in task.student.state_dict() if name.endswith("_mean"))
    weight = next(name for name, p in task.student.named_parameters() if not p.stop_gradient)
    own = task.student.state_dict()
    before = task.ema.shadow[weight].numpy().copy()
    for name in (key, weight):
        own[name].set_value(own[name] + 1.0)
    task.share_statistics()
    np.testing.assert_array_equal(task.ema.shadow[key].numpy(), own[key].numpy())
    np.testing.assert_array_equal(task.ema.shadow[weight].numpy(), before)


def test_a_full_disk_leaves_the_last_checkpoint_whole(tree):
    tree = changed(tree, Arch__Teacher__engine="eager")  # the inference engine's own files would hit the limit first
    first = run(changed(tree, Global__max_steps=2))
    before = student(first.output_dir, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # a file larger than this fails to be written
    try:
        with pytest.raises(CheckpointError, match="cannot be written.*--resume"):
            run(changed(tree, Global__checkpoints="auto"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints(first.output_dir) == ["00000002"]
    assert same_arrays(student(first.output_dir, 2), before)
    assert run(changed(tree, Global__checkpoints="auto")).steps == 5


def test_checkpoints_are_bounded_in_number(tree):
    result = run(changed(tree, Global__save_steps=1, Global__keep_checkpoints=2))
    assert checkpoints(result.output_dir) == ["00000004", "00000005"]


def test_the_saved_config_trains_the_same_run_again(tree):
    result = run(tree)
    config = load_config(f"{result.output_dir}/config.yaml", [f"Global.output_dir={result.output_dir}_again"])
    assert rows(train(config).output_dir) == rows(result.output_dir)


def test_visualdl_reads_back_what_was_written(tree):
    from visualdl import LogReader
    result = run(changed(tree, Global__use_visualdl=True, Global__eval_during_train=True))
    reader = LogReader(file_path=str(next(Path(result.output_dir, "vdl").glob("*.log"))))
    losses = [point.value for point in reader.get_data("scalar", "train/loss")]
    assert losses == pytest.approx([row["loss"] for row in rows(result.output_dir)], rel=1e-6)
    assert len(reader.get_data("scalar", "eval/top1")) == 1
    assert "train/0" in reader.get_tags().get("image", [])


def test_metrics_rows_carry_what_the_readme_promises(tree):
    row = [json.loads(line) for line in open(f"{run(tree).output_dir}/metrics.jsonl")][0]
    assert row["images_seen"] == 8 and set(row["share"]) == {"data", "teacher", "student"}
    assert sum(row["share"].values()) == pytest.approx(1)
    assert set(row) >= {"step", "epoch", "loss", "lr", "parts", "agreement", "images_per_s"}


def test_a_config_in_paddleclass_own_form_trains(world, tmp_path):
    """DistillationModel, CE between the two, one list: the shape of PaddleClas's CIFAR quick start, on our images."""
    dataset = {"name": "ImageNetDataset", "image_root": str(world), "cls_label_path": str(world / "labelled.txt"),
               "transform_ops": [{"DecodeImage": {"to_rgb": True, "channel_first": False}},
                                 {"RandCropImage": {"size": 32}}, {"RandFlipImage": {"flip_code": 1}}, NORMALIZE]}
    loader = {"num_workers": 1, "use_shared_memory": True}
    tree = {
        "Global": {"checkpoints": None, "pretrained_model": None, "output_dir": str(tmp_path / "run"), "device": "cpu",
                   "save_interval": 1, "eval_during_train": True, "eval_interval": 1, "epochs": 2, "to_static": False,
                   "print_batch_step": 1, "use_visualdl": False, "image_shape": [3, 32, 32]},
        "Arch": {"name": "DistillationModel", "pretrained_list": None, "freeze_params_list": [True, False],
                 "models": [{"Teacher": {"name": "PPLCNet_x0_25", "class_num": 4,
                                         "pretrained": str(world / "teacher")}},
                            {"Student": {"name": "MobileNetV3_small_x0_35", "class_num": 4, "pretrained": False}}],
                 "infer_model_name": "Student"},
        "Loss": {"Train": [{"DistillationCELoss": {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]]}}],
                 "Eval": [{"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}]},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "lr": {"name": "Cosine", "learning_rate": 0.04,
                                                                  "warmup_epoch": 1},
                      "regularizer": {"name": "L2", "coeff": 0.0001}},
        "DataLoader": {"Train": {"dataset": dataset, "loader": loader,
                                 "sampler": {"name": "DistributedBatchSampler", "batch_size": 8, "drop_last": False,
                                             "shuffle": True}},
                       "Eval": {"dataset": {**dataset, "transform_ops": dataset["transform_ops"][:1] + [NORMALIZE]},
                                "loader": loader, "sampler": {"name": "DistributedBatchSampler", "batch_size": 16,
                                                              "drop_last": False, "shuffle": False}}},
        "Metric": {"Train": [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 2]}}],
                   "Eval": [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 2]}}]},
    }
    result = run(changed(tree, Global__allow_chance_teacher=True))
    assert result.steps == 6 and len(rows(result.output_dir, "eval")) == 2
    assert rows(result.output_dir, "eval")[-1]["loss"] > 0
