import dataclasses
import re

import numpy as np
import pytest

from ppcls_ssld.config.schema import SourceConfig
from ppcls_ssld.data import EvalReader, TrainReader
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.structs import UNLABELLED

FIELDS = ("images", "labels", "sample_ids", "sources", "partner_labels", "share")


def same(a, b):
    return a.skipped == b.skipped and all(
        np.array_equal(getattr(a, f), getattr(b, f)) and getattr(a, f).dtype == getattr(b, f).dtype for f in FIELDS)


def train(config, rank=0, world=1, seed=5):
    return TrainReader(config, 5, seed, rank, world)


@pytest.fixture
def mixed_sources(photos):
    return (SourceConfig("photos", list=str(photos / "list.txt"), root=str(photos), ratio=0.25),
            SourceConfig("pool", list=str(photos / "pool.txt"), root=str(photos), labelled=False, ratio=0.75))


MIX = {"batch_transform_ops": ({"OpSampler": {"Mixup": {"prob": 0.5}, "Cutmix": {"prob": 0.5, "alpha": 1.0}}},)}


@pytest.mark.parametrize("changes", [{}, MIX, {"transform_ops": ({"TimmAutoAugment": {}}, {"ResizeImage": {"size": 12}},
                                                                 {"RandomErasing": {"mode": "pixel"}})}])
def test_batches_are_the_same_bits_with_any_number_of_workers(loader, changes):
    inline = list(train(loader(**changes)).batches(0, 12))
    for num_workers, prefetch in ((1, 1), (2, 2), (3, 4)):
        ahead = list(train(loader(num_workers=num_workers, prefetch_factor=prefetch, **changes)).batches(0, 12))
        assert len(ahead) == 12 and all(map(same, inline, ahead))
    if "batch_transform_ops" in changes:  # Mixup makes floats
        assert inline[0].images.dtype == np.float32 and inline[0].images.shape[:2] == (4, 3)
    else:
        assert inline[0].images.dtype == np.uint8 and inline[0].images.shape[3] == 3 and inline[0].normalization
    assert all(inline[0].__dict__[f].dtype == np.int64 for f in FIELDS[1:5]) and inline[0].share.dtype == np.float32


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_reader_entered_in_the_middle_goes_on_as_if_it_had_read_the_rest(loader, mixed_sources, num_workers):
    for changes in ({}, {"sources": mixed_sources, **MIX}):
        whole = list(train(loader(**changes)).batches(0, 20))
        part = list(train(loader(num_workers=num_workers, **changes)).batches(13, 20))
        assert len(part) == 7 and all(map(same, whole[13:], part))


def by_sample(batches):
    rows = [(int(b.sample_ids[i]), b.images[i]) for b in batches for i in range(len(b))]
    return {(sample_id, round(float(image.sum()), 3)): image for sample_id, image in rows}


@pytest.mark.parametrize("ratios", [False, True])
def test_samples_and_their_augmentation_do_not_depend_on_the_number_of_ranks(loader, mixed_sources, ratios):
    changes = {"sources": mixed_sources} if ratios else {}
    alone = list(train(loader(batch_size=12, **changes)).batches(0, 6))
    ranks = [list(train(loader(batch_size=4, **changes), rank, 3).batches(0, 6)) for rank in range(3)]
    for m in range(6):
        one, many = by_sample([alone[m]]), by_sample(batches[m] for batches in ranks)
        assert one.keys() == many.keys() and all(np.array_equal(one[k], many[k]) for k in one)


def test_augmentation_changes_from_pass_to_pass_and_with_the_seed(loader):
    def of_sample(batches):
        return [b.images[i] for b in batches for i in range(len(b)) if b.sample_ids[i] == 7]

    ops = ({"RandomErasing": {"EPSILON": 1, "mode": "pixel"}},)
    first = of_sample(train(loader(transform_ops=ops)).batches(0, 15))
    other = of_sample(train(loader(transform_ops=ops), seed=6).batches(0, 15))
    assert len(first) == 2 and not np.array_equal(*first) and not np.array_equal(first[0], other[0])


def test_images_labels_and_ids_belong_together(loader, mixed_sources):
    config = loader(sources=mixed_sources, transform_ops=({"CropImage": {"size": 8}},), batch_size=8)
    for batch in train(config).batches(0, 10):
        number = np.where(batch.sources == 0, batch.sample_ids, batch.sample_ids - 30)
        assert abs(batch.images[..., 0].mean(axis=(1, 2)) - number * 8).max() < 4  # JPEG is not exact
        assert np.array_equal(batch.labels, np.where(batch.sources == 0, number % 5, UNLABELLED))
        assert np.bincount(batch.sources).tolist() == [2, 6]
        assert np.array_equal(batch.partner_labels, batch.labels) and (batch.share == 1).all()


