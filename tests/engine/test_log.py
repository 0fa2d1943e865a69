"""What a run says of itself: whose time it was, how long it will take, who agrees; and when it cannot say it."""

import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from ppcls_ssld import parallel
from ppcls_ssld.engine.logbook import Logbook
from ppcls_ssld.engine.step import StepResult
from ppcls_ssld.engine.train import Run
from ppcls_ssld.engine.window import Window
from ppcls_ssld.errors import ConfigError
from ppcls_ssld.structs import Batch


def window_of(losses):
    """Of one step with 8 images: 1 s of waiting for data, 2 s of the teacher, 3 s of the student."""
    window = Window()
    window.add(1, [Batch(*np.zeros((6, 8)))], StepResult(losses, None, False, teacher_s=2.0, student_s=3.0), data_s=1.0)
    return window


def test_waiting_for_the_device_is_the_students_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Loss:
        def item(self):  # comes back when the device is done
            now[0] += 4.0
            return 1.0

    window = window_of({"loss": Loss()})
    window.check()
    assert (window.data_s, window.teacher_s, window.student_s) == (1.0, 2.0, 7.0)


def test_losses_and_agreement_of_a_row_are_means_over_the_ranks(monkeypatch):
    other_rank = paddle.to_tensor([3.0, 1.0])
    monkeypatch.setattr(parallel, "world_size", lambda: 2)
    monkeypatch.setattr(parallel, "sum_", lambda values: values + other_rank)
    run = SimpleNamespace(steps_per_epoch=5, global_batch=16, schedule=lambda step: 0.1,
                          reader=SimpleNamespace(skipped=Counter()))
    losses = {"loss": paddle.to_tensor(1.0)}
    row = Run._row(run, 1, StepResult(losses, paddle.to_tensor([True, False]), False, 2.0, 3.0), window_of(losses))
    assert (row["loss"], row["agreement"], row["parts"]) == (2.0, 0.75, {})
    other_rank = paddle.to_tensor([3.0])
    row = Run._row(run, 1, StepResult(losses, None, False, 2.0, 3.0), window_of(losses))
    assert (row["loss"], row["agreement"]) == (2.0, None)


def test_what_is_left_of_a_run_is_told_by_its_steps_and_not_by_what_came_before(tmp_path, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Logbook(str(tmp_path), True) as log:
        now[0] = 1000.0  # lists are read, teachers loaded
        log.start(0, 3)
        now[0] += 10.0
        log.train_row({"step": 1, "epoch": 1.0, "loss": 1.0, "lr": 0.1, "images_per_s": 1.0, "share": {}, "run_steps": 1,
                       "parts": {}}, 3)
    assert "eta 0:00:20" in capsys.readouterr().out


def test_rows_that_cannot_be_written_are_told_in_one_sentence(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(ConfigError, match="Global.output_dir: .*metrics.jsonl cannot be written"):
        Logbook(str(tmp_path), True)
