"""Views asked for by number, recorded, and shown again."""

import numpy as np
import pytest

from ppcls_ssld.data import TrainReader, ViewReader, assemble, pixels
from ppcls_ssld.errors import DataError
from ppcls_ssld.structs import SparseTargets

MIX = {"batch_transform_ops": ({"OpSampler": {"Mixup": {"prob": 0.4}, "Cutmix": {"prob": 0.4, "alpha": 1.0}}},)}
CUTMIX = {"batch_transform_ops": ({"Cutmix": {"alpha": 1.0}},)}


def every_view(reader, views, batch_size=4):
    ids, numbers = np.repeat(np.arange(reader.size), views), np.tile(np.arange(views), reader.size)
    return list(reader.batches(ids, numbers, batch_size))


class Shelf:
    """Stored views in memory: what a store on disk is to the reader."""

    def __init__(self, batches, views):
        self.views = views
        self.rows = [drawn for batch in batches for drawn in batch.drawn]

    def read(self, sample_ids, views):
        assert (views < self.views).all()
        return sample_ids * self.views + views

    def drawn(self, record):
        return self.rows[int(record)]

    def targets(self, records):
        n = len(records)
        return SparseTargets(records[:, None].astype(np.int32), np.zeros((n, 1), np.float32), np.full(n, -9, np.float32))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_view_is_what_training_sees_in_that_pass(loader, num_workers):
    seen = {}
    for batch in TrainReader(loader(), 5, seed=3).batches(0, 22):
        for i, sample in enumerate(batch.sample_ids.tolist()):
            seen[sample, sum(key[0] == sample for key in seen)] = batch.images[i].copy()
    batches = every_view(ViewReader(loader(num_workers=num_workers), 5, seed=3), 2)
    asked = [(sample, view) for sample in range(30) for view in range(2)]
    images = np.concatenate([b.images for b in batches])
    assert np.concatenate([b.sample_ids for b in batches]).tolist() == [sample for sample, _ in asked]
    assert all(np.array_equal(image, seen[key]) for key, image in zip(asked, images)) and images.dtype == np.uint8


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("changes", [{}, MIX, CUTMIX])
def test_what_was_recorded_comes_again_bit_for_bit_and_in_turn(loader, changes, num_workers):
    written = every_view(ViewReader(loader(**changes), 5, seed=3), 3)
    shelf = Shelf(written, 3)
    images = np.concatenate([b.images for b in written])
    # The seed of the run that reads has no say any more, except about the order.
    reader = TrainReader(loader(num_workers=num_workers, **changes), 5, seed=8, stored=shelf)
    turns = {}
    for batch in reader.batches(0, 45):
        for i, sample in enumerate(batch.sample_ids.tolist()):
            turn = turns[sample] = turns.get(sample, -1) + 1
            assert np.array_equal(batch.images[i], images[sample * 3 + turn % 3])
            assert batch.targets.classes[i] == sample * 3 + turn % 3
    assert max(turns.values()) == 5


def test_partners_come_from_the_whole_list_and_are_recorded(loader):
    batches = every_view(ViewReader(loader(**CUTMIX), 5, seed=3), 2)
    drawn = [d for b in batches for d in b.drawn]
    assert len({d.partner for d in drawn}) > 15 and all(len(d.mix) == 4 and d.partner_size == (36, 44) for d in drawn)
    labels = np.concatenate([b.partner_labels for b in batches])
    assert labels.tolist() == [d.partner % 5 for d in drawn]
    assert len(np.unique(np.concatenate([b.share for b in batches]))) > 20  # each image has a share of its own


def test_corrupt_images_are_missing_under_skip_and_stop_otherwise(loader, photos):
    (photos / "07.jpg").write_bytes(b"no image")
    batches = every_view(ViewReader(loader(on_corrupt="skip", **CUTMIX), 5, seed=3), 2)
    ids = np.concatenate([b.sample_ids for b in batches])
    assert 7 not in ids and len(ids) == 58 and all(d.partner != 7 for b in batches for d in b.drawn)
    assert [path for b in batches for path in b.skipped] == [str(photos / "07.jpg")] * 2
    with pytest.raises(DataError, match="07.jpg"):
        every_view(ViewReader(loader(), 5, seed=3), 1)


def test_an_image_that_could_not_be_read_then_is_left_out_now(loader, photos):
    shelf = Shelf(every_view(ViewReader(loader(), 5, seed=3), 1), 1)
    shelf.rows[4] = None
    reader = TrainReader(loader(on_corrupt="skip", shuffle=False), 5, seed=3, stored=shelf)
    assert [b.sample_ids.tolist() for b in reader.batches(0, 2)] == [[0, 1, 2, 3], [5, 6, 7]]
    assert list(reader.skipped) == [str(photos / "04.jpg")]
    with pytest.raises(DataError, match="04.jpg: has no targets.*write them again"):
        list(TrainReader(loader(shuffle=False), 5, seed=3, stored=shelf).batches(0, 2))


def test_a_partner_that_cannot_be_read_is_named_and_not_the_image(loader, photos):
    shelf = Shelf(every_view(ViewReader(loader(**CUTMIX), 5, seed=3), 1), 1)
    partner = shelf.rows[0].partner
    (photos / f"{partner:02d}.jpg").write_bytes(b"no image")
    reader = TrainReader(loader(on_corrupt="skip", shuffle=False, **CUTMIX), 5, seed=3, stored=shelf)
    batch = next(reader.batches(0, 1))
    assert partner != 0 and 0 not in batch.sample_ids and f"{partner:02d}.jpg" in batch.skipped[0]


def test_an_image_of_another_size_is_not_what_the_teacher_saw(loader, photos, ugly):
    shelf = Shelf(every_view(ViewReader(loader(), 5, seed=3), 1), 1)
    (photos / "05.jpg").write_bytes(ugly.grey)
    with pytest.raises(DataError, match="05.jpg.*56x40 pixels.*44x36"):
        list(TrainReader(loader(on_corrupt="skip", shuffle=False), 5, seed=3, stored=shelf).batches(0, 2))


def test_views_of_one_image_that_follow_each_other_read_and_decode_it_once(loader, monkeypatch):
    calls = {"read": 0, "decode": 0}

    def counted(name, function):
        def call(*args):
            calls[name] += 1
            return function(*args)
        return call

    monkeypatch.setattr(assemble.files, "read_bytes", counted("read", assemble.files.read_bytes))
    monkeypatch.setattr(pixels, "decode", counted("decode", pixels.decode))
    batches = every_view(ViewReader(loader(), 5, seed=3), 6)
    assert calls == {"read": 30, "decode": 30}
    assert len({drawn for b in batches for drawn in b.drawn}) > 150
