"""What every population owes to its members: a pack is its lone runs, and goes on where it was."""

import copy
from typing import Any

import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from tests.training.test_population import assert_equal, everything

TINY = {"hidden_sizes": [8], "batch_size": 16}


def population(source: str, members: list[dict[str, Any]], algorithm: str = "DR3-IQL", **how: Any) -> Population:
    data = load_dataset(source)
    spec = find(algorithm, data.spaces.action_kind)
    return Population.of(spec, [Member.from_dict(spec, TINY | member) for member in members], data, data.spaces, **how)


def check_twins(
    source: str, members: list[dict[str, Any]], algorithm: str, execution: str, resumed: tuple[int, ...] = (3,)
) -> None:
    """Nine updates of a pack are those of its members alone, and of packs that go on after 3 or 7 of them."""
    pack, saved, done = population(source, members, algorithm, execution=execution), {}, 0
    for updates in (3, 4, 2):
        pack.update(updates)
        done += updates
        saved[done] = copy.deepcopy((pack.networks.state_dict(), pack.state_dict()))
        pack.probe()
    found = everything(pack)
    for row, member in enumerate(members):
        alone = population(source, [member], algorithm, execution=execution)
        alone.update(9)
        for name, values in everything(alone).items():
            ours = found[name] if name.startswith("observation_") else found[name][row : row + 1]  # that is everybody's
            torch.testing.assert_close(ours, values, rtol=1e-4, atol=1e-5)
            assert execution == "stacked" or torch.equal(ours, values), name
    for updates in resumed:
        again = population(source, members, algorithm, execution=execution)
        again.networks.load_state_dict(saved[updates][0])
        again.load_state_dict(saved[updates][1])
        for more in {3: (2, 4), 7: (2,)}[updates]:
            again.update(more)
        assert_equal(everything(again), found)
