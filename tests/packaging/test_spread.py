"""Which combinations of parameters the fast tests run."""

from typing import Any

import pytest


@pytest.fixture(params=["x", "y"])
def made(request: Any) -> str:
    return str(request.param)


@pytest.mark.spread(2)
@pytest.mark.parametrize(("size", "name"), [(0, "none"), (1, "one"), (2, "two")])
@pytest.mark.parametrize("flag", [False, True])
def test_a_spread_meets_every_pair_of_values(flag: bool, size: int, name: str, made: str, request: Any):
    same = [item for item in request.session.items if getattr(item, "originalname", "") == request.node.originalname]
    fast = [item.callspec.params for item in same if not any(mark.name == "slow" for mark in item.own_markers)]
    found = {(each["flag"], each["size"], each["made"]) for each in fast}
    assert found == {
        (flag, size, made)
        for flag in (False, True)
        for size in (0, 1, 2)
        for made in "xy"
        if (flag + size + "xy".index(made)) % 2 == 0
    }
