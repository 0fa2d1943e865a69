import errno
import gzip
import hashlib
import io
import os
import random
import tarfile

import pyarrow as pa
import pytest
import ugly

from ppcls_ssld.data.files import read_bytes
from ppcls_ssld.errors import CheckpointError, DataError
from ppcls_ssld.mining import listing as module
from ppcls_ssld.mining.listing import Listing, PoolSource, SourceCount, write_listing


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def pack(path, members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def listed(tmp_path):
    """listed(source, ...) -> (names, report); a source is a path or (path, root)."""

    def write_and_read(*sources, target="out/listing.arrow"):
        pairs = [source if isinstance(source, tuple) else (source, None) for source in sources]
        report = write_listing([PoolSource(str(path), root and str(root)) for path, root in pairs], tmp_path / target)
        listing = Listing.open(tmp_path / target)
        assert len(listing) == report.count
        return listing.names(0, len(listing)), report

    return write_and_read


def test_a_folder_is_listed_with_its_subfolders_and_without_what_is_hidden_or_no_image(tmp_path, listed):
    pool = tmp_path / "pool"
    images = [pool / name for name in ("b.jpg", "a b.PNG", "sub/ü 猫.jpeg", "sub/deep/x.gif", "Z.tif", "#1@2+3.bmp")]
    touch(*images, pool / "notes.txt", pool / ".hidden.jpg", pool / ".git" / "c.jpg", pool / "x.jpg.json")
    names, report = listed(pool)
    assert names == sorted(map(str, images), key=os.fsencode)
    assert report == module.ListingReport(6, 0, (SourceCount(str(pool), 6),), ())


def test_links_are_followed_but_a_ring_of_them_ends(tmp_path, listed):
    touch(tmp_path / "pool" / "a.jpg", tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "pool" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "ring").symlink_to(tmp_path / "pool")
    names, report = listed(tmp_path / "pool")
    assert names == [str(tmp_path / "pool" / "a.jpg"), str(tmp_path / "pool" / "link" / "b.jpg")]


def test_a_list_is_relative_to_its_folder_or_to_a_root_and_labels_do_not_matter(tmp_path, listed):
    file = tmp_path / "lists" / "my list.txt"
    file.parent.mkdir()
    file.write_text("a.jpg 3\n./sub/../b c.jpg\n/abs//x.jpg 0\n\na.jpg 4\nno suffix\n")
    relative, report = listed(file)
    assert relative == ["/abs/x.jpg", *(f"{file.parent}/{name}" for name in ("a.jpg", "b c.jpg", "no suffix"))]
    assert (report.count, report.duplicates, report.sources[0].images) == (4, 1, 5)
    rooted, _ = listed((file, tmp_path / "images"))
    assert rooted == ["/abs/x.jpg", *(f"{tmp_path}/images/{name}" for name in ("a.jpg", "b c.jpg", "no suffix"))]


def test_several_labels_a_line_do_not_matter_either(tmp_path, listed):
    file = tmp_path / "attributes.txt"
    file.write_text("a b.jpg\t1,0,-1\nc.jpg\t-1,-1,-1\nd.jpg\t3\nno label.jpg\n")
    assert listed(file)[0] == [f"{tmp_path}/{name}" for name in ("a b.jpg", "c.jpg", "d.jpg", "no label.jpg")]


def test_the_names_of_members_come_through_a_list_unchanged(tmp_path, listed):
    tar = pack(tmp_path / "t.tar", {"./a.jpg": b"1", "x/../b.jpg": b"22", "c.jpg 7": b"3"})
    names, _ = listed(tar)
    (tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in names))
    (tmp_path / "relative.txt").write_text("".join(f"./t.tar#{name.partition('#')[2]} 0\n" for name in names))
    assert listed(tmp_path / "names.txt")[0] == listed(tmp_path / "relative.txt")[0] == names
    assert [read_bytes(name) for name in names] == [b"1", b"22"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_is_listed_with_every_image_in_it_and_each_can_be_read(tmp_path, listed, form):
    members = {"a.jpg": b"a", "n01/b c.JPEG": b"b" * 999, "ü/猫.png": b"c", "deep/" * 30 + "d.jpg": b"d"}
    if form != tarfile.USTAR_FORMAT:
        members["x" * 150 + ".webp"] = b"e"
    beside = {"a.cls": b"3", "a.json": b"{}", "a.txt": b"a cat", ".hidden.jpg": b"", "._a.jpg": b"", ".git/x.jpg": b""}
    names, report = listed(pack(tmp_path / "pool.tar", members | beside, format=form))
    assert {name.partition("#")[2].rpartition("@")[0]: read_bytes(name) for name in names} == members
    assert not report.unlistable


def test_tars_in_tars_are_listed_at_any_sane_depth(tmp_path, listed):
    data = pack(tmp_path / "0.tar", {"x/leaf.jpg": b"leaf"}).read_bytes()
    for depth in range(1, 7):
        data = pack(tmp_path / f"{depth}.tar", {f"{depth}.jpg": b"%d" % depth, "in.tar": data}).read_bytes()
    names, report = listed(tmp_path / "4.tar")
    assert {n.partition("#")[2].rpartition("@")[0]: read_bytes(n) for n in names} == {
        "4.jpg": b"4", "in.tar/3.jpg": b"3", "in.tar/in.tar/2.jpg": b"2", "in.tar/in.tar/in.tar/1.jpg": b"1",
        "in.tar/in.tar/in.tar/in.tar/x/leaf.jpg": b"leaf"}
    names, report = listed(tmp_path / "6.tar")
    assert len(names) == 5 and "within archives" in report.unlistable[0][1]


def test_what_is_what_is_decided_by_looking(tmp_path, listed):
    shards = tmp_path / "shards"
    for i in range(3):
        pack(shards / f"{i}.tar", {f"{i}.jpg": b"x"})
    touch(shards / "loose.jpg")
    os.rename(pack(tmp_path / "t.tar", {"unnamed.jpg": b"x"}), tmp_path / "archive")
    found = [f"{shards}/{i}.tar#{i}.jpg@512+1" for i in range(3)]
    assert listed(shards)[0] == [*found, f"{shards}/loose.jpg"]
    assert listed(shards / "*.tar")[0] == found
    assert listed(shards / "[01].tar", shards / "loose.jpg")[0] == [*found[:2], f"{shards}/loose.jpg"]
    assert listed(tmp_path / "archive")[0] == [f"{tmp_path}/archive#unnamed.jpg@512+1"]
    assert listed(shards / "*.tar")[1].sources == (SourceCount(str(shards / "*.tar"), 3),)


def test_a_pattern_of_lists_shares_their_root(tmp_path, listed):
    (tmp_path / "a.txt").write_text("a.jpg\n")
    (tmp_path / "b.txt").write_text("b.jpg\na.jpg\n")
    assert listed((tmp_path / "?.txt", "/images"))[0] == ["/images/a.jpg", "/images/b.jpg"]
    assert listed(tmp_path / "?.txt")[0] == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]


