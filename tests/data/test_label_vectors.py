"""Several labels an image: lists in PaddleClas's form, what is refused, and batches that carry them."""

import numpy as np
import pytest

from ppcls_ssld.config.schema import SourceConfig
from ppcls_ssld.data import EvalReader, TrainReader, lists
from ppcls_ssld.data.lists import read_source
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.structs import UNLABELLED


@pytest.fixture
def read(tmp_path):
    """Write a list and read it: read(text, labelled=False) -> ImageList."""

    def write_and_read(text, class_num=3, **changes):
        file = tmp_path / "list.txt"
        file.write_text(text)
        source = SourceConfig("mine", **{"list": str(file), "root": "/data", "delimiter": "\t"} | changes)
        return read_source(source, class_num, multilabel=True)

    return write_and_read


def paths(images):
    return [images.path(i) for i in range(len(images))]


@pytest.mark.parametrize("text", ["a.jpg\t1,0,-1\nb c.jpg\t0,0,1\n", "\ufeffa.jpg\t1,0,-1\r\n\r\n  b c.jpg \t0,0,+1  ",
                                  "a.jpg\t 1, 0,-1\nb c.jpg\t0,0 ,1"])
def test_lists_are_read_however_their_lines_end(read, text):
    images = read(text)
    assert paths(images) == ["/data/a.jpg", "/data/b c.jpg"]
    assert images.labels.tolist() == [[1, 0, -1], [0, 0, 1]] and images.labels.dtype == np.int8


