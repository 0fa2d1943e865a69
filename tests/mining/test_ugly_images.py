"""What becomes of every kind of ugly image on the miner's way: bytes, header, pixels. A word or an image, no crash."""

import os

import numpy as np
import pytest
import ugly

from ppcls_ssld.data import files, pixels
from ppcls_ssld.errors import DataError
from ppcls_ssld.mining import header
from ppcls_ssld.mining.listing import Listing, PoolSource, write_listing


def through(name):
    """(kinds, image) of a name, or the reason why there is none."""
    try:
        encoded = files.read_bytes(name)
        return header.inspect(encoded).kinds, pixels.decode(encoded, name)
    except DataError as e:
        return str(e).removeprefix(f"{name}: ")


@pytest.mark.parametrize("name", ugly.odd())
def test_odd_images_are_read_and_show_what_they_show(name):
    data, _ = ugly.odd()[name]
    header.inspect(data)
    image, plain = pixels.decode(data, name), ugly.picture().astype(int)
    if "turned" in name and image.shape[0] == 56:
        image = np.rot90(image)
    assert image.dtype == np.uint8 and image.shape == (40, 56, 3)
    if "bits" in name:
        assert np.isin(image, (0, 255)).all()
    elif name == "alpha.tif":  # TIFF's decoder shows it on black
        assert abs(image - plain * plain[..., :1] / 255).mean() < 1
    elif "grey" in name:
        assert abs(image - plain[..., :1]).mean() < 2 and np.ptp(image.astype(int), axis=2).max() == 0
    else:
        assert abs(image - plain).mean() < 12 and abs(image - (255 - plain)).mean() > 60


@pytest.mark.parametrize("name", ugly.broken())
def test_broken_images_get_a_word(name, tmp_path):
    data, word = ugly.broken()[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=word):
        header.inspect(data)
        pixels.decode(data, name)


@pytest.mark.parametrize("name", ugly.plain())
def test_an_image_cut_anywhere_is_a_word_or_the_whole_image(name):
    data = ugly.plain()[name]
    whole = pixels.decode(data, name)
    for end in range(0, len(data), max(1, len(data) // 19)):
        try:
            header.inspect(data[:end])
            image = pixels.decode(data[:end], name)
        except DataError:
            continue
        assert np.array_equal(image, whole), f"half an image from {end} of {len(data)} bytes"


def test_of_several_frames_the_first_counts_in_every_format():
    first, last = ugly.picture().astype(int), 255 - ugly.picture().astype(int)
    for name in ("animated.gif", "animated.png", "animated.webp", "pages.tif"):
        image = pixels.decode(ugly.odd()[name][0], name)
        assert abs(image - first).mean() < 6 < 60 < abs(image - last).mean()


def test_a_pool_of_ugly_images_is_listed_whole_and_loses_nothing(tmp_path):
    pool = tmp_path / "my pool ü 猫"
    pool.mkdir()
    for name, (data, _) in (ugly.odd() | ugly.broken()).items():
        (pool / name).write_bytes(data)
    os.mkfifo(pool / "pipe.jpg")
    (pool / "loop.jpg").symlink_to("loop.jpg")
    (pool / "gone.jpg").symlink_to("nowhere.jpg")
    (pool / "folder.jpg").mkdir()
    (pool / "folder.jpg" / "inside.jpg").write_bytes(ugly.encode(ugly.picture()))
    (pool / "line\nbreak.jpg").write_bytes(ugly.encode(ugly.picture()))
    report = write_listing([PoolSource(str(pool))], tmp_path / "listing.arrow")
    listing = Listing.open(tmp_path / "listing.arrow")
    outcome = {os.path.relpath(name, pool): through(name) for name in listing.names(0, len(listing))}
    read = {name for name, result in outcome.items() if not isinstance(result, str)}
    assert read == {*ugly.odd(), "folder.jpg/inside.jpg"}
    assert set(outcome) - read == {*ugly.broken(), "pipe.jpg", "loop.jpg", "gone.jpg"}
    assert [(os.path.basename(name), "line break" in reason) for name, reason in report.unlistable] == [
        ("line\\nbreak.jpg", True)]
    assert "pipe" in outcome["pipe.jpg"] and "No such file" in outcome["gone.jpg"] and "links" in outcome["loop.jpg"]
    assert all(str(pool) not in outcome[name] for name in set(outcome) - read)  # the row has the name in its own column
