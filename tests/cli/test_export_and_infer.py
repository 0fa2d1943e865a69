import ast
import json

import cv2
import numpy as np
import paddle
import pytest
import yaml
from ppcls_ssld.arch import build_network
from ppcls_ssld.cli.main import main
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.export import writable_formats

CLASSES = 4
NORMALIZE = {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5] * 3, "std": [0.25] * 3, "order": ""}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Eight photos with a list, the weights of a student, its config, class names."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for i in range(8):
        smooth = cv2.resize(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8), (40, 34))
        (folder / f"{i}.png").write_bytes(cv2.imencode(".png", smooth)[1].tobytes())
    (folder / "eval.txt").write_text("".join(f"{i}.png {i % CLASSES}\n" for i in range(8)))
    (folder / "names.txt").write_text("0 ant\n1 bee\n2 cow\n3 dog\n")
    paddle.seed(0)
    student = build_network(NetworkConfig("Student", "MobileNetV3_small_x0_35"), CLASSES)
    for name, value in student.state_dict().items():
        if name.startswith("fc.") or name.endswith("._mean"):
            value.set_value(value * 50 if name.startswith("fc.") else value + 0.1)
    paddle.save(student.state_dict(), str(folder / "student.pdparams"))
    tree = {
        "Global": {"device": "cpu", "image_shape": [3, 32, 32], "pretrained_model": str(folder / "student"),
                   "save_inference_dir": str(folder / "inference")},
        "Arch": {"class_num": CLASSES, "name": "MobileNetV3_small_x0_35"},
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}]},
        "DataLoader": {"Eval": {
            "sources": [{"name": "eval", "list": str(folder / "eval.txt"), "root": str(folder)}],
            "transform_ops": [{"DecodeImage": {}}, {"ResizeImage": {"size": 32}}, NORMALIZE], "batch_size": 3}},
        "Infer": {"infer_imgs": str(folder), "batch_size": 3,
                  "transforms": [{"DecodeImage": {"to_rgb": True, "channel_first": False}},
                                 {"ResizeImage": {"size": 32}}, NORMALIZE, {"ToCHWImage": None}],
                  "PostProcess": {"name": "Topk", "topk": 2, "class_id_map_file": str(folder / "names.txt")}},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.fixture(scope="module")
def exported(world):
    assert main(["export", "-c", str(world / "run.yaml")]) == 0
    return world / "inference"


def test_export_writes_every_format_its_preprocessing_and_the_proof(exported):
    programs = {f"inference.{kind}" for kind in writable_formats()}
    assert programs | {"inference.pdiparams", "inference.yml", "parity.json"} <= {p.name for p in exported.iterdir()}
    reports = json.loads((exported / "parity.json").read_text())
    assert set(reports) == programs
    for report in reports.values():
        assert report["images"] == 8 and report["source"] == "Eval list" and report["passed"]
    written = yaml.safe_load((exported / "inference.yml").read_text())
    assert written["Global"] == {"model_name": "MobileNetV3_small_x0_35"}
    assert written["PostProcess"] == {"Topk": {"topk": 2, "label_list": ["ant", "bee", "cow", "dog"]}}


def test_the_trained_and_the_exported_network_say_the_same_of_every_image(world, exported, capsys):
    assert main(["infer", "-c", str(world / "run.yaml"), "--json"]) == 0
    eager = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["infer", "--model", str(exported), "--json", str(world)]) == 0
    engine = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file_name"] for row in eager] == [row["file_name"] for row in engine] \
        == [str(world / f"{i}.png") for i in range(8)]
    for a, b in zip(eager, engine):
        assert a["class_ids"] == b["class_ids"] and a["label_names"] == b["label_names"] and len(a["class_ids"]) == 2
        np.testing.assert_allclose(a["scores"], b["scores"], atol=2e-5)  # printed with five digits