def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_itself(tmp_path, listed):
    touch(tmp_path / "[ab]" / "*.jpg")
    assert listed(tmp_path / "[ab]")[0] == [f"{tmp_path}/[ab]/*.jpg"]


@pytest.mark.parametrize("name, data, word", [
    ("a.tar.gz", gzip.compress(b"x"), "compressed with gzip; decompress it first"),
    ("a.tar", gzip.compress(b"x"), "compressed with gzip; decompress it first"),
    ("a.zip", b"PK\x03\x04" + bytes(50), "zip archive cannot be read in place; unpack"),
    ("a.parquet", b"PAR1" + bytes(50), "Parquet"), ("a.tar", b"not a tar", "not a tar archive, though it is named"),
    ("a.bin", b"ab\0cd", "neither a tar archive nor a text file"), ("a.txt", b"", "a.txt.*empty"),
    ("a.txt", "ü.jpg".encode("latin-1"), "a.txt:1: byte 0xfc is not UTF-8"), ("empty.tar", bytes(10240), "no image"),
    ("folder/x.txt", b"a.jpg", "folder: there is no image in it$"),
    ("folder/val.tar.gz", b"x", r"folder: there is no image in it that can be listed \(.*val.tar.gz: .*decompress it"),
    ("folder/a.tar", b"no tar", "that can be listed .*a.tar: not a tar"), ("a.txt", b"\xff\xfea\0", "neither")])
def test_a_source_that_cannot_be_used_is_an_error_that_says_why(tmp_path, listed, name, data, word):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=word):
        listed(tmp_path / name if "/" not in name else tmp_path / "folder")
    assert not list(tmp_path.glob("out/*"))


def test_a_missing_source_is_an_error(tmp_path, listed):
    with pytest.raises(DataError, match="gone: there is no such folder"):
        listed(tmp_path / "gone")
    with pytest.raises(DataError, match="no file or folder has a name of this pattern"):
        listed(tmp_path / "gone" / "*.tar")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(DataError, match="broken link"):
        listed(tmp_path / "link")
    with pytest.raises(DataError, match="expected 1 to 65535 sources"):
        listed()


