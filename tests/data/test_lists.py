import numpy as np
import pytest

from ppcls_ssld.config.schema import SourceConfig
from ppcls_ssld.data import lists
from ppcls_ssld.data.lists import read_list, read_source
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.structs import UNLABELLED


@pytest.fixture
def read(tmp_path):
    """Write a list and read it: read(text, labelled=False) -> ([path, ...], [label, ...])."""

    def write_and_read(text, class_num=10, **changes):
        file = tmp_path / "list.txt"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        source = SourceConfig("mine", **{"list": str(file), "root": "/data"} | changes)
        images = read_list(source, class_num)
        return [images.path(i) for i in range(len(images))], images.labels.tolist()

    return write_and_read


@pytest.mark.parametrize("text", [
    "a.jpg 0\nb/c.jpg 9\n", "a.jpg 0\r\nb/c.jpg 9\r\n", "a.jpg 0\nb/c.jpg 9", "\n\na.jpg 0\n  \n\nb/c.jpg 9\n\n",
    "\ufeffa.jpg 0\nb/c.jpg 9\n", "a.jpg 0  \n\tb/c.jpg  9\t\n", "a.jpg 0\nb/c.jpg +9\n"])
def test_lists_are_read_however_their_lines_end(read, text):
    assert read(text) == (["/data/a.jpg", "/data/b/c.jpg"], [0, 9])


def test_a_path_may_contain_spaces_and_other_alphabets_and_be_absolute(read):
    assert read("my photos/ä ö 7.jpg 3\n") == (["/data/my photos/ä ö 7.jpg"], [3])
    assert read("/elsewhere/猫.jpg 0\n") == (["/elsewhere/猫.jpg"], [0])
    assert read("my photo.jpg\t3\na,b.jpg\t4\n", delimiter="\t") == (["/data/my photo.jpg", "/data/a,b.jpg"], [3, 4])
    assert read("a b.jpg,3\n", delimiter=",") == (["/data/a b.jpg"], [3])


def test_an_unlabelled_list_may_have_or_lack_labels(read):
    text = "a.jpg 3\nmy photo.jpg\nmy photo.jpg 77777\nb.jpg -1\nc.jpg 0.5\nphoto 7.jpg\nd.jpg 99999999999\n12\n"
    paths, labels = read(text, labelled=False)
    assert paths == ["/data/" + p for p in ("a.jpg", "my photo.jpg", "my photo.jpg", "b.jpg", "c.jpg 0.5",
                                            "photo 7.jpg", "d.jpg 99999999999", "12")]
    assert labels == [UNLABELLED] * 8


@pytest.mark.parametrize("line", [
    "my photo.jpg 3", "my photo.jpg\t3", "my photo.jpg\t-1,0,0,1", "my photo.jpg 1,0", "my photo.jpg\t 1, 0 ,-1 \r",
    "my photo.jpg\t+1", "my photo.jpg"])
@pytest.mark.parametrize("before", ["", "a.jpg 1\n", "a\tb.jpg\n"])
def test_labels_of_any_list_are_passed_over_where_images_have_none(read, line, before):
    paths, labels = read(f"{before}{line}\nb.jpg\n", labelled=False)
    assert paths[-2:] == ["/data/my photo.jpg", "/data/b.jpg"] and labels[-2:] == [UNLABELLED] * 2


@pytest.mark.parametrize("path", ["a.jpg 0.5", "a 1,0.jpg", "photo 3\t,1", "photo 3\tb", "x\t1,,0", "x 1,0,", "1,0"])
def test_what_is_no_label_belongs_to_the_path(read, path):
    assert read(f"{path}\n", labelled=False)[0] == [f"/data/{path}"]


def test_labels_go_once_and_behind_the_delimiter_that_was_given(read):
    assert read("photo 3\t1,0\n", labelled=False)[0] == ["/data/photo 3"]
    assert read("photo 3\n", labelled=False, delimiter="\t")[0] == ["/data/photo 3"]
    assert read("a.jpg 1,0\n", labelled=False, delimiter=" ")[0] == ["/data/a.jpg"]
    assert read("a.jpg\t1,0\n", labelled=False, delimiter=" ")[0] == ["/data/a.jpg\t1,0"]


