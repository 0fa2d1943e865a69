"""Training takes targets only for the images that they were written for, not for others of the same names."""

import shutil

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.data.lists import read_source
from ppcls_ssld.engine.stored import StoredTeacher
from ppcls_ssld.engine.task import build_loss
from ppcls_ssld.errors import DataError
from ppcls_ssld.targets import TargetStore

from world import changed

MODES = pytest.mark.parametrize("mode", ["eval", "batch_stats"])


@pytest.fixture
def train(write, tree):
    """train(roots) -> what StoredTeacher says when training starts with these root folders."""
    def make(first, second, mode="eval", **changes):
        folder, _ = write("store", Arch__Teacher__bn_mode=mode, **changes)
        config = resolve(changed(tree, Arch__Teacher__bn_mode=mode, DataLoader__Train__sources=[
            {**source, "root": str(root)} for source, root in zip(tree["DataLoader"]["Train"]["sources"],
                                                                  (first, second))]))
        lists = [read_source(source, 4) for source in config.DataLoader.Train.sources]
        return StoredTeacher("Teacher", TargetStore(folder)).check(config, build_loss(config), lists)

    return make


@pytest.fixture
def others(folder, tmp_path):
    """Images of the same names; every one but the first is that of another name."""
    shutil.copytree(folder, tmp_path / "others")
    names = sorted(path.name for path in folder.glob("*.jpg"))
    for name, other in zip(names[1:], [*names[2:], names[1]]):
        shutil.copy(folder / other, tmp_path / "others" / name)
    return tmp_path / "others"


@MODES
def test_moved_images_are_taken(train, folder, tmp_path, mode):
    shutil.copytree(folder, tmp_path / "moved")
    assert train(folder, folder, mode) == train(tmp_path / "moved", folder, mode) == []


@MODES
def test_other_images_of_the_same_names_are_refused_by_the_first(train, folder, others, mode):
    for first, second, name in ((others, folder, "01.jpg"), (folder, others, "16.jpg"), (others, others, "01.jpg")):
        said = rf"^{others}/{name}: is not the image that .*store was written for.*correct the root folders"
        with pytest.raises(DataError, match=said):
            train(first, second, mode)


def test_images_that_cannot_be_read_are_left_to_the_reader(train, tmp_path):
    assert train(tmp_path / "nowhere", tmp_path / "nowhere") == []


def test_images_that_could_not_be_read_then_are_not_compared(train, folder, tree, tmp_path):
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "03.jpg").write_bytes(b"")
    sources = [{**source, "root": str(tmp_path / "broken")} for source in tree["DataLoader"]["Train"]["sources"]]
    skipping = {"DataLoader__Train__sources": sources, "DataLoader__Train__on_corrupt": "skip"}
    assert train(folder, folder, **skipping) == []
