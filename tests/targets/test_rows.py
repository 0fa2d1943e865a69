"""Where a view is stored."""

import numpy as np
import pytest

from ppcls_ssld.targets.rows import Rows, block_of


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 100, 1000, 5000])
def test_shuffled_rows_are_a_bijection_and_its_inverse(samples):
    rows = Rows(samples, 2, 64, shuffle=5)
    ids = np.arange(samples)
    assert sorted(rows.of(ids).tolist()) == ids.tolist() and np.array_equal(rows.samples_of(rows.of(ids)), ids)


def test_shuffled_rows_are_fair_samples_of_a_sorted_list():
    """100 classes in sorted order: a part of 500 rows has about 5 of each, as a random draw has."""
    rows = Rows(50_000, 1, 500, shuffle=1)
    counts = np.array([np.bincount(rows.samples_of(np.array(rows.part_rows(part))) // 500, minlength=100)
                       for part in range(100)])
    assert counts.mean() == 5 and 3.5 < counts.var() < 6.5 and counts.max() < 20
    other = Rows(50_000, 1, 500, shuffle=2)
    assert (rows.of(np.arange(50_000)) == other.of(np.arange(50_000))).sum() < 20


@pytest.mark.parametrize("samples,block,sizes", [(10, 4, [4, 6]), (3, 4, [3]), (8, 4, [4, 4]), (4, 4, [4])])
def test_parts_share_all_rows(samples, block, sizes):
    rows = Rows(samples, 1, block)
    assert [len(rows.part_rows(part)) for part in range(rows.parts)] == sizes
    assert [row for part in range(rows.parts) for row in rows.part_rows(part)] == list(range(samples))


@pytest.mark.parametrize("shuffle", [None, 4])
def test_a_plan_has_each_view_of_each_row_once(shuffle):
    plan_rows, views, counts = Rows(23, 3, 8, shuffle).plan(1, 5)
    made = sorted(zip(plan_rows[counts].tolist(), views[counts].tolist()))
    assert made == [(row, view) for row in range(8, 23) for view in range(3)]


def test_views_of_one_image_follow_each_other_where_batches_do_not_matter():
    plan_rows, views, counts = Rows(6, 3, 8).plan(0, 4)
    assert plan_rows.tolist()[:6] == [0, 0, 0, 1, 1, 1] and views.tolist()[:4] == [0, 1, 2, 0] and counts.all()


def test_batches_of_a_shuffled_store_are_full_and_their_mates_change_from_view_to_view():
    plan_rows, views, counts = Rows(23, 3, 8, shuffle=4).plan(1, 4)
    assert len(plan_rows) % 4 == 0 and counts.sum() == 45
    batches = plan_rows.reshape(-1, 4)
    assert all(len(set(of_batch)) == 1 for of_batch in views.reshape(-1, 4).tolist())
    assert all(len(set(batch)) == 4 for batch in batches.tolist())
    by_view = [{frozenset(b) for b in batches[i:i + 4].tolist()} for i in (0, 4, 8)]
    assert not by_view[0] & by_view[1] and not by_view[1] & by_view[2]


def test_a_list_shorter_than_a_batch_fills_one():
    plan_rows, _, counts = Rows(3, 1, 8, shuffle=4).plan(0, 8)
    assert len(plan_rows) == 8 and counts.sum() == 3 and sorted(plan_rows[counts].tolist()) == [0, 1, 2]


def test_the_number_of_files_stays_below_what_a_process_may_open():
    for samples in (10, 50_000, 1_281_167, 5_000_000, 400_000_000):
        assert Rows(samples, 1, block_of(samples)).parts <= 512
    assert block_of(50_000, 96) % 96 == 0 and block_of(50_000) == 1024
