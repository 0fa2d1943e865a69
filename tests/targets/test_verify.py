"""`targets verify`: whole, and still what the teacher says."""

import shutil

import cv2
import numpy as np
import pytest
import yaml

from ppcls_ssld.cli.main import main
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.targets import TargetStore, check, expect, header, read_header, verify_targets
from ppcls_ssld.targets.write import Views


def quietly(folder, config, **values):
    return verify_targets(str(folder), config, 1.0, say=lambda text: None, **values)


@pytest.mark.parametrize("bn_mode", ["eval", "batch_stats"])
@pytest.mark.parametrize("bits", [8, 12])
def test_what_was_just_written_is_right(write, bn_mode, bits):
    folder, config = write(bits=bits, Arch__Teacher__bn_mode=bn_mode)
    found = quietly(folder, config, samples=20)
    assert found.parts == 3 and 16 <= found.views <= 20 and found.agree == 1 and not found.replaced
    assert 0 < found.mean < found.largest < (0.03 if bits == 8 else 0.003)


def test_more_samples_than_there_are_means_all(write):
    folder, config = write()
    assert quietly(folder, config, samples=1000).views == 52


@pytest.mark.parametrize("flags", [{"samples": -3}, {"samples": 0}, {"tolerance": -1.0}, {"tolerance": float("nan")}])
def test_numbers_that_make_no_sense_are_refused_by_their_flag(write, flags):
    folder, config = write()
    with pytest.raises(ConfigError, match="expected --samples from 1 and --tolerance from 0, found"):
        quietly(folder, config, **flags)


def test_a_damaged_part_is_named(write):
    folder, config = write()
    path = folder / "part-00002.targets"
    content = bytearray(path.read_bytes())
    content[-70] ^= 1  # in the images' checksums, which no record check covers
    path.write_bytes(content)
    with pytest.raises(DataError, match="1 of 3 parts are damaged: .*part-00002.targets; delete them and run"):
        quietly(folder, config)


def test_a_teacher_that_answers_otherwise_is_noticed(write, monkeypatch):
    folder, config = write()
    logits = Views._logits
    monkeypatch.setattr(Views, "_logits", lambda self, batch: logits(self, batch) + np.float32([0.2, 0, 0, 0]))
    with pytest.raises(DataError, match=r"differ from the stored ones by 0\.0\d+, allowed are"):
        quietly(folder, config)
    assert quietly(folder, config, tolerance=0.1).largest > 0.01


def test_replaced_images_are_named(write, folder, tree, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    sources = [{**source, "root": str(pictures)} for source in tree["DataLoader"]["Train"]["sources"]]
    store, config = write(DataLoader__Train__sources=sources)
    image = cv2.imread(str(pictures / "07.jpg"))
    cv2.imwrite(str(pictures / "07.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 94])
    with pytest.raises(DataError, match="1 images are not those that the targets were made from, .*07.jpg first"):
        quietly(store, config, tolerance=1.0)


def test_new_transforms_are_accepted_only_when_asked_and_when_the_answers_agree(write, monkeypatch):
    folder, config = write()
    monkeypatch.setattr(header, "code_digest", lambda loader: "new")
    with pytest.raises(ConfigError, match="code is"):
        quietly(folder, config)
    logits = Views._logits
    with monkeypatch.context() as patch:
        patch.setattr(Views, "_logits", lambda self, batch: -logits(self, batch))
        with pytest.raises(DataError, match="differ"):
            quietly(folder, config, accept=True)
    assert "accepted" not in read_header(folder)
    quietly(folder, config, accept=True)
    assert read_header(folder)["accepted"] == ["new"]
    assert check(read_header(folder), expect(config, 1.0), "there") == []
    store = TargetStore(folder)
    store.read(np.array([1]), np.array([0]))  # parts still belong to the header


def test_commands_write_verify_and_tell(tree, tmp_path, capsys):
    config, folder = tmp_path / "config.yaml", tmp_path / "store"
    config.write_text(yaml.safe_dump({**tree, "Loss": {"Train": [{"SymmetricKL": {"temperature": 2.0}}]}}))
    write = ["targets", "write", "-c", str(config), "--output", str(folder), "--views", "2", "--top-k", "3"]
    assert main(write) == 0
    said = capsys.readouterr().out
    assert "KiB are to be written" in said and "complete: answers of PPLCNet_x0_25" in said and "engine eager" in said
    assert main(["targets", "info", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "26 images in 2 views, 3 of 4 classes, tail student, temperature 2, " in said and "RandCropImage" in said
    assert main(["targets", "verify", str(folder), "-c", str(config), "--samples", "9"]) == 0
    assert "9 views again: probabilities differ by" in capsys.readouterr().out
    assert main([*write, "--bits", "8"]) == 2
    assert "answer.bits is 12 there, 8 here" in capsys.readouterr().err
    assert main([*write[:-4], "--views", "0"]) == 2
    assert "--views: expected 1 or more, found 0" in capsys.readouterr().err
    cold = ["-o", "Loss.Train.0.SymmetricKL.temperature=1"]
    assert main(["targets", "verify", str(folder), "-c", str(config), *cold]) == 2
    assert "temperature is 2.0 there, 1.0 here" in capsys.readouterr().err
    assert main(["targets", "write", "-c", str(config)]) == 2
    assert "expected --output DIR, or Global.targets" in capsys.readouterr().err


def test_a_loss_that_reads_more_than_a_soft_answer_is_refused(tree, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    loss = {"DistillationDistanceLoss": {"model_name_pairs": [["Student", "Teacher"]], "key": "blocks6"}}
    config.write_text(yaml.safe_dump({**tree, "Loss": {"Train": [loss]}}))
    assert main(["targets", "write", "-c", str(config), "--output", str(tmp_path / "x")]) == 2
    assert "takes more from Teacher than its soft answer" in capsys.readouterr().err
