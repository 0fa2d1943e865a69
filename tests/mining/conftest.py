"""A world to mine in, and what one run made of it."""

import pytest

from mining_world import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def mined(world):
    return world.mine()
