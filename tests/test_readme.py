"""What the README shows can be used as it stands."""

import argparse
import re
from pathlib import Path

from ppcls_ssld.cli import mine
from ppcls_ssld.cli.main import VERBS
from ppcls_ssld.loss.terms import LOSSES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_config_in_the_readme_is_the_shipped_one():
    shown = re.search(r"```yaml\n(.*?)```", README, re.S)[1]
    assert (ROOT / "configs" / "own_images" / "ssld.yaml").read_text().endswith(f"\n{shown}")


def test_files_and_links_that_the_readme_names_exist():
    names = re.findall(r"(?:tools|deploy|docs|benchmarks|configs|ppcls_ssld/loss)/[\w./-]*\w", README)
    missing = [n for n in names if not (ROOT / n).exists() and not n.startswith(("configs/ImageNet", "docs/zh_CN"))]
    assert len(names) > 10 and not missing


def test_losses_and_verbs_that_the_readme_names_exist():
    table = README[README.index("## Losses"):README.index("## Troubleshooting")]
    for name in re.findall(r"`([A-Z]\w+(?:KL|Loss|Divergence|Entropy|DMLLoss))`", table):
        assert name in LOSSES.names(), name
    for verb in re.search(r"`ppcls-ssld ([\w|]+)`", README)[1].split("|"):
        assert verb in VERBS


def test_flags_that_the_mining_page_names_exist():
    parser = argparse.ArgumentParser()
    mine.add_arguments(parser)
    known = {flag for action in parser._actions for flag in action.option_strings}
    for page in (README, (ROOT / "docs" / "mining.md").read_text()):
        for command in re.findall(r"(?:ppcls-ssld mine|tools/mine.py)((?:[^\n`]|\\\n)*)", page):
            assert set(re.findall(r"--[a-z][\w-]*", command)) <= known, command
    for flag in re.findall(r"`(--[a-z][\w-]*)", (ROOT / "docs" / "mining.md").read_text()):
        assert flag in known, flag