def test_lists_longer_than_a_chunk_are_read_whole(read, monkeypatch):
    monkeypatch.setattr(lists, "_CHUNK_BYTES", 64)
    images = read("".join(f"{i}.jpg\t{i % 2},{i // 2 % 2},{-(i % 3 == 0)}\n" for i in range(100)))
    assert images.labels.tolist() == [[i % 2, i // 2 % 2, -(i % 3 == 0)] for i in range(100)]
    assert paths(images)[99] == "/data/99.jpg"


@pytest.mark.parametrize("text", ["a.jpg\t1,0,1\n", "a.jpg\t1,0\n", "a.jpg\t5\n", "a.jpg\n", "a.jpg\t1,0,1,1,2\n"])
def test_an_unlabelled_list_may_have_or_lack_labels_and_all_are_unknown(read, text):
    images = read(text, labelled=False)
    assert paths(images) == ["/data/a.jpg"] and images.labels.tolist() == [[UNLABELLED] * 3]
    assert images.labels.dtype == np.int8
    assert paths(read("a,b.jpg\tnot labels\n", labelled=False)) == ["/data/a,b.jpg\tnot labels"]


@pytest.mark.parametrize("text, message", [
    ("a.jpg\t1,0,1\n\nb.jpg\t1,0\n", r"list.txt:3: expected 'path\tlabel,label,...' with 3 labels \(Arch.class_num\)"),
    ("a.jpg\t1,0,2\n", r"each 1 \(yes\), 0 \(no\) or -1 \(not known\), found 'a.jpg\\t1,0,2'"),
    ("a.jpg 1,0,1\n", r"list.txt:1: .*the delimiter \('\\t'\)"), ("a.jpg\t1,,1\n", "list.txt:1: expected"),
    ("a.jpg\t1,0,1,0\n", "list.txt:1"), ("a.jpg\t1.0,0,1\n", "list.txt:1"), ("a.jpg\t-2,0,1\n", "list.txt:1"),
    ("a.jpg\n", "labelled: false for source 'mine'"), ("a.jpg\t3\n", "list.txt:1"), ("", "empty")])
def test_a_wrong_line_is_an_error_with_file_and_line(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_without_a_delimiter_a_tab_is_meant_and_unlabelled_images_may_have_a_class_id_behind_a_space(read):
    assert read("b c.jpg\t0,0,1\n", delimiter=None).labels.tolist() == [[0, 0, 1]]
    with pytest.raises(DataError, match=r"list.txt:1: .*the delimiter \('\\t'\)"):
        read("a.jpg 1,0,1\n", delimiter=None)
    for line in ("b c.jpg\t0,0,1", "b c.jpg 0", "b c.jpg"):
        assert paths(read(f"{line}\n", delimiter=None, labelled=False)) == ["/data/b c.jpg"]


def test_folders_are_images_without_labels_or_refused(photos):
    images = read_source(SourceConfig("pool", folder=str(photos), labelled=False), 3, multilabel=True)
    assert len(images) == 30 and images.labels.shape == (30, 3) and (images.labels == UNLABELLED).all()
    with pytest.raises(ConfigError, match="source 'pool': sub-folders are one class an image"):
        read_source(SourceConfig("pool", folder=str(photos)), 3, multilabel=True)


@pytest.fixture
def attributes(photos):
    """The photographs with labels "number is odd", "number is 15 or more" (of every fifth not known)."""
    rows = [[i % 2, UNLABELLED if i % 5 == 0 else int(i >= 15)] for i in range(30)]
    (photos / "attributes.txt").write_text("".join(f"{i:02d}.jpg\t{a},{b}\n" for i, (a, b) in enumerate(rows)))
    return photos, np.array(rows)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_carry_each_images_own_labels_from_every_source(loader, attributes, num_workers):
    folder, rows = attributes
    sources = (SourceConfig("few", list=str(folder / "attributes.txt"), root=str(folder), delimiter="\t"),
               SourceConfig("many", list=str(folder / "pool.txt"), root=str(folder), labelled=False))
    reader = TrainReader(loader(sources=sources, num_workers=num_workers), 2, seed=5, multilabel=True)
    seen = set()
    for batch in reader.batches(0, 20):
        expected = np.concatenate([rows, np.full((11, 2), UNLABELLED)])[batch.sample_ids]
        assert batch.labels.dtype == np.int8 and batch.labels.tolist() == expected.tolist()
        assert batch.partner_labels.tolist() == expected.tolist() and (batch.share == 1).all()
        seen.update(batch.sample_ids.tolist())
    assert seen == set(range(41))


def test_shares_of_yes_are_those_of_what_is_known_in_all_labelled_sources(loader, attributes):
    folder, rows = attributes
    (folder / "more.txt").write_text("00.jpg\t1,-1\n01.jpg\t1,-1\n")
    sources = [SourceConfig(name, list=str(folder / f"{name}.txt"), root=str(folder), delimiter="\t")
               for name in ("attributes", "more")]
    sources.append(SourceConfig("pool", list=str(folder / "pool.txt"), root=str(folder), labelled=False))
    share = TrainReader(loader(sources=tuple(sources)), 2, seed=0, multilabel=True).yes_share
    known = rows[rows[:, 1] >= 0, 1]
    assert share.dtype == np.float32 and share.tolist() == pytest.approx([17 / 32, known.mean()])
    unknown = TrainReader(loader(sources=tuple(sources[2:])), 2, seed=0, multilabel=True)
    assert unknown.yes_share.tolist() == [0, 0]
    one_label = tuple(sources[2:])
    assert TrainReader(loader(sources=one_label), 5, seed=0).yes_share is None


def test_an_eval_reader_knows_how_often_each_label_is_known_in_what_it_reads(loader, attributes):
    folder, rows = attributes
    source = SourceConfig("test", list=str(folder / "attributes.txt"), root=str(folder), delimiter="\t")
    whole = EvalReader(loader(sources=(source,)), 2, multilabel=True)
    assert whole.known.tolist() == [(rows == 0).sum(0).tolist(), (rows == 1).sum(0).tolist()]
    assert whole.yes_share == pytest.approx([0.5, 12 / 24])
    few = EvalReader(loader(sources=(source,)), 2, rank=1, world=2, limit=10, multilabel=True)
    part = rows[np.arange(10) * 3]
    assert few.known.tolist() == [(part == 0).sum(0).tolist(), (part == 1).sum(0).tolist()]
    labels = np.concatenate([batch.labels for batch in whole.batches()])
    assert labels.tolist() == rows.tolist()
