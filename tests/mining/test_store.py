"""Parts: what is written comes back, whole or not at all, and never under other settings."""

import errno
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from ppcls_ssld.errors import EXIT_DISK, CheckpointError, ConfigError, DataError
from ppcls_ssld.mining import store

SETTINGS = {"threshold": 12, "protected": "0b5e", "stages": ["bytes", "keypoints"]}


def score_columns(n=5, p=3, seed=0):
    rng = np.random.default_rng(seed)
    return {"index": np.arange(n) + 100, "name": [f"/pool/Größe {i} 猫.jpg" for i in range(n)],
            "id": np.frombuffer(rng.bytes(16 * n), "V16"), "classes": rng.integers(0, 1000, (n, p)).astype(np.int32),
            "log_probs": -np.sort(rng.exponential(1e-4, (n, p))).astype(np.float16),
            "logsumexp": rng.normal(size=n).astype(np.float32), "entropy": rng.random(n).astype(np.float32)}


def dedup_columns():
    transform = np.full((3, 2, 3), np.nan, np.float32)
    transform[0] = [[0.5, 0, 0.25], [0, -0.5, 0.75]]
    return {"index": np.arange(3), "name": ["a.jpg", "b.jpg", "c.jpg"],
            "id": [b"0123456789abcde\0", bytes(range(16)), None],
            "status": ["removed", "kept", "unreadable"], "stage": ["keypoints", "", ""],
            "protected": ["val/x.jpg", "", ""], "score": np.array([31, np.nan, np.nan], np.float32),
            "transform": transform, "mirrored": [True, False, False],
            "pairs": [np.arange(400, dtype=np.float32).reshape(100, 4), np.zeros((0, 4)), np.zeros((0, 4))],
            "reason": ["", "", "zero bytes"], "kinds": ["grey,rotated", "", ""], "width": [640, 32, 0],
            "height": [480, 32, 0], "hash": [np.uint64(2**63 + 5), None, 0],
            "pixels": [bytes(range(1, 17)), None, None]}


def write_score(folder, block, **changes):
    return store.write_part(folder, block, score_columns(seed=block) | changes, "score", SETTINGS)


def test_scores_come_back_bit_for_bit(tmp_path):
    columns = score_columns()
    path = store.write_part(tmp_path / "score", 7, columns, "score", SETTINGS)
    assert path.name == "part-00007.parquet" and os.listdir(path.parent) == [path.name]
    back = store.read_part(tmp_path / "score", 7, "score", SETTINGS)
    assert back.keys() == columns.keys()
    for name in columns:
        assert np.array_equal(back[name], columns[name]), name
        assert name == "name" or back[name].dtype == columns[name].dtype, name
    assert back["id"].tobytes() == columns["id"].tobytes()


def test_duplicates_come_back_with_what_is_absent_told_as_such(tmp_path):
    columns = dedup_columns()
    store.write_part(tmp_path, 0, columns, "dedup", SETTINGS)
    back = store.read_part(tmp_path, 0, "dedup", SETTINGS)
    for name in ("name", "status", "stage", "protected", "reason", "kinds", "mirrored", "width", "height"):
        assert back[name].tolist() == columns[name], name
    for name in ("score", "transform"):
        assert back[name].dtype == np.float32 and np.array_equal(back[name], columns[name], equal_nan=True), name
    assert back["id"].tobytes() == b"0123456789abcde\0" + bytes(range(16)) + bytes(16)
    assert back["hash"].dtype == np.uint64 and back["hash"].tolist() == [2**63 + 5, 0, 0]
    assert [p.shape for p in back["pairs"]] == [(store.MOST_PAIRS, 4), (0, 4), (0, 4)]
    assert np.array_equal(back["pairs"][0], columns["pairs"][0][:store.MOST_PAIRS])
    assert (back["status"] == "kept").tolist() == [False, True, False]
    table = pq.read_table(tmp_path)
    assert [table[name].null_count for name in ("id", "transform", "hash", "pixels")] == [1, 2, 2, 2]


@pytest.mark.parametrize("kind, columns", [("score", score_columns(n=0)),
                                           ("dedup", {name: values[:0] for name, values in dedup_columns().items()})])
