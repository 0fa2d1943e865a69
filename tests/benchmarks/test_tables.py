"""The benchmark tables of ImageNet and of transfer: they load, their rows build on each other as the recipes do, and
what they expect is what was published (published.yaml)."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.rows import settings, share_of_work
from benchmarks.table import TABLES, load_table
from ppcls_ssld.config import load_config
from ppcls_ssld.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = yaml.safe_load((ROOT / "tests" / "published.yaml").read_text())
TOP1 = {name: row[PUBLISHED["columns"].index("top1")] for name, row in PUBLISHED["recipes"].items()}
NAMES = ("ladder", "teacher", "bn_mode", "zoo", "transfer")
every_table = pytest.mark.parametrize("name", NAMES)


def table(name):
    return load_table(TABLES / f"{name}.yaml")


def recipe_of(row):
    return row.config.removeprefix("configs/").removesuffix(".yaml")


def resolved(row, inputs):
    """The row's config under its overrides."""
    return load_config(ROOT / row.config, [f"{key}={value if isinstance(value, str) else json.dumps(value)}"
                                           for key, value in settings(row, inputs).items()])


def published(name, row):
    """Per cent, or None."""
    if name == "ladder":
        return PUBLISHED["ladder"][row.row]
    if name == "transfer":
        return PUBLISHED["transfer"][Path(row.config).stem][row.row.endswith("_ssld")]
    return TOP1[recipe_of(row)]


@every_table
def test_a_row_expects_what_was_published_and_nothing_else(name):
    for row in table(name).rows:
        expected = row.expected and round(100 * row.expected["top1"], 2)
        assert expected == published(name, row), row.row
        assert not row.expected or row.expected["source"]


@every_table
def test_an_expected_difference_is_that_of_the_two_expected_numbers(name):
    found = table(name)
    for pair in found.compare:
        of, against = (published(name, found.row(pair[key])) for key in ("of", "against"))
        if "expected" in pair:
            assert pair["expected"] == pytest.approx(of - against, abs=1e-6)
        else:
            assert of is None or against is None


@every_table
def test_a_row_resolves_with_its_overrides_and_reads_only_the_tables_inputs(name, tmp_path):
    found = table(name)
    inputs = {key: str(tmp_path / key) for key in found.inputs}
    for row in found.rows:
        config = resolved(row, inputs)
        for source in (*config.DataLoader.Train.sources, *config.DataLoader.Eval.sources):
            assert source.list.startswith(str(tmp_path)) and source.root.startswith(str(tmp_path))
        assert not re.search(r"{\w+}", json.dumps(settings(row, inputs)))


@every_table
def test_any_number_of_processes_makes_the_published_batch(name):
    column = PUBLISHED["columns"].index
    for row in table(name).rows:
        of = PUBLISHED["recipes"]["transfer" if name == "transfer" else recipe_of(row)]
        batch, cards = of[column("batch")], of[column("cards")]
        config = load_config(ROOT / row.config)
        assert row.batch == batch and share_of_work(row, config, cards) == (cards, 1)
        for most in (1, 2, 3, 8, cards + 7):
            processes, update_freq = share_of_work(row, config, most)
            assert processes <= most and processes * update_freq == cards
            assert not any(cards % more == 0 for more in range(processes + 1, most + 1))
        with pytest.raises(ConfigError, match=f"no number of processes .* makes its {batch - 1} images a step"):
            share_of_work(replace(row, batch=batch - 1), config, 8)


@every_table
def test_a_row_that_starts_from_another_is_its_next_stage(name):
    found = table(name)
    for row in found.rows:
        start = load_config(ROOT / row.config).Arch.network("Student").pretrained
        if row.init:
            other, _, before_it = row.init.rpartition(":")
            before = load_config(ROOT / table(other or name).row(before_it).config)
            assert start == f"{before.Global.output_dir}/best_model"
        else:
            assert start in (None, True), row.row


def test_the_two_sides_of_a_transfer_row_are_the_two_initialisations():
    for row in table("transfer").rows:
        config = resolved(row, {"datasets": "somewhere"})
        from_ssld = row.row.endswith("_ssld")
        assert config.Arch.network("Student").use_ssld == from_ssld
        assert bool(config.Optimizer.layer_lr) == from_ssld


def test_every_recipe_is_a_row_and_the_zoo_has_every_student():
    used = {name: {recipe_of(row) for row in table(name).rows} for name in NAMES}
    recipes = {name for name in PUBLISHED["recipes"] if name != "transfer"}
    assert set.union(*(used[name] for name in NAMES if name != "transfer")) == recipes
    assert used["zoo"] == {name for name in recipes
                           if "__" in name or name.endswith(("fix320", "/ResNet50_vd_supervised"))}
    assert used["transfer"] == {f"transfer/{name}" for name in PUBLISHED["transfer"]}
    assert all(len([row for row in table("transfer").rows if recipe_of(row) == recipe]) == 2
               for recipe in used["transfer"])


def test_no_two_rows_of_all_tables_train_the_same(tmp_path):
    rows = [(name, row) for name in NAMES for row in table(name).rows if not row.same_as]
    runs = [json.dumps({**row.identity(), "init": row.init and f"{name}:{row.init}"}, sort_keys=True) for name, row in rows]
    assert len(set(runs)) == len(runs)
    assert {row.same_as for name in NAMES for row in table(name).rows if row.same_as} == {
        "ladder:soft_ce", "ladder:better_teacher", "ladder:mined", "ladder:finetune"}


def test_a_reader_that_stops_early_gets_no_traceback():
    listing = subprocess.Popen([sys.executable, "benchmarks/reproduce.py", "--table", "zoo", "--list"], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    listing.stdout.close()
    assert listing.stderr.read() == b"" and listing.wait() == 141


def test_no_backbone_is_judged_on_photographs_that_it_was_distilled_on():
    """Crops of the photographs are among the mined images of the CIFAR-10 ladder."""
    ladder = table("cifar10_ladder")
    rows = [row for row in table("cifar10_transfer").rows if row.row.startswith("photographs") and row.init]
    assert len(rows) == 4
    for row in rows:
        start = ladder.row(row.init.removeprefix("cifar10_ladder:"))
        assert not start.init and "mined" not in json.dumps(start.set), row.row
