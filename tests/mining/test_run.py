"""Mining from beginning to end on real pictures: what goes, what stays, and that nothing else decides it."""

import codecs
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mining_world import CLASSES, TILE, counts, names, results, table, tiles, write
from ppcls_ssld.config.mine import SelectConfig
from ppcls_ssld.config.schema import LoaderConfig, SourceConfig
from ppcls_ssld.data import TrainReader
from ppcls_ssld.errors import ConfigError, DataError, WeightsError
from ppcls_ssld.mining.choose import Exclusions
from ppcls_ssld.mining.false_alarms import at_threshold
from ppcls_ssld.mining.geometry import GeometryConfig
from ppcls_ssld.mining.score import check_transforms, load_teacher, score_settings


def test_every_planted_copy_is_removed_for_its_original_and_nothing_else(world, mined):
    found = {Path(row["path"]).name: Path(row["copy_of"]).name for row in table(mined / "removed.csv")}
    assert found == world.planted


def test_each_copy_is_found_by_the_cheapest_evidence(mined):
    stage = {Path(row["path"]).name: row["stage"] for row in table(mined / "removed.csv")}
    assert stage["bytes of 0.png"] == "bytes" and stage["pixels of 1.bmp"] == "pixels"
    assert stage["crop of 0.png"] == "keypoints" and stage["grey of 3.png"] == "hash"


def test_the_transform_of_a_crop_says_where_it_was_cut(mined):
    row = next(row for row in table(mined / "removed.csv") if row["path"].endswith("crop of 0.png"))
    expected = np.array([[110 / TILE, 0, 30 / TILE], [0, 110 / TILE, 20 / TILE]])
    np.testing.assert_allclose(np.array(row["transform"].split(), float).reshape(2, 3), expected, atol=0.02)
    assert row["mirrored"] == "no"


def test_what_cannot_be_read_is_set_aside_with_a_reason(world, mined):
    rows = {Path(row["path"]).name: row["reason"] for row in table(mined / "quarantine.csv")}
    assert rows.keys() == world.unreadable
    assert "empty" in rows["empty.jpg"] and "too small: 1 x 1" in rows["one.png"]
    assert "No such file" in rows["missing.png"]


def test_no_image_is_lost_between_the_counts(mined):
    found = counts(mined)
    removed = sum(n for key, n in found.items() if key.startswith("removed_"))
    assert found["name_duplicates"] == 2
    assert found["listed"] == found["name_duplicates"] + found["unreadable"] + removed + found["scored"]
    assert found["scored"] == sum(len(pq.read_table(part)) for part in (mined / "score").glob("*.parquet")) == 14


def test_training_reads_the_list_as_it_is(mined):
    source = SourceConfig("mined", list=str(mined / "selected.txt"), labelled=False)
    ops = ({"ResizeImage": {"size": 16}}, {"NormalizeImage": {"order": ""}}, {"ToCHWImage": None})
    reader = TrainReader(LoaderConfig((source,), ops, batch_size=4, num_workers=1), CLASSES, seed=0)
    assert reader.sizes == (counts(mined)["chosen"],)
    batch = next(reader.batches(0, 1))
    assert len(batch.images) == 4 and (batch.labels == -1).all()


def test_the_selection_is_the_top_k_of_the_stored_scores(mined):
    part = pq.ParquetDataset([str(p) for p in (mined / "score").glob("*.parquet")]).read().to_pydict()
    best = {}
    for name, content_id, classes, logs in zip(part["name"], part["id"], part["classes"], part["log_probs"]):
        best.setdefault(classes[0], []).append((-float(np.exp(np.float64(logs[0]))), content_id, name))
    expected = {name for images in best.values() for *_, name in sorted(images)[:4]}
    assert set((mined / "selected.txt").read_text().splitlines()) == expected


def test_the_control_has_as_many_images_from_the_same_scored_pool(mined):
    scored = {name for part in (mined / "score").glob("*.parquet") for name in pq.read_table(part)["name"].to_pylist()}
    drawn = (mined / "random.txt").read_text().splitlines()
    assert len(set(drawn)) == len(drawn) == counts(mined)["chosen"] and set(drawn) <= scored