def test_mixing_never_gives_an_unlabelled_image_a_label(loader, mixed_sources):
    labels = [(b.labels, b.partner_labels, b.sources, b.share)
              for b in train(loader(sources=mixed_sources, batch_size=8, **MIX)).batches(0, 10)]
    for own, partner, sources, share in labels:
        assert np.array_equal(own == UNLABELLED, sources == 1)
        assert np.array_equal(np.sort(partner), np.sort(own))
    assert min(share.min() for *_, share in labels) < 1


def test_a_reader_describes_what_it_reads(loader, mixed_sources):
    reader = TrainReader(loader(sources=mixed_sources, batch_size=8, epoch_of="pool"), 5, 0, 0, 2)
    assert reader.sizes == (30, 11) and reader.batches_per_epoch == 1
    text = reader.describe().splitlines()
    assert text[0] == "DataLoader.Train: 41 images, batches of 8 on each of 2 processes, 1 an epoch"
    assert re.fullmatch(r"  photos: 30 images with labels, 2 of a batch \(25.0%\), from .*list.txt", text[1])
    assert re.fullmatch(r"  pool: 11 images without labels, 6 of a batch \(75.0%\), from .*pool.txt", text[2])


@pytest.fixture
def weighted_sources(photos, mixed_sources):
    (photos / "weights.txt").write_text("0\n3\n" + "0.5\n" * 9)
    return mixed_sources[0], dataclasses.replace(mixed_sources[1], weights=str(photos / "weights.txt"))


