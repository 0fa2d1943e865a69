import io
import os
import tarfile

import numpy as np
import pytest

from ppcls_ssld.config.schema import SourceConfig
from ppcls_ssld.data import TrainReader
from ppcls_ssld.data.files import Archives, member_name, read_bytes, split_member
from ppcls_ssld.errors import DataError


def pack(path, members, **options):
    """Write a tar of name -> bytes; the names by which `read_bytes` finds them, by member."""
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with tarfile.open(path, "r:") as archive:
        return {m.name: member_name(str(path), m.name, m.offset_data, m.size) for m in archive.getmembers()}


MEMBERS = {"a.jpg": b"first", "folder/b c.jpg": b"second" * 200, "ünïcode/猫.jpg": b"third", "x" * 400 + ".jpg": b"long",
           "deep/" * 30 + "d.jpg": b"deep", "#@1+2.jpg": b"odd", "e.jpg": b""}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("archives", [None, "kept open"])
def test_a_member_is_read_in_place_whatever_its_name(tmp_path, form, archives):
    members = {n: d for n, d in MEMBERS.items() if form != tarfile.USTAR_FORMAT or not n.startswith("xxx")}
    names = pack(tmp_path / "my photos.tar", members, format=form)
    with Archives() as kept:
        for member, data in members.items():
            assert read_bytes(names[member], kept if archives else None) == data


def test_a_member_of_a_tar_in_a_tar_is_one_read_away(tmp_path):
    inner = pack(tmp_path / "inner.tar", MEMBERS)
    outer = pack(tmp_path / "outer.tar", {"0.jpg": b"0", "sub/inner.tar": (tmp_path / "inner.tar").read_bytes()})
    base = int(outer["sub/inner.tar"].rpartition("@")[2].partition("+")[0])
    for member, name in inner.items():
        offset, size = map(int, name.rpartition("@")[2].split("+"))
        nested = member_name(str(tmp_path / "outer.tar"), f"sub/inner.tar/{member}", base + offset, size)
        assert read_bytes(nested) == MEMBERS[member]


def test_a_plain_file_is_read_and_wins_over_a_member_of_its_name(tmp_path):
    names = pack(tmp_path / "a.tar", {"x.jpg": b"member"})
    (tmp_path / "plain 7.jpg").write_bytes(b"plain")
    assert read_bytes(str(tmp_path / "plain 7.jpg")) == b"plain"
    assert read_bytes(names["x.jpg"]) == b"member"
    with open(names["x.jpg"], "wb") as file:
        file.write(b"real")
    assert read_bytes(names["x.jpg"]) == b"real"


def test_an_archive_may_have_marks_in_its_own_name(tmp_path):
    (tmp_path / "d#1@2+3").mkdir()
    names = pack(tmp_path / "d#1@2+3" / "a#b.tar", {"c#d.jpg": b"found"})
    assert split_member(names["c#d.jpg"])[0] == str(tmp_path / "d#1@2+3" / "a#b.tar")
    assert read_bytes(names["c#d.jpg"]) == b"found"
    assert split_member(str(tmp_path / "d#1@2+3" / "x.jpg")) is None


def changed(name, offset=0, size=0, member=None):
    head, _, span = name.rpartition("@")
    first, length = map(int, span.split("+"))
    if member is not None:
        head = head.partition("#")[0] + "#" + member
    return f"{head}@{first + offset}+{length + size}"


def test_a_name_that_does_not_fit_the_archive_is_an_error_that_says_what_to_do(tmp_path):
    path = tmp_path / "a.tar"
    names = pack(path, {"a.jpg": b"a" * 700, "b.jpg": b"b" * 700, "lang-ü.jpg": b"c" * 700})
    a, other = names["a.jpg"], names["lang-ü.jpg"]
    for wrong in (changed(a, offset=512), changed(a, size=1), changed(a, size=-1), changed(a, member="b.jpg"),
                  changed(a, member="jpg"), changed(other, offset=512), changed(other, size=4)):
        with pytest.raises(DataError, match="no such member there; it was changed.*list it again"):
            read_bytes(wrong)
    for wrong in (f"{path}#a.jpg@0+700", f"{path}#a.jpg@{10**18 * 9}+700"):
        with pytest.raises(DataError, match="cannot be where a member begins"):
            read_bytes(wrong)
    with pytest.raises(DataError, match="more than any image has"):
        read_bytes(f"{path}#a.jpg@512+{10**15}")
    with pytest.raises(DataError, match="the archive .*gone.tar cannot be read .No such file.*correct the list"):
        read_bytes(f"{tmp_path}/gone.tar#a.jpg@512+700")
    assert read_bytes(names["b.jpg"]) == b"b" * 700


