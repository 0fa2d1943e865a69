"""Released weights: expected, measured, verdict. A made-up world stands for ImageNet and for PaddleClas's server."""

import contextlib
import hashlib
import io
import json
import shutil
import subprocess

import cv2
import numpy as np
import paddle
import pytest
import yaml
from sklearn.datasets import load_sample_images

from benchmarks import released, timed_eval
from ppcls_ssld.arch.paddleclas import factory, weights_url
from ppcls_ssld.errors import ConfigError, WeightsError

NAME, FILE = "PPLCNet_x0_25", "PPLCNet_x0_25_ssld_pretrained.pdparams"
CLASSES, IMAGES = 5, 10
NO_SERVER = f"http://127.0.0.1:9/{FILE}"


def preprocessed(photo):
    """PaddleClas's evaluation written out: shorter side 256, centre 224, mean and deviation of ImageNet."""
    height, width = photo.shape[:2]
    scale = 256 / min(height, width)
    photo = cv2.resize(photo, (round(width * scale), round(height * scale)))
    top, left = (photo.shape[0] - 224) // 2, (photo.shape[1] - 224) // 2
    pixels = photo[top:top + 224, left:left + 224].astype("f4") / 255
    return ((pixels - np.array([0.485, 0.456, 0.406], "f4")) / np.array([0.229, 0.224, 0.225], "f4")).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder: imagenet (a list, and class folders), weights, table.yaml that expects what NumPy counts."""
    root = tmp_path_factory.mktemp("released")
    photos, rng = load_sample_images().images, np.random.default_rng(0)
    images, labels, lines = [], [], []
    for i in range(IMAGES):
        y, x = rng.integers(0, 120, size=2)
        photo = photos[i % 2][y:y + 300 + 3 * i, x:x + 430 - 20 * i]
        label = i // 2  # by class, so that folders give the same order
        path = root / "folders" / "val" / f"n0{label}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photo[:, :, ::-1])
        images.append(preprocessed(np.ascontiguousarray(photo)))
        labels.append(label)
        lines.append(f"val/n0{label}/{i}.png {label}\n")
    shutil.copytree(root / "folders", root / "imagenet")
    (root / "imagenet" / "val_list.txt").write_text("".join(lines))
    paddle.seed(3)
    network = factory(NAME, "test")(class_num=CLASSES)
    network.eval()
    with paddle.no_grad():
        logits = network(paddle.to_tensor(np.stack(images))).numpy()
    head = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.Linear)][-1]
    head.bias.set_value(head.bias.numpy() - logits.mean(axis=0))  # or one class would win everywhere
    guesses = (logits - logits.mean(axis=0)).argmax(axis=1)
    (root / "weights").mkdir()
    paddle.save(network.state_dict(), str(root / "weights" / FILE))
    top1 = sum(int(guess == label) for guess, label in zip(guesses, labels)) / IMAGES
    assert len(set(guesses.tolist())) > 1 and 0 < top1 < 1
    table = {"title": "made up", "images": IMAGES, "class_num": CLASSES, "usual": [NAME],
             "rows": [{"row": NAME, "expected": {"top1": top1, "source": "NumPy"}, "url": NO_SERVER},
                      {"row": "MobileNetV1", "expected": {"top1": 0.7, "source": "nobody"},
                       "url": "http://127.0.0.1:9/MobileNetV1_ssld_pretrained.pdparams"}]}
    (root / "table.yaml").write_text(yaml.safe_dump(table))
    return root


def arguments(world, results, *more, images="imagenet"):
    return ["--table-file", str(world / "table.yaml"), "--imagenet", str(world / images), "--weights", str(world / "weights"),
            "--results", str(results), "--workers", "0", *more]


def stored(results):
    return json.loads((results / "released" / f"{NAME}_seed0.json").read_text())


@pytest.fixture
def made_up(monkeypatch):
    """No process is started: each evaluation is noted and finds 6 of 10."""
    asked = []

    def evaluate(job, source, class_num, limit, args):
        asked.append(limit)
        return {"top1": 0.6, "top5": 1.0, "images": job.images,
                "skipped": [], "seconds": 2.0, "images_per_s": 5.0, "processes": 1, "engine": "inference",
                "engine_reason": "", "weights_report": f"{job.weights}: matched"}

    monkeypatch.setattr(released, "evaluate", evaluate)
    return asked


@pytest.fixture
def in_this_process(monkeypatch):
    """benchmarks/timed_eval.py is called, where else a process of its own would run it."""
    def run(command, env, shows):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = timed_eval.main(command[2:])
        return subprocess.CompletedProcess(command, code, None, said.getvalue())

    monkeypatch.setattr(released, "run_command", run)


def check_whole_run(world, results, said):
    found = stored(results)
    assert found["top1"] == found["expected"]["top1"] and found["images"] == IMAGES and found["verdict"] == "agrees"
    assert found["engine"] == "inference" and found["difference"] == 0.0 and found["interval"] is None
    assert found["weights"]["sha256"] == hashlib.sha256((world / "weights" / FILE).read_bytes()).hexdigest()
    assert f"expected {100 * found['top1']:.2f}  measured {100 * found['top1']:.2f}" in said
    assert str(world) not in json.dumps(found)


def test_a_released_network_is_evaluated_from_its_file_to_what_numpy_counts(world, tmp_path, capfd, in_this_process):
    released.main(arguments(world, tmp_path, "--batch-size", "1"))  # so that ten images are worth measuring the speed
    said = capfd.readouterr().out
    check_whole_run(world, tmp_path, said)
    assert " images/s, 10 images in about " in said and said.index("all together about") < said.index("agrees")


@pytest.mark.end_to_end
def test_a_released_network_is_evaluated_in_a_process_of_its_own(world, tmp_path, capfd):
    released.main(arguments(world, tmp_path, "--workers", "1", images="folders"))
    check_whole_run(world, tmp_path, capfd.readouterr().out)


def test_a_finished_network_is_not_evaluated_again_unless_more_is_asked_or_weights_change(world, tmp_path, made_up, capsys):
    released.main(arguments(world, tmp_path, "--images", "5"))
    assert made_up == [5]
    released.main(arguments(world, tmp_path, "--images", "5"))
    assert len(made_up) == 1 and "evaluated before" in capsys.readouterr().out
    released.main(arguments(world, tmp_path))
    assert made_up == [5, None] and stored(tmp_path)["images"] == IMAGES
    released.main(arguments(world, tmp_path, "--images", "5"))  # all images say more than five
    assert len(made_up) == 2
    path = tmp_path / "released" / f"{NAME}_seed0.json"
    path.write_text(json.dumps({**stored(tmp_path), "weights": {"sha256": "another"}}))
    released.main(arguments(world, tmp_path))
    assert len(made_up) == 3 and stored(tmp_path)["weights"]["sha256"] != "another"


def listed(world, tmp_path, old="", new=""):
    """Arguments that evaluate a copy of the list, once changed."""
    path = tmp_path / "list.txt"
    path.write_text((world / "imagenet" / "val_list.txt").read_text().replace(old, new))
    return [*arguments(world, tmp_path), "--list", str(path), "--root", str(world / "imagenet")]


@pytest.mark.parametrize("new", ["7.png 4", "8.png 3"])
def test_a_corrected_list_is_evaluated_again(world, tmp_path, made_up, new):
    """A label, a path; neither changes how many images there are."""
    released.main(listed(world, tmp_path))
    before = stored(tmp_path)["settings"]["list_sha256"]
    released.main(listed(world, tmp_path))
    assert len(made_up) == 1
    released.main(listed(world, tmp_path, "7.png 3", new))
    assert len(made_up) == 2 and stored(tmp_path)["settings"]["list_sha256"] != before


def test_a_part_stays_evaluated_while_only_other_images_of_the_list_change(world, tmp_path, made_up):
    released.main([*listed(world, tmp_path), "--images", "5"])  # 0, 2, 4, 6 and 8
    released.main([*listed(world, tmp_path, "7.png 3", "7.png 4"), "--images", "5"])
    assert made_up == [5]
    released.main([*listed(world, tmp_path, "8.png 4", "8.png 3"), "--images", "5"])
    assert made_up == [5, 5]


def test_an_earlier_result_is_judged_by_the_table_as_it_is_now(world, tmp_path, made_up, capsys):
    table = yaml.safe_load((world / "table.yaml").read_text())
    file = tmp_path / "table.yaml"
    for top1, said in ((0.6, "agrees"), (0.61, "differs")):
        table["rows"][0]["expected"] = {"top1": top1, "source": "today's"}
        file.write_text(yaml.safe_dump(table))
        released.main([*arguments(world, tmp_path), "--table-file", str(file)])
        assert (stored(tmp_path)["expected"], stored(tmp_path)["verdict"]) == (table["rows"][0]["expected"], said)
        assert stored(tmp_path)["difference"] == pytest.approx(0.6 - top1)
    assert len(made_up) == 1 and "expected 61.00  measured 60.00  difference -1.00  differs" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"top1": "0.6"}', "\xff"])
def test_a_broken_earlier_result_is_told_of_and_replaced(world, tmp_path, made_up, capsys, text):
    released.main(arguments(world, tmp_path))
    whole = stored(tmp_path)
    path = tmp_path / "released" / f"{NAME}_seed0.json"
    path.write_bytes((json.dumps({**whole, **json.loads(text)}) if "top1" in text else text).encode("latin-1"))
    released.main(arguments(world, tmp_path))
    assert len(made_up) == 2 and stored(tmp_path)["top1"] == whole["top1"]
    assert "is no result of a network" in capsys.readouterr().out


@pytest.mark.parametrize("old, new, said", [
    ("images: 10", "images: ten", "images is 'ten', no whole number above 0"), ("usual:", "usually:", "without 'usual'"),
    (f"usual:\n- {NAME}", "usual:\n- ResNet", "usual names a row that is none of"), ("title:", "title: [", "while parsing"),
    ("row: MobileNetV1", f"row: {NAME}", "two rows have one name"), ("top1: 0.7", "top1: 70", "MobileNetV1: expected top1 is 70"),
    ("expected:", "expects:", "without 'expected'")])
def test_a_mistake_in_the_table_is_said(world, tmp_path, made_up, capsys, old, new, said):
    text = (world / "table.yaml").read_text()
    assert old in text
    (tmp_path / "table.yaml").write_text(text.replace(old, new))
    with pytest.raises(SystemExit) as stop:
        released.main([*arguments(world, tmp_path), "--table-file", str(tmp_path / "table.yaml")])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and message.startswith("error: ") and "not a table of released weights" in message
    assert said in message and not made_up


@pytest.mark.parametrize("tree", [None, [], {"rows": 3}, {"images": 1, "class_num": 1, "usual": [], "rows": ["x"]}])
def test_what_is_no_table_at_all_is_said_too(tmp_path, tree):
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="not a table of released weights"):
        released.read_table(tmp_path / "table.yaml")


def test_a_part_of_the_images_is_judged_by_its_interval():
    assert released.verdict(0.7895, 0.7896, 50_000, 50_000) == ("agrees", None)
    assert released.verdict(0.7906, 0.7896, 50_000, 50_000)[0] == "agrees"
    assert released.verdict(0.78859, 0.7896, 50_000, 50_000)[0] == "differs"
    said, (low, high) = released.verdict(0.78, 0.7896, 5_000, 50_000)
    assert said == "agrees" and low < 0.78 < high and 0.02 < high - low < 0.025
    assert released.verdict(0.77, 0.7896, 5_000, 50_000)[0] == "differs"


def test_folders_of_classes_serve_as_a_list_does_and_missing_ones_are_refused(world, tmp_path, made_up, capsys):
    args = released.argparse.Namespace(list=None, root=None, imagenet=world / "folders")
    assert released.source_of(args, CLASSES) == {"name": "validation", "folder": str(world / "folders" / "val")}
    with pytest.raises(SystemExit) as stop:
        released.main(arguments(world, tmp_path, images="weights"))
    assert stop.value.code == 2 and "expected val_list.txt, or 5 sub-folders" in capsys.readouterr().err


def test_weights_that_cannot_be_had_leave_the_row_not_run_and_the_others_go_on(world, tmp_path, made_up, capsys):
    with pytest.raises(SystemExit) as stop:
        released.main(arguments(world, tmp_path, "--models", "all"))
    said = capsys.readouterr().out
    assert stop.value.code == 2 and "MobileNetV1              not run" in said and "the download failed" in said
    assert [p.name for p in (tmp_path / "released").iterdir()] == [f"{NAME}_seed0.json"]


def test_a_file_that_is_no_network_s_is_not_run_with_the_reason(world, tmp_path, capsys, in_this_process):
    shutil.copytree(world / "weights", tmp_path / "weights")
    (tmp_path / "weights" / FILE).write_bytes(b"<html>no such file</html>")
    with pytest.raises(SystemExit):
        released.main([*arguments(world, tmp_path), "--weights", str(tmp_path / "weights")])
    assert "not run: " in (said := capsys.readouterr().out) and FILE in said.split("not run: ")[1]
    assert not (tmp_path / "released").exists()


def test_an_unknown_model_is_refused_with_the_known_ones(world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        released.main(arguments(world, tmp_path, "--models", "MobileNetV3"))
    assert f"--models MobileNetV3: no row of the table; expected all, or some of {NAME}" in capsys.readouterr().err


def test_the_table_names_networks_of_paddleclas_and_its_addresses():
    """PaddleClas knows no address of two of them; those stand in its ssld.md."""
    table, unknown = released.read_table(released.TABLE), []
    assert len(table["rows"]) == 23 and set(table["usual"]) <= {row["row"] for row in table["rows"]}
    for row in table["rows"]:
        assert row["url"].endswith(f"/{row['row']}_ssld_pretrained.pdparams")
        assert 0.5 < row["expected"]["top1"] < 0.9 and row["expected"]["source"]
        try:
            assert weights_url(row["row"], True, "test") == row["url"]
        except WeightsError:
            unknown.append(row["row"])
    assert unknown == ["PPHGNet_base", "SE_HRNet_W64_C"]
