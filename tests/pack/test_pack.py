"""Packing: what is in the shards, that a reader takes them for the list they were made of, and what stops it."""

import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import tarfile

import cv2
import numpy as np
import pytest
import ugly

from ppcls_ssld.cli.main import main
from ppcls_ssld.config.schema import LoaderConfig, SourceConfig
from ppcls_ssld.data import TrainReader, files, pixels
from ppcls_ssld.data.lists import read_source
from ppcls_ssld.errors import CheckpointError, ConfigError, DataError, StoppedBySignal
from ppcls_ssld.inference import read_labels
from ppcls_ssld.pack import encode, run
from ppcls_ssld.pack.encode import Encoding
from ppcls_ssld.pack.inputs import open_inputs
from ppcls_ssld.pack.run import PackConfig, pack

COUNT, SHORT = 30, 24
ENCODING = Encoding(SHORT, 90)


@pytest.fixture
def photos(tmp_path):
    """30 images of several kinds and sizes with odd names, and `list.txt` with labels."""
    folder = tmp_path / "my photos"
    lines = []
    for i in range(COUNT):
        height, width = 20 + 3 * (i % 7), 30 + 5 * (i % 4)
        name = f"n{i % 3}/ünï 猫 {i}.{'png' if i % 5 == 4 else 'jpg'}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(ugly.by_opencv(name[-4:], ugly.picture(height, width)[:, ::1 if i % 2 else -1]))
        lines.append(f"{name} {i % 3}\n")
    lines.reverse()
    (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def packed(photos, tmp_path):
    """Pack the list into a folder of this name, small shards; returns the folder."""

    def make(name, path=photos / "list.txt", **changes):
        values = {"encoding": ENCODING, "shard_bytes": 12_000} | changes
        pack(open_inputs(str(path)), PackConfig(tmp_path / name, **values), say=lambda text: None)
        return tmp_path / name

    return make


def content(folder):
    """Every finished file of a pack, by name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and not p.name.startswith(".")}


def listed(folder, root=None, labelled=True):
    return read_source(SourceConfig("s", list=str(folder / "list.txt"), root=str(root or folder), labelled=labelled), 3)


def test_line_i_of_the_packed_list_is_image_i_made_smaller(photos, packed):
    before, after = listed(photos), listed(folder := packed("out"))
    assert len(after) == COUNT and np.array_equal(before.labels, after.labels)
    assert len(list(folder.glob("shard-*.tar"))) > 2
    assert (folder / "originals.txt").read_text("utf-8").splitlines() == [before.path(i) for i in range(COUNT)]
    for i in range(COUNT):
        image = pixels.read(before.path(i))
        small = pixels.decode(files.read_bytes(after.path(i)), "")
        height, width = image.shape[:2]
        scale = min(1, SHORT / min(height, width))
        assert small.shape[:2] == (round(height * scale), round(width * scale))
        expected = cv2.resize(image, small.shape[1::-1], interpolation=cv2.INTER_AREA).astype(int)
        assert abs(small - expected).mean() < 12


def test_a_small_jpeg_is_copied_byte_for_byte_and_nothing_else_is(photos, packed):
    before, after = listed(photos), listed(folder := packed("out"))
    copied = [files.read_bytes(before.path(i)) == files.read_bytes(after.path(i)) for i in range(COUNT)]
    paths = [before.path(i) for i in range(COUNT)]
    small = [path.endswith("jpg") and min(pixels.read(path).shape[:2]) <= SHORT for path in paths]
    assert copied == small and 0 < sum(copied) < COUNT
    assert json.loads((folder / "manifest.json").read_text())["copied"] == sum(copied)


def test_any_tool_that_knows_tar_finds_the_same_images(packed):
    images = listed(folder := packed("out"))
    members = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            members |= {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
            assert {(m.mtime, m.uid, m.uname) for m in archive.getmembers()} == {(0, 0, "")}
    assert list(members) == [f"{i:09d}.jpg" for i in range(COUNT)]
    assert list(members.values()) == [files.read_bytes(images.path(i)) for i in range(COUNT)]


def test_the_reader_takes_the_packed_list_as_it_takes_the_list(photos, packed):
    def batches(folder):
        source = SourceConfig("photos", list=str(folder / "list.txt"), root=str(folder))
        ops = ({"RandCropImage": {"size": 16, "scale": [0.9, 1.0]}}, {"NormalizeImage": {"order": ""}})
        return list(TrainReader(LoaderConfig((source,), ops, batch_size=8, shuffle=True), 3, seed=1).batches(0, 6))

    for one, two in zip(batches(photos), batches(packed("out")), strict=True):
        assert np.array_equal(one.sample_ids, two.sample_ids) and np.array_equal(one.labels, two.labels)


@pytest.mark.parametrize("name", sorted(ugly.plain() | ugly.odd()))
def test_every_kind_of_image_becomes_the_rgb_that_the_reader_sees(tmp_path, name):
    data = (ugly.plain() | {key: value[0] for key, value in ugly.odd().items()})[name]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "image.jpg").write_bytes(data)
    pack(open_inputs(str(tmp_path / "in")), PackConfig(tmp_path / "out", Encoding(256, 95)), say=lambda text: None)
    stored = files.read_bytes(listed(tmp_path / "out", labelled=False).path(0))
    made, seen = pixels.decode(stored, ""), pixels.decode(data, "")
    assert stored.startswith(b"\xff\xd8") and made.shape == seen.shape and abs(made - seen.astype(int)).mean() < 12
    with_color = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    assert with_color.shape == (*seen.shape[:2], 3), "not RGB, or still turned by EXIF"


@pytest.mark.parametrize("workers", [1, 3])
def test_worker_processes_change_no_byte(packed, workers):
    assert content(packed("alone")) == content(packed("helped", workers=workers))


@pytest.mark.parametrize("world", [2, 3])
def test_the_number_of_ranks_changes_no_byte(photos, packed, tmp_path, world):
    inputs, config = open_inputs(str(photos / "list.txt")), PackConfig(tmp_path / "shared", ENCODING, 12_000)
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=pack, args=(inputs, config, rank, world, lambda text: None))
             for rank in reversed(range(world))]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == [0] * world
    assert content(tmp_path / "shared") == content(packed("alone"))


def dies_at(monkeypatch, place, number):
    """Let this process get a signal when it comes to image `place`, after the plan."""
    true, seen = run.pack_image, []

    def pack_image(*args):
        seen.append(args)
        if len(seen) == COUNT + place:  # the sample is the whole list here
            os.kill(os.getpid(), number)
        return true(*args)

    monkeypatch.setattr(run, "pack_image", pack_image)


def test_a_killed_run_started_again_ends_in_the_same_bytes(packed, tmp_path, monkeypatch):
    whole = content(packed("whole"))
    dies_at(monkeypatch, 21, signal.SIGKILL)
    process = multiprocessing.get_context("fork").Process(target=packed, args=("killed",))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    killed = tmp_path / "killed"
    assert (killed / "shard-00000.tar").is_file() and not (killed / "list.txt").exists()
    partial, = killed.glob(".shard-*.partial")
    partial.write_bytes(b"half a shard" * 5000)  # what was written when it died, as far as the disk had it
    monkeypatch.undo()
    times = {p: p.stat().st_mtime_ns for p in killed.glob("shard-*.tar")}
    assert content(packed("killed")) == whole
    assert times == {p: p.stat().st_mtime_ns for p in times}, "a finished shard was written again"


def test_sigterm_ends_with_a_word_and_can_be_gone_on_from(packed, tmp_path, monkeypatch):
    whole = content(packed("whole"))
    dies_at(monkeypatch, 21, signal.SIGTERM)
    with pytest.raises(StoppedBySignal, match="SIGTERM.*start the same command again"):
        packed("stopped")
    monkeypatch.undo()
    assert not (tmp_path / "stopped" / "list.txt").exists()
    assert content(packed("stopped")) == whole


def test_a_shard_that_was_cut_is_written_again(packed):
    whole = content(folder := packed("out"))
    (folder / "shard-00001.tar").write_bytes(whole["shard-00001.tar"][:-512])
    assert content(packed("out")) == whole


def test_other_settings_or_images_in_the_same_folder_are_refused(photos, packed, tmp_path):
    packed("out")
    for changes, word in (({"encoding": Encoding(SHORT, 91)}, "--quality: 90, now 91"),
                          ({"shard_bytes": 9}, "--shard-size"), ({"encoding": Encoding(25, 90)}, "--short-side")):
        with pytest.raises(ConfigError, match=f"other settings.*{word}.*another --output"):
            packed("out", **changes)
    lines = (photos / "list.txt").read_text("utf-8").splitlines(keepends=True)
    (photos / "other.txt").write_text("".join(lines[1:]), "utf-8")
    with pytest.raises(ConfigError, match="other settings.*PATH or what is in it"):
        packed("out", photos / "other.txt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        packed("full")


def test_a_corrupt_image_stops_the_run_or_keeps_its_line_and_number(photos, packed, tmp_path):
    images = listed(photos)
    broken = images.path(7)
    with open(broken, "r+b") as file:
        file.truncate(200)
    os.remove(images.path(28))
    with pytest.raises(DataError, match=r"(truncated|corrupt|no such file).*--on-corrupt skip"):
        packed("stopped")
    after = listed(folder := packed("skipped", on_corrupt="skip"))
    assert len(after) == COUNT and after.path(7) == broken and after.path(28) == images.path(28)
    assert np.array_equal(after.labels, images.labels)
    with open(folder / "quarantine.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["line"], row["original"]) for row in rows] == [("8", broken), ("29", images.path(28))]
    for i in set(range(COUNT)) - {7, 28}:
        assert pixels.decode(files.read_bytes(after.path(i)), "").size


def test_too_little_disk_is_said_before_anything_is_encoded(packed, monkeypatch):
    monkeypatch.setattr(run.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000))
    with pytest.raises(CheckpointError, match=r"0 MiB are needed, 0 MiB are free; free some space"):
        packed("out")


def test_a_folder_is_packed_in_the_order_in_which_a_reader_counts_it(photos, tmp_path):
    for labels, labelled in (("auto", False), ("folders", True)):
        out = tmp_path / labels
        inputs = open_inputs(str(photos), labels=labels)
        pack(inputs, PackConfig(out, ENCODING), say=lambda text: None)
        folder = read_source(SourceConfig("f", folder=str(photos), labelled=labelled), 3)
        assert (out / "originals.txt").read_text("utf-8").splitlines() == [folder.path(i) for i in range(COUNT)]
        assert np.array_equal(listed(out, labelled=labelled).labels, folder.labels)


def test_members_of_archives_are_packed_sorted_by_name(photos, tmp_path):
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(photos / "n2", "n2")
        archive.add(photos / "n1", "n1")
    inputs = open_inputs(str(tmp_path / "*.tar"))
    pack(inputs, PackConfig(tmp_path / "out", ENCODING), say=lambda text: None)
    names = (tmp_path / "out" / "originals.txt").read_text("utf-8").splitlines()
    assert names == sorted(names) and len(names) == 20 and names[0].startswith(str(tmp_path / "b.tar#n1/"))
    images = listed(tmp_path / "out", labelled=False)
    assert all(len(files.read_bytes(images.path(i))) for i in range(20))


def test_the_command_packs_and_says_what_to_put_into_the_config(photos, tmp_path, capsys):
    command = ["pack", str(photos / "list.txt"), "--output", str(tmp_path / "out"), "--workers", "0", "--short-side",
               "24"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "30 images, with labels, into 1 shard(s)" in said and f"image_root: {tmp_path / 'out'}" in said
    for wrong, word in ((["--shard-size", "big"], "1GiB"), (["--quality", "0"], "--quality from 1"),
                        (["--labels", "folders"], "no class folders")):
        assert main(command + wrong) == 2 and word in capsys.readouterr().err


def test_class_folders_leave_the_names_of_their_classes(photos, packed, tmp_path):
    (photos / "list.txt").unlink()
    (photos / "n1b").mkdir()  # a class without images counts
    inputs = open_inputs(str(photos), labels="folders")
    pack(inputs, PackConfig(tmp_path / "named", ENCODING), say=lambda text: None)
    names = read_labels(tmp_path / "named" / "classes.txt", 4)
    assert names == ("n0", "n1", "n1b", "n2")
    originals = (tmp_path / "named" / "originals.txt").read_text("utf-8").splitlines()
    labels = [int(line.split()[-1]) for line in (tmp_path / "named" / "list.txt").read_text("utf-8").splitlines()]
    assert [os.path.relpath(path, photos).split("/")[0] for path in originals] == [names[label] for label in labels]
    assert not (packed("plain", photos) / "classes.txt").exists()


def test_class_folders_that_look_like_ids_keep_their_order(tmp_path):
    for i in range(11):
        (tmp_path / "in" / f"{i} class{i}").mkdir(parents=True)
    (tmp_path / "in" / "10 class10" / "a.png").write_bytes(ugly.by_opencv(".png", ugly.picture()))
    inputs = open_inputs(str(tmp_path / "in"), labels="folders")
    pack(inputs, PackConfig(tmp_path / "out", ENCODING), say=lambda text: None)
    names = read_labels(tmp_path / "out" / "classes.txt", 11)
    assert names[inputs.images.labels[0]] == "10 class10" and sorted(names) == list(names)


def test_several_labels_an_image_come_through(photos, packed):
    names = [line.rpartition(" ")[0] for line in (photos / "list.txt").read_text("utf-8").splitlines()]
    labels = [f"{i % 2},{i // 2 % 2},{-(i % 3 == 0)}" for i in range(COUNT)]
    for file, between in (("tabs.txt", "\t"), ("spaces.txt", " "), ("wide.txt", "\t ")):
        lines = (f"{name}{between}{row}\n" for name, row in zip(names, labels))
        (photos / file).write_text("".join(lines), encoding="utf-8")
        assert open_inputs(str(photos / file)).labelled
    folder = packed("out", photos / "tabs.txt")
    lines = [line.split("\t") for line in (folder / "list.txt").read_text("utf-8").splitlines()]
    assert [row for _, row in lines] == labels and all(name.startswith("shard-") for name, _ in lines)
    source = SourceConfig("s", list=str(folder / "list.txt"), root=str(folder))
    assert read_source(source, 3, multilabel=True).labels[5].tolist() == [1, 0, 0]
    assert (folder / "originals.txt").read_text("utf-8").splitlines() == [str(photos / name) for name in names]
    without = open_inputs(str(photos / "tabs.txt"), labels="none")
    assert not without.labelled and without.name(0) == str(photos / names[0])
    with open(photos / "tabs.txt", "a", encoding="utf-8") as file:
        file.write(f"{names[0]}\t1,0\n")
    with pytest.raises(DataError, match="tabs.txt:31: expected .* with 3 labels"):
        open_inputs(str(photos / "tabs.txt"))


def test_the_delimiter_of_a_list_is_found_or_given(photos):
    text = (photos / "list.txt").read_text("utf-8")
    for name, between, delimiter in (("tab.txt", "\t", None), ("comma.txt", ";", ";"), ("space.txt", " ", None)):
        (photos / name).write_text(re.sub(r" (\d)$", rf"{between}\1", text, flags=re.M), encoding="utf-8")
        inputs = open_inputs(str(photos / name), delimiter=delimiter)
        assert inputs.images.labels.tolist() == listed(photos).labels.tolist()
        assert inputs.name(0) == listed(photos).path(0)


def test_a_class_folder_whose_name_breaks_the_line_is_refused(photos):
    (photos / "list.txt").unlink()
    (photos / "a\nb").mkdir()
    with pytest.raises(DataError, match="class folder .* has a line break in its name"):
        open_inputs(str(photos), labels="folders")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_place_of_the_folder_is_a_user_s_mistake(photos, tmp_path, capsys, below):
    (tmp_path / "file").write_text("mine")
    assert main(["pack", str(photos / "list.txt"), "--output", str(tmp_path / "file" / below)]) == 2
    said = capsys.readouterr().err
    assert "file is not a folder; choose another --output" in said and "free" not in said
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["train.yaml", "train.YML"])
def test_a_config_is_not_taken_for_a_list(tmp_path, name):
    (tmp_path / name).write_text("Global:\n  epochs: 3\n")
    with pytest.raises(ConfigError, match=f"{name}: is a config; name the list in it"):
        open_inputs(str(tmp_path / name))


@pytest.mark.parametrize("path", ["my photos", "my phot?s", "link"])
def test_an_output_among_the_images_is_refused_before_the_first_is_read(photos, tmp_path, capsys, monkeypatch, path):
    (tmp_path / "link").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    for output in (photos, photos / "packed", "my photos/n0/../deep/packed"):
        assert main(["pack", path, "--output", str(output)]) == 2
        assert f"--output {output}: lies in {tmp_path}/" in capsys.readouterr().err
    assert not list(photos.rglob("manifest.json"))
    # A list names its own images, wherever the packed ones go.
    assert main(["pack", "my photos/list.txt", "--output", "my photos/packed", "--workers", "0"]) == 0


def test_an_image_too_long_for_a_jpeg_is_left_where_it_is_and_named(tmp_path):
    (tmp_path / "in").mkdir()
    for name, width in (("a.png", 65_500), ("b.png", 65_501), ("c.png", 70_000)):
        (tmp_path / "in" / name).write_bytes(cv2.imencode(".png", np.full((10, width, 3), 90, np.uint8))[1].tobytes())
    inputs = open_inputs(str(tmp_path / "in"))
    with pytest.raises(DataError, match="b.png: 65501x10 pixels, and a JPEG has at most 65,500 a side"):
        pack(inputs, PackConfig(tmp_path / "stop"), say=lambda text: None)
    done = pack(inputs, PackConfig(tmp_path / "skip", on_corrupt="skip"), say=lambda text: None)
    assert (done.images, done.skipped) == (3, 2)
    lines = (tmp_path / "skip" / "list.txt").read_text().splitlines()
    assert lines[0].startswith("shard-") and lines[1:] == [str(tmp_path / "in" / name) for name in ("b.png", "c.png")]


def test_an_encoder_that_gives_up_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(encode.cv2, "imencode", lambda *_: (False, np.zeros(0, np.uint8)))
    with pytest.raises(DataError, match="cannot encode 4x2 pixels"):
        encode.encode(np.zeros((2, 4, 3), np.uint8), 90)
