"""Where the time of a step goes: every part is there, nothing is left behind, advice follows from the numbers."""

import json
import re
import time
from dataclasses import replace

import pytest

from ppcls_ssld.cli.main import main
from ppcls_ssld.config import dump, resolve
from ppcls_ssld.engine.bench import BenchReport, Part, advice, bench
from ppcls_ssld.engine.step import TrainStep

from world import changed


def names(report):
    return [part.name for part in report.parts]


def test_every_part_of_a_step_is_measured_and_nothing_is_left_behind(tree, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    report = bench(resolve(changed(tree, DataLoader__Train__num_workers=1)), 3)
    assert names(report) == ["read files", "decode whole images", "read, decode, augment, stack", "copy to the device, normalise", "teacher",
                             "student forward, loss", "student backward", "optimiser"]
    everything = [*report.parts, report.reader, report.step, report.training]
    assert all(0 < part.low <= part.ms <= part.high for part in everything) and 0 <= report.waits <= 1
    assert all(part.images_per_s == pytest.approx(8 / part.ms * 1e3) for part in everything)
    assert sorted(tmp_path.rglob("*")) == before


def test_accumulated_gradients_make_a_step_of_several_batches(tree, monkeypatch):
    groups = []
    original = TrainStep.__call__
    monkeypatch.setattr(TrainStep, "__call__", lambda self, step, batches: groups.append(len(batches))
                        or original(self, step, batches))
    ticks = iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) * 1.0)  # one second from each look at the clock to the next
    report = bench(resolve(changed(tree, Global__update_freq=4)), 3)
    assert groups == [4] * 12  # 3 to warm up and 3 that count, alone and as training runs
    # TrainStep looks at the clock 3 times a batch and twice at its end; the bench around it.
    assert report.step.ms == report.step.low == pytest.approx(15 / 4 * 1e3)
    assert report.training.ms == pytest.approx(16 / 4 * 1e3) and report.waits == pytest.approx(1 / 16)


def test_the_verb_prints_a_table_or_json(tree, tmp_path, capsys):
    tree = changed(tree, Arch__Teacher=None, Loss__Train=[{"CELoss": {}}])
    (tmp_path / "run.yaml").write_text(dump(resolve(tree)))
    assert main(["bench", "-c", str(tmp_path / "run.yaml"), "--steps", "3"]) == 0
    said = capsys.readouterr().out
    assert "training, as it runs" in said and "teacher" not in said and "images/s" in said
    assert main(["bench", "-c", str(tmp_path / "run.yaml"), "--steps", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch_size"] == 8
    assert main(["bench", "-c", str(tmp_path / "run.yaml"), "--steps", "2"]) == 2


def part(name, ms):
    return Part(name, ms, ms, ms, 64e3 / ms)


STUDENT = (part("student forward, loss", 25), part("student backward", 10), part("optimiser", 4))
PARTS = (part("read, decode, augment, stack", 90), part("copy to the device, normalise", 1), part("teacher", 10), *STUDENT)
REPORT = BenchReport(64, 1, "cpu", PARTS, part("reader, as configured", 50), part("step", 100), part("training", 102),
                     0.02, ())


@pytest.mark.parametrize("changes, engine, expected", [
    ({}, "inference", []),
    ({"waits": 0.4}, "inference", []),
    ({"waits": 0.4, "reader": part("reader, as configured", 90)}, "inference", ["40% of the time is waiting.* would keep up: 1 .DataLoader.Train.num_workers."]),
    ({"parts": (*REPORT.parts[:2], part("teacher", 60), *STUDENT)}, "inference", ["the teacher takes 60% of a step.*2.5 times"]),
    ({"parts": (*REPORT.parts[:2], part("teacher", 160), *STUDENT)}, "inference", ["takes 80% of a step.* 5.0 times"]),
    ({"parts": (*REPORT.parts[:2], part("teacher", 60), *STUDENT)}, "eager", ["targets write", "Arch.Teacher runs layer by layer"]),
    ({"parts": (REPORT.parts[0], part("copy to the device, normalise", 9), part("teacher", 1),
                 *STUDENT)}, "eager", ["floats"]),
    ({"device": "gpu:0"}, "eager", ["AMP is off"])])
def test_advice_follows_from_the_numbers(tree, changes, engine, expected):
    found = list(advice(replace(REPORT, **changes), resolve(tree), {"Arch.Teacher": (engine, "batch_stats")}))
    assert len(found) == len(expected)
    for text, pattern in zip(found, expected):
        assert re.search(pattern, text)