def test_what_cannot_be_listed_is_told_and_not_dropped(tmp_path, listed):
    pool = tmp_path / "pool"
    touch(pool / "good.jpg", pool / "line\nbreak.jpg", pool / "re\rturn.jpg", pool / "pack.tar.gz", pool / "pack.tgz",
          pool / "wrong.tar")
    os.mkfifo(pool / "pipe.tar")
    with open(os.fsencode(pool) + b"/latin-\xfc.jpg", "wb"):
        pass
    names, report = listed(pool)
    assert names == [str(pool / "good.jpg")]
    reasons = {os.path.basename(name): reason for name, reason in report.unlistable}
    assert sorted(reasons) == ["latin-\\udcfc.jpg", "line\\nbreak.jpg", "pack.tar.gz", "pack.tgz", "pipe.tar",
                               "re\\rturn.jpg", "wrong.tar"]
    assert "line break" in reasons["line\\nbreak.jpg"] and "line break" in reasons["re\\rturn.jpg"]
    assert "UTF-8" in reasons["latin-\\udcfc.jpg"] and "decompress" in reasons["pack.tgz"]
    assert "not a tar" in reasons["wrong.tar"]
    assert all(name.isprintable() for name, _ in report.unlistable)


def test_members_without_bytes_of_their_own_are_told(tmp_path, listed):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("soft.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("fifo.jpg", tarfile.FIFOTYPE),
                           ("folder.jpg", tarfile.DIRTYPE), ("sparse.jpg", tarfile.GNUTYPE_SPARSE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "good.jpg" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info)
        for name in ("good.jpg", "inner.tar.gz", "new\nline.jpg"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    names, report = listed(path)
    assert names == [f"{path}#good.jpg@{512 * 6}+0"]
    reasons = {name.partition("#")[2]: reason for name, reason in report.unlistable}
    assert sorted(reasons) == ["fifo.jpg", "hard.jpg", "inner.tar.gz", "new\\nline.jpg@4096+0", "soft.jpg",
                               "sparse.jpg"]
    assert "link to good.jpg" in reasons["soft.jpg"] and "link to good.jpg" in reasons["hard.jpg"]
    assert "sparse" in reasons["sparse.jpg"] and "not a regular" in reasons["fifo.jpg"]
    assert "decompress" in reasons["inner.tar.gz"]


def test_a_damaged_archive_gives_what_it_has_and_a_word(tmp_path, listed):
    path = pack(tmp_path / "a.tar", {f"{i}.jpg": b"x" * 600 for i in range(5)})
    whole = path.read_bytes()
    step = 512 * 3
    cases = {
        "cut in a member": whole[:2 * step + 700], "cut in a header": whole[:2 * step + 100],
        "damaged header": whole[:2 * step] + b"\xff" * 512 + whole[2 * step + 512:],
        "appended": whole + whole, "zeros amid": whole[:2 * step] + bytes(step) + whole[3 * step:]}
    for case, data in cases.items():
        path.write_bytes(data)
        names, report = listed(path)
        expected = {"appended": 5, "cut in a member": 3}.get(case, 2)
        assert len(names) == expected, case
        assert [name for name, _ in report.unlistable] == [str(path)], case
        assert "damaged" in report.unlistable[0][1] and "lost" in report.unlistable[0][1], case
    path.write_bytes(whole[:5 * step])  # no end marks: every member is there
    names, report = listed(path)
    assert len(names) == 5 and not report.unlistable


def test_a_damaged_archive_in_an_archive_leaves_the_rest_alone(tmp_path, listed):
    inner = pack(tmp_path / "in.tar", {"1.jpg": b"1", "2.jpg": b"2"}).read_bytes()
    path = pack(tmp_path / "out.tar", {"bad.tar": b"no tar", "cut.tar": inner[:1024 + 100], "empty.tar": bytes(10240),
                                       "good.jpg": b"0", "in.tar": inner})
    names, report = listed(path)
    assert [name.partition("#")[2].partition("@")[0] for name in names] == [
        "cut.tar/1.jpg", "good.jpg", "in.tar/1.jpg", "in.tar/2.jpg"]
    assert [name for name, _ in report.unlistable] == [f"{path}#bad.tar", f"{path}#cut.tar"]


def test_a_folder_that_may_not_be_entered_is_told(tmp_path, listed, monkeypatch):
    touch(tmp_path / "pool" / "a.jpg", tmp_path / "pool" / "locked" / "b.jpg")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    names, report = listed(tmp_path / "pool")
    assert names == [str(tmp_path / "pool" / "a.jpg")]
    assert report.unlistable == ((str(tmp_path / "pool" / "locked"), "the folder cannot be read (Permission denied)"),)


def test_the_file_depends_neither_on_the_order_of_sources_and_lines_nor_on_runs(tmp_path, listed, monkeypatch):
    rng = random.Random(0)
    lines = [f"{rng.choice('abcü猫')}/{i % 700:05d}.jpg" for i in range(2000)]
    touch(*(tmp_path / "folder" / line for line in lines[:20]))
    (tmp_path / "more.txt").write_text("".join(f"folder/{line}\n" for line in lines[5:40]))
    digests, contents = set(), set()
    for run, batch, seed in ((1 << 20, 1 << 16, 1), (64, 16, 2), (256, 16, 3)):
        random.Random(seed).shuffle(lines)
        (tmp_path / "list.txt").write_text("".join(f"{line} {seed}\n" for line in lines))
        monkeypatch.setattr(module, "_RUN", run)
        monkeypatch.setattr(module, "_BATCH", batch)
        sources = [tmp_path / "folder", (tmp_path / "list.txt", tmp_path / "images"), tmp_path / "more.txt",
                   tmp_path / "folder"]
        random.Random(seed).shuffle(sources)
        names, report = listed(*sources)
        assert names == sorted(set(names), key=os.fsencode)
        assert report.count + report.duplicates == sum(source.images for source in report.sources) > 2000
        listing = Listing.open(tmp_path / "out" / "listing.arrow")
        digests.add(listing.digest())
        contents.add(tuple(zip(names, listing.sources(0, len(names)))))
        assert [os.path.basename(s.path) for s in report.sources] == ["folder", "list.txt", "more.txt"]
        text = "".join(name + "\n" for name in names).encode()
        assert listing.digest() == hashlib.blake2b(text, digest_size=16).hexdigest()
    assert len(digests) == len(contents) == 1
    monkeypatch.undo()
    first = (listed(*sources), (tmp_path / "out" / "listing.arrow").read_bytes())
    assert first == (listed(*reversed(sources)), (tmp_path / "out" / "listing.arrow").read_bytes())


def test_names_are_found_by_number_across_batches(tmp_path, listed, monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 7)
    (tmp_path / "list.txt").write_text("".join(f"{i:03d}.jpg\n" for i in range(35)))
    names, _ = listed(tmp_path / "list.txt")
    listing = Listing.open(tmp_path / "out" / "listing.arrow")
    assert [listing.name(i) for i in range(35)] == names == [f"{tmp_path}/{i:03d}.jpg" for i in range(35)]
    for start, stop in ((0, 0), (0, 7), (6, 8), (3, 30), (34, 99), (40, 50)):
        assert listing.names(start, stop) == names[start:stop]
    for index in (-1, 35):
        with pytest.raises(IndexError):
            listing.name(index)


def test_other_tools_read_the_file(tmp_path, listed):
    touch(tmp_path / "pool" / "a.jpg")
    listed(tmp_path / "pool")
    with pa.ipc.open_file(str(tmp_path / "out" / "listing.arrow")) as file:
        assert file.read_all().to_pydict() == {"name": [str(tmp_path / "pool" / "a.jpg")], "source": [0]}


def test_a_pool_inside_a_protected_folder_and_the_reverse_are_names_like_others(tmp_path, listed):
    touch(tmp_path / "val" / "a.jpg", tmp_path / "val" / "pool" / "b.jpg")
    inner, _ = listed(tmp_path / "val" / "pool", target="inner.arrow")
    outer, report = listed(tmp_path / "val", tmp_path / "val" / "pool")
    assert set(inner) < set(outer) and report.duplicates == 1
    other, _ = listed(f"{tmp_path}/val/./pool/../pool/")
    assert other == inner


def test_a_full_disk_leaves_the_listing_that_was_there(tmp_path, listed, monkeypatch):
    touch(tmp_path / "pool" / "a.jpg")
    before, _ = listed(tmp_path / "pool")
    touch(tmp_path / "pool" / "b.jpg")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="listing.arrow.*No space left.*free some space"):
        listed(tmp_path / "pool")
    assert os.listdir(tmp_path / "out") == ["listing.arrow"]
    assert Listing.open(tmp_path / "out" / "listing.arrow").names(0, 9) == before


def test_what_is_no_listing_is_an_error(tmp_path):
    (tmp_path / "x.arrow").write_bytes(b"ARROW1 but cut")
    for path in (tmp_path / "x.arrow", tmp_path / "none.arrow"):
        with pytest.raises(DataError, match="no listing can be read there.*write it again"):
            Listing.open(path)
    table = pa.table({"path": ["a"]})
    with pa.OSFile(str(tmp_path / "y.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="not a listing; its columns are .'path'."):
        Listing.open(tmp_path / "y.arrow")


def test_a_listed_pool_can_be_read_to_the_last_image(tmp_path, listed):
    jpeg = ugly.encode(ugly.picture())
    pack(tmp_path / "pool" / "n01.tar", {f"n01_{i}.JPEG": jpeg for i in range(3)})
    (tmp_path / "pool" / "plain.jpg").write_bytes(jpeg)
    names, _ = listed(tmp_path / "pool")
    assert [read_bytes(name) for name in names] == [jpeg] * 4