def test_an_archive_cut_short_is_an_error_and_never_half_an_image(tmp_path):
    path = tmp_path / "a.tar"
    name = pack(path, {"a.jpg": b"a" * 700})["a.jpg"]
    whole = path.read_bytes()
    for size, missing in ((512 + 699, 1), (512, 700), (100, 1112), (0, 1212)):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=f"ends {missing} bytes too early"):
            read_bytes(name)


def test_what_is_no_file_is_an_error_and_no_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, word in (("pipe.jpg", "a pipe"), (".", "a folder"), ("none.jpg", "No such file"),
                       ("none/x.jpg", "No such file"), ("nul\0.jpg", "null"), ("x" * 300, "too long")):
        with pytest.raises(DataError, match=f"cannot be read .*{word}.*correct the list or its root folder"):
            read_bytes(str(tmp_path / name))


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_archives_kept_open_are_few_and_closed_in_the_end(tmp_path):
    names = [pack(tmp_path / f"{i}.tar", {"a.jpg": b"%d" % i})["a.jpg"] for i in range(9)]
    before = open_files()
    with Archives(limit=3) as archives:
        for _ in range(2):
            for i, name in enumerate(names):
                assert read_bytes(name, archives) == b"%d" % i
                assert open_files() - before <= 3
        os.unlink(tmp_path / "8.tar")
        assert read_bytes(names[8], archives) == b"8"  # it is open still
    assert open_files() == before


def test_a_child_process_reads_from_inherited_archives_without_disturbing_its_parent(tmp_path):
    names = [pack(tmp_path / f"{i}.tar", {f"{j}.jpg": b"%d %d" % (i, j) for j in range(50)}) for i in range(2)]
    archives = Archives(limit=1)
    read_bytes(names[0]["0.jpg"], archives)
    child = os.fork()
    if not child:
        good = all(read_bytes(names[i][f"{j}.jpg"], archives) == b"%d %d" % (i, j) for j in range(50) for i in (1, 0))
        archives.close()
        os._exit(0 if good else 1)
    assert all(read_bytes(names[0][f"{j}.jpg"], archives) == b"0 %d" % j for j in range(50))
    assert os.waitpid(child, 0)[1] == 0
    assert read_bytes(names[0]["7.jpg"], archives) == b"0 7"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_reads_a_list_of_members_like_a_list_of_files(photos, loader, num_workers):
    members = {f"my ünïcode photos/{i:02d}.jpg": (photos / f"{i:02d}.jpg").read_bytes() for i in range(30)}
    names = pack(photos / "all of them.tar", members)
    (photos / "members.txt").write_text("".join(f"all of them.tar#{n.partition('#')[2]} {i % 5}\n"
                                                for i, n in enumerate(names.values())))
    source = SourceConfig("members", list=str(photos / "members.txt"), root=str(photos))
    expected = TrainReader(loader(), 5, 0).batches(0, 7)
    found = TrainReader(loader(sources=(source,), num_workers=num_workers), 5, 0).batches(0, 7)
    for a, b in zip(expected, found, strict=True):
        assert np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)


def test_a_changed_archive_is_skipped_or_named_while_training(photos, loader):
    names = pack(photos / "a.tar", {"x.jpg": (photos / "03.jpg").read_bytes(), "y.jpg": b"no image"})
    bad = changed(names["x.jpg"], size=-1)
    (photos / "members.txt").write_text(f"{names['x.jpg']}\n{bad}\n{names['y.jpg']}\n01.jpg\n")
    source = SourceConfig("members", list=str(photos / "members.txt"), root=str(photos), labelled=False)
    batch = next(TrainReader(loader(sources=(source,), on_corrupt="skip"), 5, 0).batches(0, 1))
    assert sorted(batch.skipped) == sorted([bad, names["y.jpg"]]) and len(batch) == 2
    with pytest.raises(DataError, match="a.tar#.*on_corrupt: skip"):
        next(TrainReader(loader(sources=(source,)), 5, 0).batches(0, 1))
