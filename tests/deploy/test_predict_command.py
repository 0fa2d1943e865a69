import ast
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.predict import IMAGE_SUFFIXES, list_images, main
from ppcls_ssld.data.lists import SUFFIXES, files_below

ROOT = Path(__file__).resolve().parents[2]


def test_corrupt_images_are_named_and_the_others_predicted(model_dir, photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "broken.png").write_bytes((photos / "a.png").read_bytes()[:20])
    code = main(["--model", str(model_dir), "--json", "--topk", "2", str(tmp_path / "photos")])
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 2 and "broken.png" in err and "1 image(s) could not be read" in err
    assert [Path(row["file_name"]).name for row in rows] == ["a.png", "b.PNG", "c.png", "d.png", "e.png"]
    assert all(len(row["class_ids"]) == len(row["scores"]) == len(row["label_names"]) == 2 for row in rows)


def test_lines_read_as_paddleclas_prints_them_and_labels_come_from_a_file(model_dir, photos, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("4 four\n3 three\n2 two\n1 one\n0 zero\n")
    labels = ["--labels", str(tmp_path / "names.txt")]
    assert main(["--model", str(model_dir), "--topk", "1", *labels, str(photos / "a.png")]) == 0
    row = ast.literal_eval(capsys.readouterr().out)
    assert list(row) == ["class_ids", "scores", "file_name", "label_names"]
    assert row["file_name"] == str(photos / "a.png")
    assert row["label_names"] == [("zero", "one", "two", "three", "four")[row["class_ids"][0]]]


def test_a_missing_path_or_an_empty_folder_stops_with_code_2(model_dir, tmp_path, capsys):
    assert main(["--model", str(model_dir), str(tmp_path / "absent.jpg")]) == 2
    assert "absent.jpg: no such file or folder" in capsys.readouterr().err
    assert main(["--model", str(model_dir), str(tmp_path)]) == 2
    assert "no image in this folder" in capsys.readouterr().err


def test_the_script_runs_from_anywhere_and_loads_no_training_stack(model_dir, photos, tmp_path):
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['predict.py', '--model', {str(model_dir)!r}, '--json', {str(photos / 'a.png')!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'deploy' / 'predict.py')!r}, run_name='__main__')\n"
        "except SystemExit as e:\n"
        "    print(e.code)\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('ppcls_ssld', 'deploy', 'ppcls', 'paddleclas')))\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment)
    row, code, modules = done.stdout.strip().splitlines()[-3:]
    assert json.loads(row)["file_name"].endswith("a.png") and code == "0", done.stderr
    allowed = {"ppcls_ssld", "ppcls_ssld.attributes", "ppcls_ssld.errors", "ppcls_ssld.registry", "ppcls_ssld.data",
               "ppcls_ssld.data.pixels", "deploy", "deploy.predictor"}
    loaded = {m.strip("'[] ") for m in modules.split(",")}
    assert {m for m in loaded - allowed if not m.startswith("ppcls_ssld.inference")} == set()
    assert "ppcls_ssld.inference.engine" in loaded


def test_a_folder_gives_the_images_that_training_would_read(photos, tmp_path):
    for name in ("a.gif", "b.PPM", "c.pgm", "d.jpe", "._e.jpg", ".cache/f.jpg", "sub/g.webp", "notes.txt", "h.jpg.md"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).touch()
    (tmp_path / "top" / "linked").symlink_to(photos)
    (tmp_path / "top" / "sub" / "ring").symlink_to(tmp_path / "top")
    found = list_images([str(tmp_path / "top")])
    assert found == sorted(files_below(str(tmp_path / "top"))) and len(found) == 5 + 5
    assert sorted(IMAGE_SUFFIXES) == sorted(SUFFIXES)
    assert list_images([str(tmp_path / "top" / "._e.jpg")]) == [str(tmp_path / "top" / "._e.jpg")]  # asked for by name


def test_a_name_that_is_not_utf8_comes_through_json_on_a_strict_stdout(model_dir, photos, tmp_path, monkeypatch):
    name = os.fsdecode(os.fsencode(tmp_path) + "/ü ".encode() + b"\xff.png")
    shutil.copy(photos / "a.png", name)
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "utf-8", errors="strict"))
    assert main(["--model", str(model_dir), "--json", name]) == 0
    line = out.getvalue().decode()
    assert json.loads(line)["file_name"] == name and "/ü " in line
