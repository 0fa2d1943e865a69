"""Splits and lists: what the student may see, and what it may not."""

import os
from dataclasses import replace

import pytest

from ppcls_ssld.demo.images import Item, by_class, spread, split_test, split_train, write_lists
from ppcls_ssld.errors import DataError

ITEMS = tuple(Item(f"/images/{i:03d}.png", i % 4) for i in range(80))


def test_every_image_is_in_one_part_alone():
    train, test = split_test(ITEMS, 0.2, seed=0)
    labelled, unlabelled = split_train(train, 3, seed=0)
    assert sorted((*labelled, *unlabelled, *test), key=lambda item: item.path) == list(ITEMS)


def test_each_class_gives_its_share_to_the_test_and_the_same_few_labels():
    train, test = split_test(ITEMS, 0.2, seed=0)
    labelled, _ = split_train(train, 3, seed=0)
    assert [len(group) for group in by_class(test).values()] == [4] * 4
    assert [len(group) for group in by_class(labelled).values()] == [3] * 4


def test_a_seed_fixes_the_split_and_another_seed_changes_it():
    assert split_test(ITEMS, 0.2, 1) == split_test(ITEMS, 0.2, 1) != split_test(ITEMS, 0.2, 2)
    assert split_train(ITEMS, 3, 1) == split_train(ITEMS, 3, 1) != split_train(ITEMS, 3, 2)


def test_the_order_of_unlabelled_images_does_not_follow_their_classes():
    _, unlabelled = split_train(ITEMS, 3, seed=0)
    labels = [item.label for item in unlabelled]
    assert labels != sorted(labels)


def test_a_class_that_would_have_no_unlabelled_image_is_refused():
    with pytest.raises(DataError, match="class 1 has 2 training images; expected more than 3"):
        split_train([*ITEMS[::4], ITEMS[1], ITEMS[5]], 3, seed=0)


def test_the_unlabelled_list_holds_paths_alone(images, tmp_path):
    lists = write_lists(images, tmp_path / "lists")
    assert lists.unlabelled.read_text().splitlines() == [item.path for item in images.unlabelled]


def test_the_labelled_list_is_short_and_the_teachers_list_holds_every_training_image(images, tmp_path):
    lists = write_lists(images, tmp_path / "lists")
    few, every = lists.labelled.read_text().splitlines(), lists.teacher.read_text().splitlines()
    assert few == [f"{item.path}\t{item.label}" for item in images.labelled]
    assert every == [f"{item.path}\t{item.label}" for item in (*images.labelled, *images.unlabelled)]


def test_no_training_list_holds_a_test_image(images, tmp_path):
    lists = write_lists(images, tmp_path / "lists")
    seen = lists.labelled.read_text() + lists.unlabelled.read_text() + lists.teacher.read_text()
    assert not [item.path for item in images.test if item.path in seen]


def test_spread_keeps_to_its_limit_and_reaches_both_ends():
    assert spread(100, 5).tolist() == [0, 25, 50, 74, 99]
    assert spread(3, 5).tolist() == [0, 1, 2]


def test_an_image_whose_name_cannot_stand_in_a_list_is_named(images, tmp_path):
    for name in (os.fsdecode(b"/images/\xff.png"), "/images/a\nb.png"):
        with pytest.raises(DataError, match=r"/images/.*\.png: this name has a line break in it, or is not UTF-8"):
            write_lists(replace(images, test=(*images.test, Item(name, 0))), tmp_path / "lists")