@pytest.mark.parametrize("text, message", [
    ("a.jpg 0\n\nb.jpg\n", r"list.txt:3: expected 'path label'.*'b.jpg'.*labelled: false.*'mine'"),
    ("a.jpg\t0\n", r"list.txt:1: expected.*delimiter \(' '\)"),
    ("a.jpg 0\nb.jpg one\n", r"list.txt:2: expected.*whole number.*'b.jpg one'"),
    ("a.jpg 1.0\n", "list.txt:1: expected"), ("a.jpg 0,1\n", "list.txt:1: expected"), ("7\n", "list.txt:1: expected"),
    ("a.jpg -\n", "list.txt:1: expected"), ("a.jpg 1234567890\n", "list.txt:1: expected"),
    ("a.jpg 0\nb.jpg 10\nc.jpg 11\n", r"list.txt:2: label 10 is outside \[0, 10\) in 'b.jpg 10'; correct"),
    ("a.jpg -1\n", r"list.txt:1: label -1 is outside.*labelled: false"),
    ("", "list.txt.*empty"), ("\r\n \n", "list.txt.*empty"),
    ("a.jpg 0\n\nü.jpg 1\n".encode("latin-1"), "list.txt:3: byte 0xfc is not UTF-8"),
    ("a.jpg 0\n".encode("utf-16"), "list.txt:1: .*UTF-8")])
def test_a_wrong_line_is_an_error_with_file_and_line(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_missing_list_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match="nowhere.txt.*'mine'"):
        read_list(SourceConfig("mine", list=str(tmp_path / "nowhere.txt")), 2)
    with pytest.raises(DataError, match=f"{tmp_path}.*'mine'"):
        read_list(SourceConfig("mine", list=str(tmp_path)), 2)
    with pytest.raises(ConfigError, match="delimiter"):
        read_list(SourceConfig("mine", list="x", delimiter="::"), 2)
    with pytest.raises(ConfigError, match="either a list or a folder"):
        read_source(SourceConfig("mine"), 2, "DataLoader.Train")


@pytest.mark.parametrize("chunk_bytes", [1, 17, 64, 1 << 20])
def test_chunks_do_not_show(read, chunk_bytes, monkeypatch):
    monkeypatch.setattr(lists, "_CHUNK_BYTES", chunk_bytes)
    lines = [f"folder {i}/{'x' * (i % 40)}.jpg {i % 10}" for i in range(200)]
    paths, labels = read("\n".join(lines))
    assert paths == ["/data/" + line.rsplit(" ", 1)[0] for line in lines] and labels == [i % 10 for i in range(200)]
    lines[150] = "bad"
    with pytest.raises(DataError, match="list.txt:151:"):
        read("\n".join(lines))


def test_a_list_is_compact(read, tmp_path):
    read("a.jpg 1\nbb.jpg 2\n")
    images = read_source(SourceConfig("s", list=str(tmp_path / "list.txt"), root="r"), 3)
    assert (images.starts.dtype, images.lengths.dtype, images.labels.dtype) == (np.int64, np.int32, np.int32)
    assert images.path(1) == "r/bb.jpg"


