"""Filtered behaviour cloning takes the best episodes only, each member its own share."""

from typing import Any

import pytest
import torch

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.data.sampler import best_first
from dr3_ray.errors import UserError
from dr3_ray.training.member import Member


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_rows_come_from_the_best_episodes(kind: str, make_population: Any):
    members = [{"best_share": share, "seed": 1, "batch_size": 400} for share in (1.0, 0.05, 0.1)]
    population = make_population(find("BC", kind), members)  # 20 episodes of 10 rows, the last is the best
    rows = population.steps.batches.draws(slice(0, 3), 1)[0][0]
    assert [set((each // 10).tolist()) for each in rows] == [set(range(20)), {19}, {18, 19}]
    alone = make_population(find("BC", kind), members[2:])
    assert torch.equal(alone.steps.batches.draws(slice(0, 1), 1)[0][0, 0], rows[2])
    for each in (alone, population):
        each.update(3)
    torch.testing.assert_close(alone.steps.parts["actor"].values[0], population.steps.parts["actor"].values[2])


def test_real_data_have_better_best_episodes():
    data = load_dataset("embedded:breakout-replay")
    order, (rows,) = best_first(data.episodes, [0.1])
    taken = data.gather(order[:rows], ("episode_ids",))["episode_ids"].unique()
    returns = torch.from_numpy(data.episodes["returns"].copy())
    ids = torch.from_numpy(data.episodes["episode_ids"].copy())
    best = torch.isin(ids, taken)
    assert returns[best].min() >= returns[~best].max() and 0.1 <= rows / len(data) < 0.11


def test_no_share_fails():
    with pytest.raises(UserError, match="best_share = 0 is outside"):
        Member.from_dict(find("BC", "discrete"), {"best_share": 0})