def test_the_report_stands_alone(mined):
    page = (mined / "report.html").read_text()
    assert "crop of 0.png" in page and "data:image" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page


def test_a_dry_run_writes_no_list(world, mined):
    before = results(mined)
    said = []
    world.mine(wanted=["select"], dry_run=True, said=said, Select={"top_k": 1})
    assert results(mined) == before and any("chosen:" in line for line in said)


def test_excluded_images_are_not_chosen(world, mined, tmp_path):
    chosen = table(mined / "selected.csv")
    (tmp_path / "not.txt").write_text(f"{chosen[0]['path']}\n{chosen[1]['id']}\n")
    try:
        world.mine(wanted=["select"], Select={"exclude": [str(tmp_path / "not.txt")]})
        left = {row["path"] for row in table(mined / "selected.csv")}
        assert not left & {chosen[0]["path"], chosen[1]["path"]} and counts(mined)["excluded"] == 2
    finally:
        world.mine(wanted=["select"])


def test_paddleclas_form_and_root(world, mined):
    try:
        world.mine(wanted=["select"], Select={"format": "paddleclas", "root": str(world.folder / "pool"), "floor": 3})
        lines = (mined / "selected.txt").read_text().splitlines()
        assert all(line.endswith(" 0") and not line.startswith("/") for line in lines)
        weights = [float(w) for w in (mined / "selected_weights.txt").read_text().split()]
        assert len(weights) == len(lines) and min(weights) >= 1
    finally:
        world.mine(wanted=["select"])


def test_a_pool_inside_the_protected_folder_is_removed_whole(world):
    out = world.mine("inside", Mine={"pool": [str(world.folder / "protected")]}, wanted=["dedup", "score", "select"])
    assert len(table(out / "removed.csv")) == 4 and {row["stage"] for row in table(out / "removed.csv")} == {"path"}
    assert (out / "selected.txt").read_text() == ""


def test_copies_inside_the_pool_leave_the_largest(tmp_path, world):
    pictures = tiles()
    pool = tmp_path / "pool"
    write(pool / "a small.jpg", pictures[4][::2, ::2])
    write(pool / "b.png", pictures[4])
    write(pool / "c mirrored.png", pictures[4][:, ::-1])
    write(pool / "d same pixels.bmp", pictures[4])
    write(pool / "e other.png", pictures[6])
    out = world.mine("within", Mine={"pool": [str(pool)]}, Dedup={"within_pool": True})
    rows = {Path(row["path"]).name: (Path(row["copy_of"]).name, row["stage"]) for row in table(out / "removed.csv")}
    assert rows == {"a small.jpg": ("b.png", "pool hash"), "c mirrored.png": ("b.png", "pool hash"),
                    "d same pixels.bmp": ("b.png", "pool pixels")}
    assert counts(out)["scored"] == 2


def test_an_embedding_proposes_what_the_hash_and_the_index_do_not(world):
    off = {"hash": False, "thumbnail": False}
    embedding = {"embedding": "MobileNetV3_small_x0_35", "embedding_weights": str(world.folder / "teacher.pdparams")}
    out = world.mine("embedding", wanted=["dedup", "score", "select"], Dedup={**off, **embedding})
    assert set(names(out / "removed.csv")) >= {"crop of 0.png", "mirror of 1.jpg", "bytes of 0.png"}


def test_method_paper_compares_within_a_class_only(tmp_path, world):
    pictures = tiles()
    for i in (0, 1):
        write(tmp_path / "val" / f"class{i}" / "v.png", pictures[i])
        write(tmp_path / "pool" / f"class{i}" / "copy.jpg", pictures[i])
    write(tmp_path / "pool" / "class1" / "copy of class 0.jpg", pictures[0])
    paths = {"pool": [str(tmp_path / "pool")], "protect": [str(tmp_path / "val")]}
    out = world.mine("paper", Mine=paths, Dedup={"method": "paper"})
    assert sorted(names(out / "removed.csv")) == ["copy.jpg", "copy.jpg"]
    with pytest.raises(ConfigError, match="no such name is on both sides"):
        world.mine("paper2", Mine={**paths, "protect": [str(world.folder / "protected")]}, Dedup={"method": "paper"})


