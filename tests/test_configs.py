"""Every shipped config resolves, and names only what exists. What the published ones say is held in test_recipes.py."""

from pathlib import Path

import pytest

from ppcls_ssld.arch import check_name
from ppcls_ssld.config import load_config
from ppcls_ssld.config.load import read_tree
from ppcls_ssld.config.mine import load_mine
from ppcls_ssld.data import check_transforms
from ppcls_ssld.engine.task import build_loss
from ppcls_ssld.optim import build_schedule

ROOT = Path(__file__).resolve().parent.parent / "configs"


def is_whole(path):
    """Others are parts, only there to be inherited from: they name no network that learns, or no loss."""
    tree = read_tree(path)[0]
    arch = tree.get("Arch", {})
    return ("name" in arch or "Student" in arch) and "Train" in tree.get("Loss", {})


CONFIGS = [path for path in sorted(ROOT.rglob("*.yaml"))
           if path.relative_to(ROOT).parts[0] not in ("_base_", "mining") and is_whole(path)]
every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT).with_suffix("")))


@every_config
def test_a_config_names_networks_losses_transforms_and_a_schedule_that_exist(path):
    config = load_config(path)
    loss = build_loss(config)
    assert loss.needs_labels == (not any(network.frozen for network in config.Arch.networks))
    check_transforms(config.DataLoader.Train.transform_ops, "DataLoader.Train.transform_ops")
    check_transforms(config.DataLoader.Eval.transform_ops, "DataLoader.Eval.transform_ops")
    rate = build_schedule(config.Optimizer.lr, config.Global.epochs, 100, "Optimizer.lr")
    assert 0 <= rate(config.Global.epochs * 100 - 1) < config.Optimizer.lr["learning_rate"]


@every_config
def test_a_config_is_accepted_without_reservations(path):
    assert not load_config(path).notices


@every_config
def test_a_config_opens_with_what_it_is_and_how_to_run_it(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("python" in line for line in header) and len(header) >= 2


@pytest.mark.parametrize("path", sorted((ROOT / "_base_").glob("*.yaml")), ids=lambda p: p.stem)
def test_what_configs_inherit_says_what_it_is_and_is_inherited(path):
    assert path.read_text().startswith("#")
    assert any(path.name in other.read_text() for other in ROOT.rglob("*.yaml") if other != path)


MINING = [*sorted((ROOT / "mining").glob("*.yaml")), ROOT / "own_images" / "mine.yaml"]


@pytest.mark.parametrize("path", MINING, ids=lambda p: p.stem)
def test_a_mining_recipe_loads_and_names_a_backbone_of_paddleclas(path):
    config = load_mine(path)
    check_name(config.Teacher)
    assert config.protect and config.Select.top_k > 0
    assert path.read_text().startswith("#")
