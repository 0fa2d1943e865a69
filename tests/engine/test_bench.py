"""Where the time of a step goes: every part is there, nothing is left behind, advice follows from the numbers."""

import json
import re
from dataclasses import replace

import pytest

from ppcls_ssld.cli.main import main
from ppcls_ssld.config import dump, resolve
from ppcls_ssld.engine.bench import BenchReport, Part, advice, bench

from world import changed


def names(report):
    return [part.name for part in report.parts]


def test_every_part_of_a_step_is_measured_and_nothing_is_left_behind(tree, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    report = bench(resolve(changed(tree, DataLoader__Train__num_workers=1)), 3)
    assert names(report) == ["read files", "decode", "read, decode, augment, stack", "copy to the device, normalise", "teacher",
                             "student forward, loss", "student backward", "optimiser"]
    everything = [*report.parts, report.reader, report.step, report.training]
    assert all(0 < part.low <= part.ms <= part.high for part in everything) and 0 <= report.waits <= 1
    assert all(part.images_per_s == pytest.approx(8 / part.ms * 1e3) for part in everything)
    assert report.step.ms > max(part.ms for part in report.parts if part.name.startswith("student"))
    assert sorted(tmp_path.rglob("*")) == before


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


REPORT = BenchReport(64, 1, "cpu", (part("read, decode, augment, stack", 90), part("copy to the device, normalise", 1),
                                    part("teacher", 10)), part("reader, as configured", 50), part("step", 100),
                     part("training", 102), 0.02, ())


@pytest.mark.parametrize("changes, engine, expected", [
    ({}, "inference", []),
    ({"waits": 0.4}, "inference", ["40% of the time is waiting.* About 1 cores"]),
    ({"parts": (*REPORT.parts[:2], part("teacher", 60))}, "inference", ["the teacher takes 60% of a step.*2.5 times"]),
    ({"parts": (*REPORT.parts[:2], part("teacher", 60))}, "eager", ["targets write", "Arch.Teacher runs layer by layer"]),
    ({"parts": (REPORT.parts[0], part("copy to the device, normalise", 9), part("teacher", 1))}, "eager", ["floats"]),
    ({"device": "gpu:0"}, "eager", ["AMP is off"])])
def test_advice_follows_from_the_numbers(tree, changes, engine, expected):
    found = list(advice(replace(REPORT, **changes), resolve(tree), {"Arch.Teacher": (engine, "as configured")}))
    assert len(found) == len(expected)
    for text, pattern in zip(found, expected):
        assert re.search(pattern, text)