def test_infer_prints_what_paddleclas_users_expect_and_names_corrupt_images(world, exported, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert main(["infer", "--model", str(exported), str(tmp_path / "bad.png"), str(world / "3.png")]) == 2
    out, err = capsys.readouterr()
    row = ast.literal_eval(out)
    assert list(row) == ["class_ids", "scores", "file_name", "label_names"] and row["file_name"].endswith("3.png")
    assert "bad.png" in err


def test_without_a_readable_eval_list_parity_falls_back_and_says_so(world, tmp_path, capsys):
    (tmp_path / "eval.txt").write_text("absent.png 0\n")
    flags = ["-o", f"DataLoader.Eval.sources.0.list={tmp_path / 'eval.txt'}", "-o",
             f"Global.save_inference_dir={tmp_path / 'out'}", "--format", writable_formats()[0]]
    assert main(["export", "-c", str(world / "run.yaml"), *flags]) == 0
    assert "parity on 8 images (Infer.infer_imgs)" in capsys.readouterr().out
    assert main(["export", "-c", str(world / "run.yaml"), *flags, "-o", "Infer.infer_imgs=null"]) == 0
    out, err = capsys.readouterr()
    assert "parity on 64 images (random input only)" in out and "absent.png" in err


def test_parity_leaves_out_corrupt_images_and_falls_back_when_none_is_left(world, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"no image")
    corrupt = [f"{tmp_path}/bad.png 0\n"] * 3  # a whole batch
    flags = ["-o", f"DataLoader.Eval.sources.0.list={tmp_path / 'eval.txt'}", "-o", "DataLoader.Eval.on_corrupt=skip",
             "-o", f"Global.save_inference_dir={tmp_path / 'out'}", "--format", writable_formats()[0]]
    for good, told in ((2, "parity on 2 images (Eval list)"), (0, "parity on 8 images (Infer.infer_imgs)")):
        (tmp_path / "eval.txt").write_text("".join([*corrupt, *(f"{world}/{i}.png {i}\n" for i in range(good))]))
        assert main(["export", "-c", str(world / "run.yaml"), *flags]) == 0
        assert told in capsys.readouterr().out


def test_a_failed_parity_gives_code_2(world, tmp_path, monkeypatch, capsys):
    from ppcls_ssld import inference

    class Wrong(inference.InferenceEngine):
        def __call__(self, images):
            return super().__call__(images)[:, ::-1]

    monkeypatch.setattr(inference, "InferenceEngine", Wrong)
    flags = ["--format", writable_formats()[0], "-o", f"Global.save_inference_dir={tmp_path}"]
    assert main(["export", "-c", str(world / "run.yaml"), *flags]) == 2
    assert "FAILED" in capsys.readouterr().out
    assert not any(r["passed"] for r in json.loads((tmp_path / "parity.json").read_text()).values())


@pytest.mark.parametrize("verb", ("export", "infer"))
def test_missing_and_partial_weights_are_refused(verb, world, tmp_path, capsys):
    flags = ["-o", f"Global.save_inference_dir={tmp_path / 'out'}"]
    assert main([verb, "-c", str(world / "run.yaml"), *flags, "-o", "Global.pretrained_model=null"]) == 2
    assert "Global.pretrained_model: nothing to" in capsys.readouterr().err
    assert main([verb, "-c", str(world / "run.yaml"), *flags, "-o", "Arch.class_num=5",
                 "-o", "Infer.PostProcess.class_id_map_file=null"]) == 2
    assert "with 5 classes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_class_file_that_is_not_there_is_said_and_left_out(world, capsys):
    flag = "Infer.PostProcess.class_id_map_file=ppcls/utils/imagenet1k_label_list.txt"
    assert main(["infer", "-c", str(world / "run.yaml"), "-o", flag, "--json", str(world / "0.png")]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["label_names"] == [] and "no file ppcls/utils/imagenet1k_label_list.txt" in err


def test_infer_without_a_network_or_without_images_says_what_to_give(world, capsys):
    assert main(["infer", "x.png"]) == 2
    assert "-c FILE" in capsys.readouterr().err
    assert main(["infer", "-c", str(world / "run.yaml"), "-o", "Infer.infer_imgs=null"]) == 2
    assert "no images" in capsys.readouterr().err


@pytest.mark.parametrize("flag, message", [
    ("Infer.transforms.1={NormaliseImage: {}}", "'NormaliseImage' has no place in inference"),
    ("Infer.transforms.1={ResizeImage: {sise: 32}}", "sise"),
    ("Infer.transforms.0={DecodeImage: {to_rgb: false}}", "predictors give RGB"),
    ("Global.device=cpu:0", "compared on cpu, gpu or gpu:N, found 'cpu:0'"),
])
def test_a_refused_export_leaves_the_files_of_the_one_before(world, exported, capsys, flag, message):
    before = {p.name: p.read_bytes() for p in exported.iterdir()}
    assert main(["export", "-c", str(world / "run.yaml"), "-o", flag]) == 2
    assert message in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in exported.iterdir()} == before


def test_an_override_without_the_yaml_that_it_changes_is_refused(exported, world, capsys):
    flag = "Infer.PostProcess.topk=1"
    assert main(["infer", "--model", str(exported), "-o", flag, str(world)]) == 2
    assert f"-o {flag}: changes the YAML of a run, and none is given" in capsys.readouterr().err


def test_beside_an_export_the_yaml_rules_the_answers_and_what_it_leaves_open_the_export(world, exported, tmp_path,
                                                                                       capsys):
    (tmp_path / "letters.txt").write_text("0 a\n1 b\n2 c\n3 d\n")

    def answer(*flags):
        model = [] if "eager" in flags else ["--model", str(exported)]
        more = [part for flag in flags if flag != "eager" for part in ("-o", flag)]
        assert main(["infer", "-c", str(world / "run.yaml"), *model, *more, "--json", str(world / "0.png")]) == 0
        row = json.loads(capsys.readouterr().out)
        return row["class_ids"], row["label_names"]

    flags = ("Infer.PostProcess.topk=3", f"Infer.PostProcess.class_id_map_file={tmp_path / 'letters.txt'}")
    classes, names = answer(*flags)
    assert len(classes) == 3 and names == ["abcd"[i] for i in classes]
    assert answer(*flags, "eager") == (classes, names)
    bees = [("ant", "bee", "cow", "dog")[i] for i in classes]
    assert answer("Infer.PostProcess=null", "Infer.transforms=null") == (classes[:2], bees[:2])


@pytest.fixture(scope="module")
def several(world):
    """The same student with four attributes an image instead of one of four classes."""
    lines = (f"{i}.png\t{i % 2},{int(i > 3)},{int(i % 3 == 0)},{-1 if i < 2 else i % 2}\n" for i in range(8))
    (world / "attributes.txt").write_text("".join(lines))
    tree = yaml.safe_load((world / "run.yaml").read_text())
    tree["Global"] |= {"use_multilabel": True, "save_inference_dir": str(world / "several")}
    tree["Loss"]["Train"] = [{"MultiLabelLoss": {"weight": 1.0}}]
    tree["DataLoader"]["Eval"]["sources"][0] |= {"list": str(world / "attributes.txt"), "delimiter": "\t"}
    tree["Infer"]["PostProcess"] = {"name": "MultiLabelThreshOutput", "threshold": [0.5, 0.5, 0.1, 0.9],
                                    "class_id_map_file": str(world / "names.txt")}
    (world / "several.yaml").write_text(yaml.safe_dump(tree))
    assert main(["export", "-c", str(world / "several.yaml")]) == 0
    return world / "several"


def test_several_labels_an_image_are_exported_with_a_sigmoid_their_names_and_thresholds(several):
    reports = json.loads((several / "parity.json").read_text())
    assert set(reports) == {f"inference.{kind}" for kind in writable_formats()}
    for report in reports.values():
        assert report["images"] == 8 and report["source"] == "Eval list" and report["passed"]
    assert yaml.safe_load((several / "inference.yml").read_text())["PostProcess"] == {"MultiLabelThreshOutput": {
        "threshold": [0.5, 0.5, 0.1, 0.9], "label_list": ["ant", "bee", "cow", "dog"]}}


def test_both_networks_answer_yes_or_no_to_every_attribute(world, several, capsys):
    assert main(["infer", "-c", str(world / "several.yaml"), "--json"]) == 0
    eager = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["infer", "--model", str(several), "--json", str(world)]) == 0
    engine = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(eager) == len(engine) == 8
    seen = set()
    for a, b in zip(eager, engine):
        assert a["file_name"] == b["file_name"]
        assert [x["name"] for x in a["attributes"]] == ["ant", "bee", "cow", "dog"]
        for x, y, threshold in zip(a["attributes"], b["attributes"], (0.5, 0.5, 0.1, 0.9)):
            assert x["name"] == y["name"] and x["score"] == pytest.approx(y["score"], abs=2e-5)
            assert x["yes"] == y["yes"] == (x["score"] >= threshold)
            seen.add(x["yes"])
    assert seen == {True, False}