@pytest.mark.parametrize("ratios", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_weights_decide_how_often_an_image_is_read_and_where_is_a_function_of_position(loader, weighted_sources, ratios,
                                                                                     num_workers):
    sources = weighted_sources if ratios else tuple(dataclasses.replace(s, ratio=None) for s in weighted_sources)
    whole = list(train(loader(sources=sources)).batches(0, 60))
    part = list(train(loader(sources=sources, num_workers=num_workers)).batches(41, 60))
    assert len(part) == 19 and all(map(same, whole[41:], part))
    pool = np.concatenate([b.sample_ids[b.sources == 1] for b in whole]) - 30
    visits = np.bincount(pool, minlength=11) / len(pool)
    assert visits[0] == 0 and abs(visits[1] - 3 / 7.5) < 0.06 and abs(visits[2:].mean() - 0.5 / 7.5) < 0.02


def test_visits_of_an_image_within_one_pass_are_augmented_differently(loader, weighted_sources):
    source = dataclasses.replace(weighted_sources[1], ratio=None)
    reader = train(loader(sources=(source,), batch_size=8,
                          transform_ops=({"RandomErasing": {"EPSILON": 1, "mode": "pixel"}},)))
    batch, = reader.batches(0, 1)  # one pass: 7.5 visits, rounded to an even 8
    images = batch.images[batch.sample_ids == 1]
    assert reader.batches_per_epoch == 1 and len(images) == 3
    assert not any(np.array_equal(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_reader_tells_of_weights(loader, weighted_sources):
    text = train(loader(sources=tuple(dataclasses.replace(s, ratio=None) for s in weighted_sources))).describe()
    assert re.search(r"pool: 11 images without labels, 0.8 of a batch \(20.0%\), .*, 7.5 visits a pass by .*wei", text)


def test_evaluation_refuses_weights(loader, photos):
    source = SourceConfig("v", list=str(photos / "list.txt"), root=str(photos), weights="w.txt")
    with pytest.raises(ConfigError, match="source 'v' has weights, and evaluation counts every image once"):
        EvalReader(loader(sources=(source,)), 5)


def break_image(photos, number, data=b"not an image"):
    (photos / f"{number:02d}.jpg").write_bytes(data)
    return str(photos / f"{number:02d}.jpg")


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", ["truncated", "empty", "garbage", "missing"])
def test_a_corrupt_image_stops_the_reader_with_its_path(loader, photos, ugly, num_workers, kind):
    path = break_image(photos, 17, b"" if kind == "missing" else getattr(ugly, kind))
    if kind == "missing":
        (photos / "17.jpg").unlink()
    batches = train(loader(num_workers=num_workers, shuffle=False)).batches(0, 8)
    assert [next(batches).sample_ids[0] for _ in range(4)] == [0, 4, 8, 12]
    with pytest.raises(DataError, match=f"^{path}: .*on_corrupt: skip$"):
        next(batches)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("changes", [{}, MIX])
def test_skipping_leaves_corrupt_images_out_and_counts_them(loader, photos, num_workers, changes):
    paths = [break_image(photos, i) for i in (0, 6, 7)]
    reader = train(loader(num_workers=num_workers, shuffle=False, on_corrupt="skip", **changes))
    batches = list(reader.batches(0, 9))
    assert [b.sample_ids.tolist() for b in batches[:3]] == [[1, 2, 3], [4, 5], [8, 9, 10, 11]]
    assert [len(b.images) for b in batches[:3]] == [3, 2, 4] and batches[1].skipped == tuple(paths[1:])
    assert batches[7].sample_ids.tolist() == [28, 29, 1]
    assert reader.skipped == {paths[0]: 2, paths[1]: 1, paths[2]: 1} and len(reader.skipped) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_of_corrupt_images_only_is_an_error(loader, photos, num_workers):
    for i in range(4):
        path = break_image(photos, i)
    with pytest.raises(DataError, match=r"none of the 4 images.*00.jpg first; is the root"):
        list(train(loader(num_workers=num_workers, shuffle=False, on_corrupt="skip")).batches(0, 2))
    assert path.endswith("03.jpg")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_of_unequal_size_are_an_error_that_says_what_to_add(loader, photos, ugly, num_workers):
    path = break_image(photos, 13, ugly.grey_png)
    config = loader(num_workers=num_workers, shuffle=False, transform_ops=({"ResizeImage": {"resize_short": 18}},))
    with pytest.raises(DataError, match=f"{path}: comes out .*25x18 pixels, the first image with 22x18.*RandCropImage"):
        list(train(config).batches(0, 7))


def test_an_image_too_small_for_a_transform_is_an_error_with_its_path(loader, photos, ugly):
    path = break_image(photos, 2, ugly.pixel)
    with pytest.raises(DataError, match=f"{path}: cannot crop 8x8.*1x1 pixels.*DataLoader.Train.transform_ops"):
        list(train(loader(shuffle=False, transform_ops=({"CropImage": {"size": 8}},))).batches(0, 1))
    (batch,) = train(loader(shuffle=False)).batches(0, 1)  # RandCropImage copes with one pixel
    assert len(np.unique(batch.images[2].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("kind", ["grey", "alpha", "cmyk", "exif", "palette", "deep"])
def test_unusual_images_are_read_like_any_other(loader, photos, ugly, kind):
    break_image(photos, 1, getattr(ugly, kind))
    (batch,) = train(loader(shuffle=False)).batches(0, 1)
    assert batch.images.shape == (4, 16, 16, 3) and batch.images[1].std() > 10


@pytest.mark.parametrize("changes, message", [
    ({"epoch_of": "poool"}, "epoch_of.*did you mean 'pool'"), ({"on_corrupt": "ignore"}, "on_corrupt.*stop or skip"),
    ({"transform_ops": ({"RandCrop": {}},)}, "DataLoader.Train.transform_ops.0: no transform 'RandCrop'; did you mean"),
    ({"batch_transform_ops": ({"Mix": {}},)}, "DataLoader.Train.batch_transform_ops.0"),
    ({"ratios": (0.5, None)}, "ratio for every source or for none"), ({"ratios": (0.5, 0.4)}, "sum to 1")])
def test_a_wrong_config_is_an_error_that_says_where(loader, mixed_sources, changes, message):
    changes = dict(changes)
    ratios = changes.pop("ratios", (0.25, 0.75))
    sources = tuple(dataclasses.replace(s, ratio=r) for s, r in zip(mixed_sources, ratios))
    with pytest.raises(ConfigError, match=message):
        train(loader(sources=sources, **changes))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_reads_every_image_once_over_all_ranks(loader, num_workers, world):
    ops = ({"CropImage": {"size": 8}},)
    readers = [EvalReader(loader(num_workers=num_workers, transform_ops=ops), 5, rank, world) for rank in range(world)]
    batches = [list(reader.batches()) for reader in readers]
    ids = [np.concatenate([b.sample_ids for b in part]) for part in batches]
    assert sorted(np.concatenate(ids).tolist()) == list(range(30)) and all((np.diff(part) > 0).all() for part in ids)
    assert all(np.array_equal(b.labels, b.sample_ids % 5) for part in batches for b in part)
    assert readers[0].size == 30 and [len(b) for b in list(readers[0].batches())] == [len(b) for b in batches[0]]


def test_a_limited_evaluation_is_spread_over_the_list(loader, photos):
    config = loader(transform_ops=({"CropImage": {"size": 8}},))
    reader = EvalReader(config, 5, limit=5)
    assert reader.size == 5 and sorted(np.concatenate([b.sample_ids for b in reader.batches()])) == [0, 6, 12, 18, 24]
    assert EvalReader(config, 5, limit=99).size == 30
    broken = break_image(photos, 12)
    reader = EvalReader(dataclasses.replace(config, on_corrupt="skip"), 5, limit=5)
    assert sum(map(len, reader.batches())) == 4 and tuple(reader.skipped) == (broken,)


def test_evaluation_needs_labels(loader, mixed_sources):
    with pytest.raises(ConfigError, match="DataLoader.Eval: source 'pool' has no labels"):
        EvalReader(loader(sources=mixed_sources), 5)


def test_a_folder_of_classes_is_a_source(loader, tmp_path, encode, image):
    for name in ("cat", "dog"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "1.png").write_bytes(encode(image, "PNG"))
    source = SourceConfig("tree", folder=str(tmp_path / "tree"))
    reader = EvalReader(loader(sources=(source,), transform_ops=({"ResizeImage": {"size": 8}},)), 2)
    (batch,) = reader.batches()
    assert batch.labels.tolist() == [0, 1] and reader.class_names == ("cat", "dog")