@pytest.fixture
def tree(tmp_path):
    for name in ("b/2.JPG", "b/10.png", "a/deep/er/x.jpeg", "a/.hidden.jpg", "a/notes.txt", ".git/y.jpg", "a b/z.webp"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "tree"


def test_a_folder_gives_its_classes_in_sorted_order(tree):
    images = read_source(SourceConfig("f", folder=str(tree)), 3)
    assert images.class_names == ("a", "a b", "b")
    found = [(images.path(i).removeprefix(f"{tree}/"), int(images.labels[i])) for i in range(len(images))]
    assert found == [("a/deep/er/x.jpeg", 0), ("a b/z.webp", 1), ("b/10.png", 2), ("b/2.JPG", 2)]


def test_an_unlabelled_folder_is_taken_whole(tree):
    (tree / "top.bmp").touch()
    images = read_source(SourceConfig("f", folder=str(tree), labelled=False), 3)
    assert [images.path(i).removeprefix(f"{tree}/") for i in range(len(images))] == [
        "top.bmp", "a/deep/er/x.jpeg", "a b/z.webp", "b/10.png", "b/2.JPG"]
    assert set(images.labels.tolist()) == {UNLABELLED} and images.class_names == ()


def test_links_are_followed_and_circles_end(tree):
    (tree / "c").symlink_to(tree / "b")
    (tree / "b" / "circle").symlink_to(tree)
    images = read_source(SourceConfig("f", folder=str(tree), labelled=False), 3)
    assert len(images) == 4
    (tree / "b" / "circle").unlink()
    assert len(read_source(SourceConfig("f", folder=str(tree)), 4)) == 6  # class c is a link to class b


def test_a_folder_that_does_not_fit_is_an_error(tree, tmp_path):
    with pytest.raises(DataError, match="3 class folders, expected 4"):
        read_source(SourceConfig("f", folder=str(tree)), 4)
    with pytest.raises(DataError, match="nowhere.*does not exist"):
        read_source(SourceConfig("f", folder=str(tmp_path / "nowhere")), 4)
    (tree / "stray.jpg").touch()
    with pytest.raises(DataError, match="stray.jpg lie in no class folder"):
        read_source(SourceConfig("f", folder=str(tree)), 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        read_source(SourceConfig("f", folder=str(tmp_path / "empty"), labelled=False), 3)


@pytest.fixture
def weighted(tmp_path):
    """Reads three images with the given text as their weights."""

    def read(text):
        (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\n\nc.jpg\n")
        (tmp_path / "weights.txt").write_text(text)
        return read_source(SourceConfig("pool", list=str(tmp_path / "list.txt"), labelled=False,
                                        weights=str(tmp_path / "weights.txt")), 3)

    return read


@pytest.mark.parametrize("text", ["1\n0\n2.5\n", "1.0\r\n0e0\r\n 2.5", "1\n+0\n25e-1\n"])
def test_weights_are_read_one_an_image(weighted, text):
    images = weighted(text)
    assert images.weights.dtype == np.float32 and images.weights.tolist() == [1, 0, 2.5] and len(images) == 3


@pytest.mark.parametrize("text, message", [
    ("1\n2\n", r"weights.txt: found 2 weights, expected 3, one for each image of .*list.txt"),
    ("1\n2\n3\n4\n", r"found 4 weights, expected 3"), ("", r"found 0 weights"),
    ("1\n2,5\n3\n", r"weights.txt:2: expected one number"), ("1\n2 3\n4\n", r"weights.txt:2: expected one number"),
    ("1\n\n2\n3\n", r"weights.txt:2: expected one number"),
    ("1\n2\n-1\n", r"weights.txt:3: .* from 0 to 1,000,000, found -1"),
    ("nan\n1\n1\n", r"weights.txt:1: .* found nan"), ("1\ninf\n1\n", r"weights.txt:2: .* found inf"),
    ("1\n1e99\n1\n", r"weights.txt:2: .* found 1e\+99"),
    ("0\n0\n0.3\n", r"sum to 0.3, so no image would ever be visited")])
def test_weights_that_do_not_fit_are_an_error_with_their_line(weighted, text, message):
    with pytest.raises(DataError, match=message):
        weighted(text)


def test_weights_that_are_not_there_or_not_for_a_list_are_an_error(tree, tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\n")
    with pytest.raises(DataError, match="nothing.txt: the weights of source 'pool' cannot be read"):
        read_source(SourceConfig("pool", list=str(tmp_path / "list.txt"), labelled=False, weights="nothing.txt"), 3)
    with pytest.raises(ConfigError, match="'f' has weights, one for each line of a list, but is a folder"):
        read_source(SourceConfig("f", folder=str(tree), weights="w.txt"), 3)
