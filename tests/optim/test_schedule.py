"""Learning rates: PaddleClas's values at every step, and a pure function of the step."""

import json
import logging
from pathlib import Path

import pytest

from ppcls_ssld.errors import ConfigError
from ppcls_ssld.optim import build_schedule

GOLDEN = json.loads((Path(__file__).parent / "golden_schedules.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: " ".join(f"{k}={v}" for k, v in case["lr"].items()))
def test_every_step_has_the_rate_that_paddleclas_gives_it(case):
    schedule = build_schedule(case["lr"], case.get("epochs", 4), case.get("steps_per_epoch", 5), "Optimizer.lr")
    assert [schedule(step) for step in range(len(case["rates"]))] == pytest.approx(case["rates"], rel=1e-12, abs=1e-15)


def test_the_rate_of_a_step_does_not_depend_on_what_was_asked_before():
    lr = {"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 1}
    forward = build_schedule(lr, 4, 5, "Optimizer.lr")
    backward = build_schedule(lr, 4, 5, "Optimizer.lr")
    assert [forward(i) for i in range(20)] == [backward(i) for i in reversed(range(20))][::-1]


def test_cosine_ends_at_eta_min_and_stays_there():
    schedule = build_schedule({"name": "Cosine", "learning_rate": 0.1, "eta_min": 0.02}, 4, 5, "Optimizer.lr")
    assert schedule(20) == pytest.approx(0.02) and schedule(500) == pytest.approx(0.02)


def test_linear_by_epoch_counts_its_warm_up_in_epochs():
    lr = {"name": "Linear", "learning_rate": 0.1, "warmup_epoch": 2, "by_epoch": True}
    schedule = build_schedule(lr, 4, 5, "Optimizer.lr")
    assert [schedule(step) for step in (0, 4, 5, 9, 10, 15)] == pytest.approx([0.0, 0.0, 0.05, 0.05, 0.1, 0.05])


def test_warm_up_may_last_a_fraction_of_an_epoch():
    schedule = build_schedule({"name": "Constant", "learning_rate": 0.1, "warmup_epoch": 0.4}, 4, 5, "Optimizer.lr")
    assert [schedule(step) for step in range(4)] == pytest.approx([0.0, 0.05, 0.1, 0.1])


def test_a_rate_without_a_name_is_constant():
    schedule = build_schedule({"learning_rate": 0.3}, 2, 5, "Optimizer.lr")
    assert {schedule(step) for step in range(10)} == {0.3}


def test_a_cycle_starts_again_over_a_longer_time():
    schedule = build_schedule({"name": "Linear", "learning_rate": 0.1, "cycle": True}, 2, 5, "Optimizer.lr")
    assert schedule(10) == pytest.approx(0.0) and schedule(11) == pytest.approx(0.1 * (1 - 11 / 20))


def test_lists_of_piecewise_beside_the_same_rate_are_kept():
    lr = {"name": "Piecewise", "learning_rate": 0.1, "decay_epochs": [1, 2], "values": [0.1, 0.05, 0.01]}
    schedule = build_schedule(lr, 4, 5, "Optimizer.lr")
    assert [schedule(step) for step in (4, 5, 10)] == [0.1, 0.05, 0.01]


def test_the_callers_config_is_left_as_it_was():
    lr = {"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 1}
    build_schedule(lr, 4, 5, "Optimizer.lr")
    assert lr == {"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 1}


def test_a_warm_up_longer_than_the_run_is_cut_and_said(caplog):
    with caplog.at_level(logging.WARNING):
        build_schedule({"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 5}, 2, 5, "Optimizer.lr")
    assert "Optimizer.lr.warmup_epoch: 5 epochs of warm-up in a run of 2" in caplog.text


@pytest.mark.parametrize("lr, message", [
    ({"name": "Cosin", "learning_rate": 0.1}, "no learning-rate schedule 'Cosin'; did you mean 'Cosine'"),
    ({"name": "Cosine", "learning_rat": 0.1}, "no argument 'learning_rat'; did you mean 'learning_rate'"),
    ({"name": "Cosine"}, r"missing argument\(s\) learning_rate"),
    ({"name": "Cosine", "learning_rate": "1e-1"}, "learning_rate: expected a number of 0 or more, found '1e-1'"),
    ({"name": "Cosine", "learning_rate": 0}, "learning_rate: expected a number above 0"),
    ({"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": "five"}, r"\.warmup_epoch: expected a number"),
    ({"name": "Piecewise", "decay_epochs": [30], "values": [0.1]}, "one value more than decay_epochs"),
    ({"name": "Piecewise", "decay_epochs": [60, 30], "values": [3, 2, 1]}, "rising"),
    ({"name": "Piecewise", "decay_epochs": [30], "values": [0.1, 0.01], "learning_rate": 0.2}, "contradicts"),
])
def test_a_schedule_that_cannot_be_meant_is_refused_with_its_key_path(lr, message):
    with pytest.raises(ConfigError, match=message) as error:
        build_schedule(lr, 120, 10, "Optimizer.lr")
    assert str(error.value).startswith("Optimizer.lr")
