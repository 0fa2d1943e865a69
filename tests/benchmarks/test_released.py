"""Released weights: expected, measured, verdict. A made-up world stands for ImageNet and for PaddleClas's server."""

import contextlib
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import threading

import cv2
import numpy as np
import paddle
import pytest
import yaml
from sklearn.datasets import load_sample_images

from benchmarks import released, timed_eval
from benchmarks.download import download, sha256
from ppcls_ssld.arch.paddleclas import factory, weights_url
from ppcls_ssld.errors import WeightsError

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
    table, unknown = yaml.safe_load(released.TABLE.read_text()), []
    assert len(table["rows"]) == 23 and set(table["usual"]) <= {row["row"] for row in table["rows"]}
    for row in table["rows"]:
        assert row["url"].endswith(f"/{row['row']}_ssld_pretrained.pdparams")
        assert 0.5 < row["expected"]["top1"] < 0.9 and row["expected"]["source"]
        try:
            assert weights_url(row["row"], True, "test") == row["url"]
        except WeightsError:
            unknown.append(row["row"])
    assert unknown == ["PPHGNet_base", "SE_HRNet_W64_C"]


@pytest.fixture
def server():
    """A server that breaks off after half of a file, unless it is asked to go on. Gives (address, requests)."""
    content, asked = bytes(range(256)) * 40, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            first = int(self.headers.get("Range", "bytes=0-")[6:-1])
            asked.append((first, self.headers.get("If-Range")))
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            self.send_header("ETag", '"one"')
            self.end_headers()
            self.wfile.write(content[first:] if first else content[:len(content) // 2])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/file.pdparams", asked, content
        found.shutdown()


def test_a_download_is_whole_or_not_there_and_goes_on_where_it_broke_off(server, tmp_path):
    address, asked, content = server
    path = tmp_path / "new" / "file.pdparams"
    with pytest.raises(WeightsError, match=r"the download failed .*; start again to go on, or put the file into"):
        download(address, path)
    assert not path.exists()
    assert download(address, path).read_bytes() == content
    assert asked == [(0, None), (len(content) // 2, '"one"')]
    assert sha256(path) == hashlib.sha256(content).hexdigest() and [p.name for p in path.parent.iterdir()] == [path.name]
    download(address, path)
    assert len(asked) == 2
