"""The account of a mining run: every image of the pool ends in one place."""

import math

from ppcls_ssld.demo.mined import CHOSEN, PASSED, REAL, REMOVED, UNREADABLE
from ppcls_ssld.demo.pool import BROKEN, COPY, STRANGER


def test_every_image_of_the_pool_ends_in_one_place(mined, images, pool):
    ended = [path for ends in mined.ended.values() for paths in ends.values() for path in paths]
    assert sorted(ended) == sorted([*(item.path for item in images.unlabelled), *(p.path for p in pool.planted)])
    assert mined.total() == len(ended) == sum(map(mined.total, (UNREADABLE, REMOVED, PASSED, CHOSEN)))


def test_ends_are_counted_by_what_the_images_are(mined):
    assert [mined.count(REAL, end) for end in (REMOVED, PASSED, CHOSEN)] == [1, 1, 10]
    assert [mined.count(COPY, end) for end in (REMOVED, PASSED, CHOSEN)] == [7, 0, 1]
    assert [mined.count(STRANGER, end) for end in (REMOVED, PASSED, CHOSEN)] == [0, 3, 1]
    assert mined.count(BROKEN, UNREADABLE) == 6
    assert mined.line() == ("7 of 8 copies of test images found, 1 of 12 real images taken for copies; 10 real images "
                            "and 1 of 4 strangers chosen")


def test_the_evidence_of_a_removal_is_kept_and_exact_copies_have_no_score(mined, images):
    removal = mined.removed[mined.ended[REAL][REMOVED][0]]
    assert (removal.copy_of, removal.stage, removal.score) == (images.test[0].path, "keypoints", 9)
    assert [math.isnan(r.score) for r in mined.removed.values() if r.stage == "bytes"] == [True]


def test_thresholds_are_those_of_the_run(mined):
    assert (mined.correlation, mined.cells, mined.innocents) == (0.91, 8, 0)
    assert (mined.top_k, mined.min_score, len(mined.chosen)) == (6, 0.5, 12)