def test_thresholds_of_the_yaml_rule_beside_an_export_too_and_its_names_stay(world, several, capsys):
    def answers(*more):
        assert main(["infer", "--model", str(several), "--json", str(world), *more]) == 0
        rows = map(json.loads, capsys.readouterr().out.splitlines())
        return [(a["name"], a["score"], a["yes"]) for row in rows for a in row["attributes"]]

    flags = ("Infer.PostProcess.threshold=0", "Infer.PostProcess.class_id_map_file=null")
    own = answers()
    ruled = answers("-c", str(world / "several.yaml"), *(part for flag in flags for part in ("-o", flag)))
    assert {yes for _, _, yes in own} == {True, False}
    assert ruled == [(name, score, True) for name, score, _ in own]
    exported = (several / "inference.yml").read_text()
    tree = yaml.safe_load(exported)
    tree["PostProcess"]["MultiLabelThreshOutput"]["threshold"] = 0.0
    try:
        (several / "inference.yml").write_text(yaml.safe_dump(tree))
        unsaid = answers("-c", str(world / "several.yaml"), "-o", "Infer.PostProcess={name: MultiLabelThreshOutput}")
    finally:
        (several / "inference.yml").write_text(exported)
    assert unsaid == ruled  # the export's, not the default that nobody wrote
