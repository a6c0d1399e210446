"""The few shapes that everything in the training core speaks.

Dimensions, by name: `member` K, `critic` C, `batch` B, `sample` N, `dim` A (action components), `feature` F.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from dr3_ray.observations import Observations, Shape


class Transition(NamedTuple):
    """One minibatch for each of K members; a column that an algorithm does not ask for is None.

    `next_actions[k, b]` is what the behaviour policy did at s'; where `next_actions_valid` is False it is not known.
    Actions of a Box space lie in [-1, 1].
    """

    observations: Observations  # [K, B, *observation], or the parts of a dict observation by name
    actions: Tensor  # [K, B] integers, or [K, B, A]
    rewards: Tensor | None = None  # [K, B]
    next_observations: Observations | None = None  # as observations
    terminateds: Tensor | None = None  # [K, B], 0 or 1
    next_actions: Tensor | None = None  # [K, B] integers, or [K, B, A]
    next_actions_valid: Tensor | None = None  # [K, B], boolean
    monte_carlo_returns: Tensor | None = None  # [K, B]
    n_step_rewards: Tensor | None = None  # [K, B, n], 0 behind the last step taken; None: one step
    n_steps: Tensor | None = None  # [K, B], the number of steps from s to s', n or fewer


class Terms(NamedTuple):
    """Named losses and metrics, one number a member; the names are the logged keys."""

    losses: dict[str, Tensor]  # each [K]
    metrics: dict[str, Tensor]  # each [K], detached


class Backup(NamedTuple):
    """The facts about a backup that a regulariser may use: the features of (s, a), and the actions a'."""

    phi: Tensor  # [K, C, B, F], with gradient
    next_actions: Tensor  # [K, B] integers, or [K, B, A]; detached
    in_backup: Tensor  # [K, B], 1 where the row's (s', a') stands in a Bellman backup: not after a terminal step
    next_phi: Tensor | None = None  # φ(s', a'), as phi, where one pass found both


class Noise(NamedTuple):
    """The noise that an objective takes: name -> shape behind [K, B], or behind [K] where it is one draw a step."""

    normal: dict[str, tuple[int, ...]]
    uniform: dict[str, tuple[int, ...]]  # in [-1, 1), as the next
    uniform_per_step: dict[str, tuple[int, ...]] = {}  # noqa: RUF012 - a default of a tuple


@runtime_checkable
class Objective(Protocol):
    """A pure function of networks and tensors. `noise` holds what `Noise` declared.

    `networks` is the module that `AlgorithmSpec.networks` builds; its children are reached by name.
    """

    def __call__(
        self, networks: Any, batch: Transition, noise: dict[str, Tensor], step: int
    ) -> tuple[Terms, Backup | None]: ...


class Spaces(NamedTuple):
    """The facts about observation and action spaces that an algorithm has to know."""

    observation_shape: Shape
    action_kind: str  # "discrete" or "continuous"
    n_actions: int  # number of discrete actions, or of action components