def test_a_block_without_rows_is_a_part_too(tmp_path, kind, columns):
    store.write_part(tmp_path, 0, columns, kind, {})
    assert [len(v) for v in store.read_part(tmp_path, 0, kind).values()] == [0] * len(columns)
    assert store.missing(tmp_path, 1, kind, {}) == []


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for kind, columns in (("score", score_columns(1000)), ("dedup", dedup_columns())):
        one, two = (store.write_part(tmp_path / name, 3, columns, kind, SETTINGS) for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_other_tools_see_plain_columns_in_one_row_group(tmp_path):
    write_score(tmp_path, 0)
    write_score(tmp_path, 1)
    assert pq.ParquetFile(tmp_path / "part-00000.parquet").num_row_groups == 1
    table = pq.read_table(tmp_path)  # the folder as one table
    assert len(table) == 10 and str(table.schema.field("log_probs").type) == "fixed_size_list<element: halffloat>[3]"
    assert table["log_probs"].to_pylist()[5] == score_columns(seed=1)["log_probs"][0].tolist()


def test_only_the_columns_asked_for_are_read(tmp_path):
    write_score(tmp_path, 0)
    assert list(store.read_part(tmp_path, 0, "score", columns=("id", "classes"))) == ["id", "classes"]
    whole = list(store.read_parts(tmp_path, [0, 0], "score", SETTINGS, iter(("index",))))
    assert [part["index"].tolist() for part in whole] == [list(range(100, 105))] * 2


def test_parts_are_counted_by_name_and_leftovers_are_not(tmp_path):
    for block in (12, 3, 123456):
        write_score(tmp_path, block)
    (tmp_path / ".part-00004.parquet.77").write_bytes(b"PAR1")
    (tmp_path / "notes.txt").write_text("")
    assert store.parts(tmp_path) == [3, 12, 123456] and store.parts(tmp_path / "nowhere") == []
    assert store.missing(tmp_path, 5, "score", SETTINGS) == [0, 1, 2, 4]


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -8])
def test_a_part_cut_short_counts_as_missing_and_can_be_made_again(tmp_path, keep):
    path = write_score(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:keep])
    assert store.missing(tmp_path, 1, "score", SETTINGS) == [0]
    with pytest.raises(DataError, match="part-00000.parquet: no whole part .* run the same command again"):
        store.read_part(tmp_path, 0, "score", SETTINGS)
    write_score(tmp_path, 0)
    assert store.missing(tmp_path, 1, "score", SETTINGS) == []


def test_a_flipped_bit_within_is_found_when_the_part_is_read(tmp_path):
    path = write_score(tmp_path, 0, logsumexp=np.arange(5, dtype=np.float32) + 0.123)
    column = pq.ParquetFile(path).metadata.row_group(0).column(5)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="no whole part"):
        store.read_part(tmp_path, 0, "score", SETTINGS)


def test_an_absent_part_is_named(tmp_path):
    with pytest.raises(DataError, match="part-00009.parquet"):
        store.read_part(tmp_path, 9, "score")


@pytest.mark.parametrize("settings, words", [
    (SETTINGS | {"threshold": 13}, "threshold 12 there, 13 now"),
    (SETTINGS | {"flip": True}, "flip absent there, True now"),
    ({"threshold": 12, "protected": "0b5e"}, r"stages \['bytes', 'keypoints'\] there, absent now")])
def test_a_part_of_other_settings_is_refused_and_told_apart(tmp_path, settings, words):
    write_score(tmp_path, 0)
    for refuse in (lambda: store.missing(tmp_path, 1, "score", settings),
                   lambda: store.read_part(tmp_path, 0, "score", settings)):
        with pytest.raises(ConfigError, match=words):
            refuse()
    assert len(store.read_part(tmp_path, 0, "score")) == 7  # without settings, any


def test_a_part_of_another_kind_block_or_maker_is_refused(tmp_path):
    path = write_score(tmp_path, 0)
    with pytest.raises(ConfigError, match="kind 'score', expected 'dedup'"):
        store.read_part(tmp_path, 0, "dedup", SETTINGS)
    path.rename(tmp_path / "part-00001.parquet")
    with pytest.raises(ConfigError, match="block 0, expected 1"):
        store.missing(tmp_path, 2, "score", SETTINGS)
    pq.write_table(pq.read_table(tmp_path).replace_schema_metadata({}), tmp_path / "part-00001.parquet")
    with pytest.raises(ConfigError, match="no part of the miner"):
        store.read_part(tmp_path, 1, "score")


@pytest.mark.parametrize("change, message", [
    ({"extra": [1]}, "has the columns"), ({"name": ["one"]}, "of one length")])
def test_columns_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        write_score(tmp_path, 0, **change)
    assert store.parts(tmp_path) == []


def test_a_word_that_is_no_status_is_refused(tmp_path):
    with pytest.raises(DataError, match="status 'deleted' is none of 'kept', 'removed', 'unreadable'"):
        store.write_part(tmp_path, 0, dedup_columns() | {"status": ["kept", "deleted", "kept"]}, "dedup", {})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_part_and_says_so(tmp_path, monkeypatch, step):
    path = write_score(tmp_path, 0)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(CheckpointError, match="No space left on device; .* MiB free .* goes on from there") as caught:
        write_score(tmp_path, 0, entropy=np.ones(5, np.float32))
    assert caught.value.exit_code == EXIT_DISK
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_disk_error_too(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_score(tmp_path / "file" / "score", 0)
