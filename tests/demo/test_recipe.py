"""The configs: they load, and they say what the demo's table says."""

from pathlib import Path

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.config.mine import load_mine
from ppcls_ssld.demo import recipe as recipes
from ppcls_ssld.demo.images import DemoImages, Item, write_lists
from ppcls_ssld.demo.pool import Pool
from ppcls_ssld.demo.recipe import Recipe

DIGITS = 1438, 50, 359  # training, labelled and test images of the digits
MINED = 1300


def of_digits(folder, photographs=False):
    train, few, test = DIGITS
    items = [Item(f"/images/{i}.png", i % 10) for i in range(train + test)]
    images = DemoImages("Digits", tuple("0123456789"), tuple(items[:few]), tuple(items[few:train]),
                        tuple(items[train:]), photographs)
    return Recipe(images, write_lists(images, folder / "data"), folder, seed=7)


@pytest.fixture
def recipe(tmp_path):
    return of_digits(tmp_path)


def all_four(recipe):
    ssld = recipe.ssld("t.pdparams", Path("selected.txt"), MINED)
    return [resolve(tree) for tree in (recipe.teacher(), recipe.baseline(), ssld,
                                       recipe.finetune("t.pdparams", "s.pdparams"))]


def test_labels_are_in_the_loss_of_teacher_and_baseline_alone(recipe):
    assert [[name for entry in run.Loss.Train for name in entry] for run in all_four(recipe)] == [
        ["CELoss"], ["CELoss"], ["SymmetricKL"], ["SymmetricKL"]]


def test_each_run_reads_the_lists_that_the_table_names(recipe):
    lists = recipe.lists
    assert [[source.list for source in run.DataLoader.Train.sources] for run in all_four(recipe)] == [
        [str(lists.teacher)], [str(lists.labelled)], [str(lists.labelled), "selected.txt"],
        [str(lists.labelled)]]
    assert [source.labelled for source in all_four(recipe)[2].DataLoader.Train.sources] == [True, False]
    assert all([source.list for source in run.DataLoader.Eval.sources] == [str(lists.test)] for run in all_four(recipe))


def test_baseline_and_ssld_are_one_network_and_ssld_sees_about_as_many_images_but_no_more(recipe):
    _, baseline, ssld, finetune = all_four(recipe)
    names = {run.Arch.network("Student").name for run in (baseline, ssld, finetune)}
    assert names == {recipes.STUDENT}
    views = []
    for run, count in ((baseline, DIGITS[1]), (ssld, DIGITS[1] + MINED)):
        batch = run.DataLoader.Train.batch_size
        views.append(run.Global.epochs * (count // batch) * batch)
    assert 0.9 * views[0] <= views[1] <= views[0]
    assert (baseline.Global.seed, baseline.Optimizer.lr["learning_rate"]) == (7, ssld.Optimizer.lr["learning_rate"])


def test_the_teacher_is_frozen_with_stored_statistics_and_loads_the_weights_given(recipe):
    for run in all_four(recipe)[2:]:
        teacher = run.Arch.network("Teacher")
        assert (teacher.frozen, teacher.bn_mode, teacher.pretrained) == (True, "eval", "t.pdparams")


def test_fine_tuning_starts_from_the_student_at_a_lower_rate(recipe):
    *_, ssld, finetune = all_four(recipe)
    assert ssld.Arch.network("Student").pretrained is None
    assert finetune.Arch.network("Student").pretrained == "s.pdparams"
    assert finetune.Optimizer.lr["learning_rate"] <= 0.1 * ssld.Optimizer.lr["learning_rate"]


def test_digits_are_never_mirrored_and_photographs_are(tmp_path):
    for photographs in (False, True):
        run = resolve(of_digits(tmp_path / str(photographs), photographs).baseline())
        names = [name for entry in run.DataLoader.Train.transform_ops for name in entry]
        assert ("RandFlipImage" in names) == photographs


def test_a_batch_is_never_larger_than_its_list(images, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "MINED", 9)
    recipe = Recipe(images, write_lists(images, tmp_path / "data"), tmp_path, seed=0)
    assert [run.DataLoader.Train.batch_size for run in all_four(recipe)] == [18, 6, 15, 6]


def test_epochs_follow_from_the_number_of_mined_images(recipe):
    epochs = [resolve(recipe.ssld("t.pdparams", Path("selected.txt"), mined)).Global.epochs
              for mined in (600, 1300, 5000)]
    assert epochs == [11500 // 640, 11500 // 1344, 11500 // 4992]  # whole batches of 64 of 650, 1,350 and 5,050 images


def test_mining_protects_the_test_images_and_is_told_no_label(recipe):
    pool = Pool(Path("/pool"), (), Path("/test_images.txt"), Path("/innocents.txt"), top_k=150)
    config = load_mine(None, (), recipe.mining("/t.pdparams", pool, 0.9))
    assert [source.path for source in config.pool] == [str(recipe.lists.unlabelled), "/pool"]
    assert [source.path for source in config.protect] == ["/test_images.txt"]
    assert config.Dedup.negatives == ("/innocents.txt",)
    assert (config.Teacher.name, config.Teacher.pretrained) == (recipes.TEACHER, "/t.pdparams")
    assert (config.Select.top_k, config.Select.min_score, config.seed) == (150, 0.9, 7)


def test_without_enough_innocents_the_miners_own_thresholds_hold(recipe):
    pool = Pool(Path("pool"), (), Path("test_images.txt"), None, top_k=150)
    assert load_mine(None, (), recipe.mining("t.pdparams", pool, 0.9)).Dedup.negatives == ()
