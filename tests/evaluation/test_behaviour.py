"""A model of the behaviour, and what episodes say of softened policies, on a gridworld whose values are known."""

import numpy as np
import pytest
import torch

from dr3_ray import UserError, load_dataset
from dr3_ray.data import from_episodes
from dr3_ray.data.reader import Dataset
from dr3_ray.evaluation.behaviour import clone_behaviour, valued_by_episodes, whole_episodes
from dr3_ray.evaluation.fqe import FQEOptions, fit_critics
from tests.algorithms import gridworld as grid
from tests.evaluation.test_fqe import greedy

pytestmark = pytest.mark.usefixtures("without_shape_checks")

WAYS = grid.probabilities(grid.SKEWED)


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """300 walks from field 0, uniform in a half of the choices and skewed in the other; none is longer than 60."""
    rng, chances = np.random.default_rng(0), ((WAYS + 0.25) / 2).numpy()
    table, episodes = np.eye(16, dtype=np.float32), []
    for _ in range(300):
        fields, actions = [0], []
        while fields[-1] not in grid.ENDS and len(actions) < 60:
            actions.append(rng.choice(4, p=chances[fields[-1]]))
            fields.append(grid.step(fields[-1], int(actions[-1] + rng.choice([0, 0, 1, -1])) % 4))
        rewards = [grid.ENDS.get(field, 0.0) for field in fields[1:]]
        ends = fields[-1] in grid.ENDS
        episodes.append(
            {"observations": table[fields], "actions": np.array(actions), "rewards": np.array(rewards, np.float32)}
            | {"terminated": ends, "truncated": not ends}
        )
    out = tmp_path_factory.mktemp("walks") / "data"
    with pytest.warns(UserWarning, match="duplicate-episodes"):
        from_episodes(episodes, out=out, action_space="discrete:4", gamma=grid.GAMMA)
    return load_dataset(out)


def test_both_estimates_of_softened_policies_lie_within_five_errors(walks: Dataset) -> None:
    behaviour = clone_behaviour(walks, {"hidden_sizes": [], "actor_lr": 0.01}, 700)
    logits = behaviour.actor(torch.eye(16).unsqueeze(0))[0]  # type: ignore[operator]
    assert (logits.softmax(-1)[1] - (WAYS[1] + 0.25) / 2).abs().max() < 0.08
    episodes = whole_episodes(walks, behaviour)
    assert int(episodes.made.sum()) == len(walks) and episodes.made[:, 0].all()
    assert (episodes.log_probabilities[~episodes.made] == 0).all()

    right = torch.nn.functional.one_hot(torch.full((16,), 1), 4).float()
    policies = greedy([right.tolist(), WAYS.float().tolist()], grid.SPACES)
    options = FQEOptions(hidden_sizes=(), gamma=grid.GAMMA, batch_size=256, critic_lr=0.01, tau=0.1)
    fitted = fit_critics(policies, walks, options, 700, seeds=2)
    found = valued_by_episodes(policies, fitted, walks, episodes, grid.GAMMA, soft=0.5)
    choices = torch.stack([right, torch.nn.functional.one_hot(WAYS.argmax(-1), 4).float()]).double()
    exact = [0.5 * each + 0.5 / 3 * (1 - each) for each in choices]
    values = torch.stack([(policy * grid.q_of(policy)).sum(-1)[0] for policy in exact])
    for name in ("wis", "dr"):
        assert ((found[name].value - values).abs() < 5 * found[name].error).all(), name
        assert ((found[name].effective > 5) & (found[name].effective < 300)).all() and found[name].error.max() < 0.2
    sharp = valued_by_episodes(policies, None, walks, episodes, grid.GAMMA)
    assert sharp.keys() == {"wis"} and (sharp["wis"].effective < found["wis"].effective).all()


def test_few_rows_are_whole_episodes_all_the_same(walks: Dataset) -> None:
    behaviour = clone_behaviour(walks, {"hidden_sizes": []}, 1)
    few = whole_episodes(walks, behaviour, most_rows=100)
    lengths, starts = torch.as_tensor(walks.episodes["lengths"]), torch.as_tensor(walks.episodes["offsets"])
    assert few.made.sum() <= 100 and set(few.rows[:, 0].tolist()) <= set(starts.tolist())
    assert set(few.made.sum(1).tolist()) <= set(lengths.tolist())
    assert len(whole_episodes(walks, behaviour, most_rows=1).rows) == 1


def test_what_has_no_weights_is_one_line(walks: Dataset) -> None:
    behaviour = clone_behaviour(walks, {"hidden_sizes": []}, 1)
    with pytest.raises(UserError, match="episodes have lost rows"):
        whole_episodes(load_dataset(f"{walks.path}?take=uniform:0.5"), behaviour)
    with pytest.raises(UserError, match="model of discrete actions"):
        clone_behaviour(load_dataset("embedded:pendulum-replay"), {}, 1)
