"""configs/own_images, step by step as docs/guide.md has it, on digits in folders; only sizes are smaller."""

import os
import re
import shutil
from pathlib import Path

import pytest

from ppcls_ssld.cli.main import main
from ppcls_ssld.config import load_config
from ppcls_ssld.config.mine import load_mine
from ppcls_ssld.demo.digits import digit_images

ROOT = Path(__file__).resolve().parent.parent
OWN = ROOT / "configs" / "own_images"
GUIDE = (ROOT / "docs" / "guide.md").read_text()
SMALL = ["Global.device=cpu", "Global.image_shape=[3,32,32]", "Arch.class_num=10", "Global.max_steps=4", "Global.epochs=2",
         "Global.teacher_check_images=0", "DataLoader.Train.num_workers=0", "DataLoader.Eval.num_workers=0",
         "DataLoader.Train.batch_size=16", "DataLoader.Train.transform_ops.1.RandCropImage.size=32",
         "DataLoader.Eval.transform_ops.1.ResizeImage.resize_short=32", "DataLoader.Eval.transform_ops.2.CropImage.size=32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with dataset/own as the guide has it."""
    place = tmp_path_factory.mktemp("place")
    images = digit_images(place / "digits", seed=0)
    for name, items in (("train", images.labelled), ("val", images.test[::6])):
        for item in items:
            target = place / "dataset" / "own" / name / f"digit_{item.label}" / Path(item.path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(item.path, target)
    (place / "dataset" / "own" / "photos").mkdir()
    for item in images.unlabelled[::15]:
        shutil.copy(item.path, place / "dataset" / "own" / "photos")
    names = sorted(os.listdir(place / "dataset" / "own" / "train"))
    (place / "dataset" / "own" / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return place


@pytest.mark.end_to_end
def test_from_photographs_to_an_exported_student(place, monkeypatch, capsys):
    monkeypatch.chdir(place)

    def call(verb, config, *more, size=SMALL):
        assert main([verb, "-c", str(OWN / f"{config}.yaml"), *(part for o in size for part in ("-o", o)), *more]) == 0
        return capsys.readouterr().out

    call("train", "teacher", "-o", "Arch.name=ResNet18_vd", "-o", "Arch.pretrained=false", "-o", "Arch.use_ssld=false")
    call("mine", "mine", "-o", "Teacher.name=ResNet18_vd", "-o", "Score.image_size=32", "--workers", "1", size=[])
    mined = Path("output/own/mined/selected.txt").read_text().splitlines()
    assert 0 < len(mined) <= 100
    student = ("-o", "Arch.Teacher.name=ResNet18_vd", "-o", "Arch.Student.name=MobileNetV3_small_x0_35", "-o",
               "Arch.Student.pretrained=false", "-o", "Arch.Student.use_ssld=false")
    said = call("train", "ssld", *student, "-o", "Global.next_stage=stage2.yaml")
    assert "never reads labels" in said and f"DataLoader.Train: {50 + len(mined)} images" in said
    assert main(["train", "-c", "stage2.yaml"]) == 0
    best = ("-o", "Global.pretrained_model=output/own/ssld/best_model")
    assert "top1" in call("eval", "ssld", *student, *best)
    call("export", "ssld", *student, *best, "-o", "Global.save_inference_dir=output/own/inference")
    assert "digit_3" in Path("output/own/inference/inference.yml").read_text()
    photo = sorted(Path("dataset/own/photos").iterdir())[0]
    assert "digit_" in call("infer", "ssld", *student, *best, str(photo))


def test_what_the_steps_write_is_what_the_next_ones_read():
    teacher, mine, ssld = load_config(OWN / "teacher.yaml"), load_mine(OWN / "mine.yaml"), load_config(OWN / "ssld.yaml")
    weights = f"{teacher.Global.output_dir}/best_model"
    assert mine.Teacher.pretrained == os.path.abspath(weights) and ssld.Arch.network("Teacher").pretrained == weights
    assert mine.Teacher.name == teacher.Arch.network(teacher.Arch.infer_model_name).name == ssld.Arch.network("Teacher").name
    assert os.path.abspath(ssld.DataLoader.Train.sources[1].list) == os.path.abspath(f"{mine.output_dir}/selected.txt")
    assert os.path.abspath(ssld.DataLoader.Eval.sources[0].folder) == os.path.abspath(mine.protect[0].path)


def test_the_guide_names_files_and_keys_that_exist():
    for name in re.findall(r"(?:configs|docs|benchmarks|tools|deploy)/[\w./-]*\w", GUIDE):
        assert (ROOT / name).exists(), name
    config = load_config(OWN / "ssld.yaml")
    for section, key in re.findall(r"\b(Global|DataLoader\.Train|Optimizer)\.(\w+)=", GUIDE):
        node = config
        for part in section.split("."):
            node = getattr(node, part)
        assert hasattr(node, key), f"{section}.{key}"
