"""Populations that draw from a window: packs and lone runs, resuming, which rows are drawn, and what is refused."""

from typing import Any

import pytest
import torch

from dr3_ray.data import load_dataset
from dr3_ray.data.resident import Resident
from dr3_ray.data.sampler import CountingSampler
from dr3_ray.errors import UserError
from dr3_ray.training.batches import Batches
from dr3_ray.types import Noise
from tests.training.test_mixtures import PHASES
from tests.training.test_population import assert_equal, everything
from tests.training.twins import check_twins, population

PENDULUM, BREAKOUT = "embedded:pendulum-replay", "embedded:breakout-replay"
WINDOW = {"shuffle_window": 600}

pytestmark = pytest.mark.usefixtures("without_shape_checks")


@pytest.mark.parametrize(
    ("algorithm", "source", "options"),
    [
        ("DR3-IQL", PENDULUM, {}),
        ("DR3-IQL", PHASES, {"target_share": 0.5}),
        ("DR3-DQN", f"{BREAKOUT}?take=uniform:0.5", {"n_step": 3}),
    ],
)
@pytest.mark.parametrize("execution", ["in_turn", "stacked"])
def test_a_pack_is_its_lone_runs_and_goes_on_within_a_window(
    execution: str, algorithm: str, source: str, options: dict[str, Any]
) -> None:
    members = [{"seed": 1, **WINDOW}, {"seed": 2, **WINDOW}]
    members[1] |= options
    members[0] |= {name: value for name, value in options.items() if name == "n_step"}
    check_twins(source, members, algorithm, execution)


@pytest.mark.parametrize("counting", [False, True])
@pytest.mark.parametrize("source", [PENDULUM, PHASES])
def test_rows_are_drawn_from_the_window_alone_and_from_all_of_it(source: str, counting: bool) -> None:
    made = population(source, [WINDOW, {"seed": 3, **WINDOW}]).steps.batches
    if counting:
        made.sampler = CountingSampler([1, 1], 16, Noise({}, {}), [0, 3])
    for step in (0, 700):
        table = made._window.table(step, torch.device("cpu"))
        drawn = torch.cat([made.draws(slice(0, 2), 1, step)[0] for _ in range(400)])
        parts = made._parts[made.phase(step)].unique()
        inside = [table.row(torch.arange(int(table.rows[part])), part) for part in parts]
        assert set(drawn.flatten().tolist()) == set(torch.cat(inside).tolist())
        assert not torch.equal(drawn[:, 0], drawn[:, 1])


def test_no_window_and_one_of_all_rows_are_uniform_to_the_bit() -> None:
    found = [population(PENDULUM, [{"shuffle_window": rows}]) for rows in (0, 20_000)]
    for each in found:
        each.update(4)
    assert_equal(*map(everything, found))


def test_what_a_window_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match=r"best_share draws from some: name these by \?take=best:0\.5"):
        population(PENDULUM, [{"best_share": 0.5, **WINDOW}], "BC")
    made = population(PENDULUM, [WINDOW])
    there = Resident(load_dataset(PENDULUM), ("rewards",), torch.device("cpu"))
    options = made.steps.spec.options.stack([made.members[0].options])
    with pytest.raises(UserError, match="this GPU holds all rows: leave it out"):
        Batches(there, ("rewards",), options, Noise({}, {}), [0], made.networks)