def test_negatives_set_the_thresholds_and_the_report_says_so(tmp_path, world):
    rng = np.random.default_rng(1)
    photo = tiles()
    for i in range(60):
        y, x = rng.integers(0, 40, 2)
        rolled = np.roll(photo[4 + i % 8], int(rng.integers(1, 80)), 0)
        write(tmp_path / "neg" / f"{i}.png", rolled[y:y + 100, x:x + 100])
    out = world.mine("calibrated", Dedup={"negatives": [str(tmp_path / "neg")], "false_alarms": 0.01})
    found = json.loads((out / "thresholds.json").read_text())
    assert found["cells"] >= GeometryConfig().cells and found["estimates"]["cells"]["count"] == 60
    assert "your negatives" in (out / "report.html").read_text()


def test_a_margin_survives_blocks_without_images(world):
    out = world.mine("margin", Mine={"block_size": 2},
                     Select={"score": "margin", "classes_per_image": 2, "once": False})
    rows = table(out / "selected.csv")
    assert rows and all(-1 <= float(row["score"]) <= 1 for row in rows)
    assert len({row["path"] for row in rows}) < len(rows)


def test_a_pool_without_one_readable_image_gives_empty_lists(world, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    out = world.mine("unreadable", Mine={"pool": [str(tmp_path / "a.jpg")]})
    assert (out / "selected.txt").read_text() == "" and counts(out)["unreadable"] == 1


def test_a_protected_folder_in_which_nothing_can_be_listed_stops_the_run(world, tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "val.tar.gz").write_bytes(b"packed")
    for protect in ([str(tmp_path / "val")], [str(world.folder / "protected"), str(tmp_path / "val")]):
        with pytest.raises(DataError, match="val: there is no image in it that can be listed .*val.tar.gz"):
            world.mine("packed", wanted=["dedup"], Mine={"protect": protect})


def test_what_of_the_protected_set_cannot_be_listed_is_warned_of(world, tmp_path):
    write(tmp_path / "val" / "seen.png", tiles()[0])
    (tmp_path / "val" / "more.tar.gz").write_bytes(b"packed")
    said = []
    world.mine("partly", wanted=["dedup"], said=said, Mine={"protect": [str(tmp_path / "val")]})
    warning, = [line for line in said if line.startswith("warning:")]
    assert "1 protected files or folders cannot be listed" in warning and "more.tar.gz: a compressed" in warning


def test_without_a_protected_set_the_rest_still_works(world):
    said = []
    out = world.mine("unprotected", said=said, Mine={"protect": []})
    assert counts(out)["scored"] == 20 and any("nothing is protected" in line for line in said)


def test_a_teacher_that_does_not_fit_is_refused_before_the_first_image(world):
    with pytest.raises(WeightsError, match="must be loaded whole"):
        world.mine("misfit", Teacher={"class_num": CLASSES + 1})
    assert not (world.folder / "misfit").exists()


def test_another_output_stride_is_another_network_and_another_setting(world):
    plain, strided = world.config(), world.config(Teacher={"output_stride": 4})
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert not np.allclose(load_teacher(plain, CLASSES)(images), load_teacher(strided, CLASSES)(images))
    assert "output_stride" not in score_settings(plain), "finished parts would be refused"
    assert score_settings(strided) == score_settings(plain) | {"output_stride": 4}


def test_errors_about_the_teacher_name_the_section_of_this_config(world):
    with pytest.raises(ConfigError, match="^Teacher: MobileNetV3_small_x0_35 has no argument 'sclae'"):
        world.mine("misspelt", Teacher={"sclae": 2})


@pytest.mark.parametrize("score, message", [
    ({"transform_ops": [{"ResizeImage": {"size": 48}}]}, "image_size is 32, but the transforms .* give 48x48 pixels"),
    ({"transform_ops": [{"ResizeImage": {"resize_short": 24}}, {"CropImage": {"size": 32}}]}, "do not work on an im"),
    ({"transform_ops": [{"ResizeImge": {"size": 32}}]}, "did you mean 'ResizeImage'"),
])
def test_transforms_that_do_not_fit_the_teacher_are_refused_before_the_first_image(world, score, message):
    with pytest.raises(ConfigError, match=message):
        world.mine("misfit", Teacher={"engine": "auto"}, Score=score)
    assert not (world.folder / "misfit").exists()
    check_transforms(world.config(Teacher={"engine": "auto"}))
    other = {"transform_ops": [{"ResizeImage": {"size": 48}}]}
    check_transforms(world.config(Teacher={"engine": "auto"}, Score=other, Mine={"device": "gpu"}))  # eager there


def test_ids_are_excluded_whatever_mark_opens_their_file(tmp_path):
    lone = bytes(range(16))
    for name, opening in (("plain.txt", b""), ("mark.txt", codecs.BOM_UTF8)):
        (tmp_path / name).write_bytes(opening + lone.hex().encode() + b"\n")
        found = Exclusions(SelectConfig(exclude=(str(tmp_path / name),)))
        assert (found.ids, found.names, found.lines) == ({lone}, set(), 1)


def test_an_earlier_selection_is_an_exclusion_list(world, mined):
    try:
        world.mine(wanted=["select"], Select={"format": "paddleclas", "root": str(world.folder / "pool")})
        chosen = (mined / "selected.txt").read_text()
        (world.folder / "pool" / "seen.txt").write_text(chosen)
        world.mine(wanted=["select"], Select={"exclude": [str(world.folder / "pool" / "seen.txt")]})
        assert counts(mined)["excluded"] == len(chosen.splitlines()) > 0
    finally:
        world.mine(wanted=["select"])


def test_an_image_that_is_gone_when_it_is_scored_is_named(world, tmp_path):
    write(tmp_path / "pool" / "a.png", tiles()[5])
    gone = write(tmp_path / "pool" / "b.png", tiles()[6])
    pool = {"pool": [str(tmp_path / "pool")]}
    world.mine("gone", wanted=["dedup"], Mine=pool)
    gone.unlink()
    out = world.mine("gone", Mine=pool)
    assert names(out / "quarantine.csv") == ["b.png"] and counts(out)["unreadable"] == 1 and counts(out)["scored"] == 1


def test_an_empty_file_is_no_copy_of_an_empty_protected_file(world, tmp_path):
    for side in ("pool", "protected"):
        write(tmp_path / side / "a.png", tiles()[5 if side == "pool" else 6])
        (tmp_path / side / "empty.jpg").write_bytes(b"")
    out = world.mine("empties", Mine={"pool": [str(tmp_path / "pool")], "protect": [str(tmp_path / "protected")]})
    assert names(out / "removed.csv") == []
    assert sorted(names(out / "quarantine.csv")) == ["empty.jpg", "empty.jpg"]


def test_a_protected_set_that_cannot_be_read_is_refused(world, tmp_path):
    (tmp_path / "nothing.txt").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(DataError, match="none of the 2 protected images"):
        world.mine("unreadable protected", Mine={"protect": [str(tmp_path / "nothing.txt")]})


def test_a_threshold_that_was_set_is_reported_with_its_own_rate(world, tmp_path):
    for i in range(60):
        write(tmp_path / "neg" / f"{i}.png", np.roll(tiles()[4 + i % 8], 3 * i, 1)[:100, :100])
    out = world.mine("set", Dedup={"negatives": [str(tmp_path / "neg")], "min_correlation": 0.3})
    found = json.loads((out / "thresholds.json").read_text())
    scores = np.array(found["scores"]["correlation"])
    assert at_threshold(found, "correlation", 0.3).alarms == int((scores >= 0.3).sum())
