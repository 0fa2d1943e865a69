"""Every shipped recipe resolves, and names only what exists."""

from pathlib import Path

import pytest

from ppcls_ssld.arch import check_name
from ppcls_ssld.config import load_config
from ppcls_ssld.config.mine import load_mine
from ppcls_ssld.data import check_transforms
from ppcls_ssld.engine.task import build_loss
from ppcls_ssld.optim import build_schedule

ROOT = Path(__file__).resolve().parent.parent / "configs"
RECIPES = sorted(p for folder in ("ssld", "finetune", "cifar10") for p in (ROOT / folder).glob("*.yaml")
                 if p.name != "cifar10.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_recipe_names_networks_losses_transforms_and_a_schedule_that_exist(path):
    config = load_config(path)
    loss = build_loss(config)
    assert loss.needs_labels == ("baseline" in path.name)
    check_transforms(config.DataLoader.Train.transform_ops, "DataLoader.Train.transform_ops")
    check_transforms(config.DataLoader.Eval.transform_ops, "DataLoader.Eval.transform_ops")
    rate = build_schedule(config.Optimizer.lr, config.Global.epochs, 100, "Optimizer.lr")
    assert 0 <= rate(config.Global.epochs * 100 - 1) < config.Optimizer.lr["learning_rate"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_recipe_opens_with_what_it_is_and_how_to_run_it(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("python" in line for line in header) and len(header) >= 3


def test_stage_two_starts_from_the_student_of_stage_one():
    for path in (ROOT / "finetune").glob("*.yaml"):
        first, second = load_config(ROOT / "ssld" / path.name), load_config(path)
        assert second.Arch.network("Student").pretrained == f"{first.Global.output_dir}/best_model"
        assert all(source.labelled for source in second.DataLoader.Train.sources)


@pytest.mark.parametrize("path", sorted((ROOT / "mining").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_mining_recipe_loads_and_names_a_backbone_of_paddleclas(path):
    config = load_mine(path)
    check_name(config.Teacher)
    assert config.protect and config.Select.top_k > 0
    assert path.read_text().startswith("#")
