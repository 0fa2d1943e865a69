"""`ppcls-ssld demo --data FOLDER` from folder to report, with networks and efforts small enough for a test."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("jinja2")

from ppcls_ssld.cli import demo  # noqa: E402
from ppcls_ssld.demo import recipe, report  # noqa: E402
from ppcls_ssld.errors import ConfigError  # noqa: E402

COLOURS = {"blue sky": (200, 120, 40), "grass": (40, 180, 60), "rust": (30, 60, 190)}  # BGR


@pytest.fixture
def coloured(tmp_path):
    """Classes that a few steps tell apart, in sizes that differ, in a folder with a space in its name."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name, colour in COLOURS.items():
            folder = tmp_path / "my photos" / part / name
            folder.mkdir(parents=True)
            for i in range(20):
                image = np.clip(rng.normal(colour, 25, [36 + i, 50, 3]), 0, 255).astype(np.uint8)
                for corners in rng.integers(0, 50, [5, 2, 2]):  # something to know an image by
                    cv2.rectangle(image, *corners.tolist(), (rng.uniform(0.3, 1.5) * np.array(colour)).tolist(), -1)
                cv2.imwrite(str(folder / f"{i}.jpg"), image)
    return tmp_path / "my photos"


@pytest.fixture
def quick(monkeypatch):
    for module in (recipe, report):
        monkeypatch.setattr(module, "TEACHER", "MobileNetV1_x0_25")
    for name, views in (("TEACHER", 600), ("BASELINE", 60), ("SSLD", 60), ("FINETUNE", 15)):
        monkeypatch.setattr(recipe, f"{name}_EFFORT", recipe.Effort(views, batch=16, rate=0.002, crop=0.7))


@pytest.mark.end_to_end
def test_a_demo_on_own_images_leaves_a_table_a_report_and_a_network_that_agrees(coloured, quick, tmp_path, capsys):
    output = tmp_path / "out"
    assert demo.run(SimpleNamespace(data=coloured, output=output, seed=0)) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert set(summary) == {"seconds", "rows", "mining"}
    assert [set(row) for row in summary["rows"]] == [{"name", "network", "trained_on", "labels_used", "top1"}] * 5
    rows = {row["name"]: row for row in summary["rows"]}
    assert list(rows) == ["teacher", "baseline", "ssld", "ssld_finetuned", "exported"]
    assert [row["labels_used"] for row in rows.values()] == [60, 15, 0, 0, 0]
    assert rows["exported"]["top1"] == rows["ssld_finetuned"]["top1"]
    assert rows["teacher"]["network"] == "MobileNetV1_x0_25"  # at chance level it would have stopped the demo
    assert "blue sky" in (output / "report.html").read_text(encoding="utf-8")
    mined = summary["mining"]
    assert mined["copy"]["removed"] >= 6 and sum(mined["copy"].values()) == 8
    assert sum(mined["real"].values()) == 45 and mined["broken"]["unreadable"] == 6
    selected = (output / "mining" / "selected.txt").read_text().splitlines()
    assert len(selected) == sum(mined[kind]["chosen"] for kind in ("real", "copy", "stranger", "broken"))
    assert str(output / "mining" / "selected.txt") in (output / "ssld.yaml").read_text()
    assert (output / "mining" / "report.html").is_file()
    printed = capsys.readouterr().out
    assert "60" in printed and "ssld_finetuned" in printed and "report.html" in printed

    from deploy.predictor import Predictor

    first = Predictor(output / "exported").predict([coloured / "test" / "grass" / "0.jpg"])[0]
    assert set(first.labels) == set(COLOURS) and sum(first.scores) == pytest.approx(1, abs=1e-5)


def test_data_inside_the_output_folder_is_refused_before_anything_is_deleted(coloured):
    with pytest.raises(ConfigError, match="choose another --output"):
        demo.run(SimpleNamespace(data=coloured, output=coloured.parent, seed=0))
    assert len(list(coloured.glob("*/*/*.jpg"))) == 120
