"""Reading what was written: the right record, quickly refused when it is not."""

import multiprocessing
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppcls_ssld.arch import build_frozen
from ppcls_ssld.data import ViewReader
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.targets import TargetStore
from ppcls_ssld.targets.answers import largest_step, log_softmax
from ppcls_ssld.targets.header import teacher_of

MIX = {"DataLoader__Train__batch_transform_ops": [{"OpSampler": {"Mixup": {"prob": 0.4}, "Cutmix": {"prob": 0.4}}}]}


def everything(store):
    ids = np.repeat(np.arange(store.samples), store.views)
    return ids, np.tile(np.arange(store.views), store.samples)


@pytest.mark.parametrize("changes", [{}, MIX], ids=["plain", "mixed"])
def test_each_record_holds_what_was_drawn_and_what_the_teacher_says_of_those_pixels(write, changes):
    folder, config = write(views=3, **changes)
    store = TargetStore(folder)
    ids, views = everything(store)
    order = np.random.default_rng(0).permutation(len(ids))
    records = store.read(ids[order], views[order])
    reader = ViewReader(config.DataLoader.Train, 4, seed=3)
    teacher = build_frozen(teacher_of(config), 4, (3, 32, 32), "cpu")[0]
    from ppcls_ssld.arch import on_device
    batch, = reader.batches(ids[order], views[order], len(ids))
    assert tuple(store.drawn(record) for record in records) == batch.drawn
    answer, true = store.targets(records), log_softmax(teacher(on_device(batch)).numpy())
    wanted = np.take_along_axis(true, answer.classes.astype(int), 1)
    assert (answer.classes[:, 0] == true.argmax(1)).all()
    assert np.abs(answer.log_probs - wanted).max() < 2 * largest_step(12, 5) + 1e-4
    assert store.views == 3 and store.k == 3 and store.samples == 26 and store.parts == 3


def test_a_reader_shows_the_very_pixels_that_the_teacher_saw(write):
    folder, config = write(views=2, **MIX)
    store = TargetStore(folder)
    ids, views = everything(store)
    first, = ViewReader(config.DataLoader.Train, 4, seed=3).batches(ids, views, len(ids))
    again, = ViewReader(config.DataLoader.Train, 4, seed=99, stored=store).batches(ids, views, len(ids))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.share, again.share)
    assert again.targets.classes.shape == (52, 3)


@pytest.mark.parametrize("ids,views", [([26], [0]), ([-1], [0]), ([0], [2]), ([0], [-1])])
def test_a_view_that_is_not_there_is_refused(write, ids, views):
    with pytest.raises(DataError, match="it holds 26 samples in 2 views"):
        TargetStore(write()[0]).read(np.array(ids), np.array(views))


def test_nothing_asked_is_nothing_read(write):
    store = TargetStore(write()[0])
    assert len(store.read(np.zeros(0, int), np.zeros(0, int))) == 0


def test_forked_readers_see_the_same(write):
    store = TargetStore(write()[0])
    ids, views = everything(store)
    want = store.read(ids[:7], views[:7]).tobytes()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(lambda_free_read, [(store.folder, ids[:7], views[:7])] * 4) == [want] * 4


def lambda_free_read(arguments):
    folder, ids, views = arguments
    return TargetStore(folder).read(ids, views).tobytes()


def test_every_single_damaged_bit_of_a_record_is_noticed_when_it_is_read(write):
    folder, _ = write(views=1)
    path = folder / "part-00001.targets"
    whole = path.read_bytes()
    size = TargetStore(folder).record_bytes
    for bit in range(0, 8 * size, 5):
        broken = bytearray(whole)
        broken[size + bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        store = TargetStore(folder)
        store.read(np.array([0, 8, 10]), np.zeros(3, int))  # neighbours are sound
        with pytest.raises(DataError, match=r"part-00001.targets: the record of sample 9, view 0 is damaged"):
            store.read(np.array([0, 9]), np.zeros(2, int))


def test_records_that_changed_places_and_empty_pages_are_noticed(write):
    folder, _ = write(views=1)
    path, size = folder / "part-00000.targets", TargetStore(folder).record_bytes
    whole = path.read_bytes()
    for content in (whole[size:2 * size] + whole[:size], bytes(2 * size)):
        path.write_bytes(content + whole[2 * size:])
        for sample in (0, 1):
            with pytest.raises(DataError, match=f"sample {sample}"):
                TargetStore(folder).read(np.array([sample]), np.array([0]))


def test_missing_and_foreign_and_short_parts_are_refused(write):
    folder, _ = write()
    other, _ = write("other", top_k=2)
    seeded, _ = write("seeded", Global__seed=9)
    part = folder / "part-00001.targets"
    whole = part.read_bytes()
    part.write_bytes((seeded / part.name).read_bytes())
    with pytest.raises(DataError, match="a part of another store"):
        TargetStore(folder).read(np.array([9]), np.array([0]))
    part.write_bytes((folder / "part-00000.targets").read_bytes())
    with pytest.raises(DataError, match="is part 0 by its last bytes"):
        TargetStore(folder).read(np.array([9]), np.array([0]))
    for content in (whole[:-1], (other / part.name).read_bytes()):
        part.write_bytes(content)
        with pytest.raises(DataError, match=r"part-00001.targets: has [\d,]+ bytes, expected"):
            TargetStore(folder)
    part.unlink()
    with pytest.raises(ConfigError, match="1 of 3 parts are missing; run `ppcls-ssld targets write`"):
        TargetStore(folder)
    assert TargetStore(folder, partial=True).missing == [1]


@pytest.mark.parametrize("block,mode", [(8, "eval"), (100, "eval"), (8, "batch_stats")],
                         ids=["parts", "less_than_a_block", "shuffled"])
def test_other_tools_can_read_the_records_as_the_document_shows_it(write, monkeypatch, block, mode):
    folder, _ = write("targets", block=block, Arch__Teacher__bn_mode=mode)
    store = TargetStore(folder)
    document = (Path(__file__).parents[2] / "docs" / "targets.md").read_text(encoding="utf-8")
    (folder.parent / "shown.py").write_text(document.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(folder.parent)
    shown = runpy.run_path("shown.py")
    parts = [shown["records"](part) for part in range(shown["header"]["rows"]["parts"])]
    places = store.rows.samples_of(np.arange(26))
    ids, views = np.repeat(places, 2), np.tile([0, 1], 26)
    assert b"".join(part.tobytes() for part in parts) == store.read(ids, views).tobytes()
    assert parts[0].dtype.itemsize == shown["header"]["record"]["bytes"] == store.record_bytes
    assert set(parts[0].dtype.names) == set(shown["header"]["notes"])
    assert (places.tolist() == list(range(26))) == (mode == "eval")


def test_an_imagenet_record_with_crop_and_flip_fits_48_bytes_at_any_number_of_bits():
    from ppcls_ssld.targets.answers import AnswerCodec
    from ppcls_ssld.targets.drawn import DrawnCodec
    from ppcls_ssld.targets.record import Layout

    ops = [{"DecodeImage": None}, {"RandCropImage": {"size": 224}}, {"RandFlipImage": {"flip_code": 1}},
           {"NormalizeImage": {"order": ""}}, {"ToCHWImage": None}]
    sizes = [Layout(AnswerCodec(1000, 10, bits), DrawnCodec(ops)).dtype.itemsize for bits in (8, 12, 16)]
    assert sizes == [38, 43, 48]


def test_reading_a_store_needs_no_paddle():
    code = "import sys, ppcls_ssld.targets.store, ppcls_ssld.targets as t; t.expect; assert 'paddle' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
