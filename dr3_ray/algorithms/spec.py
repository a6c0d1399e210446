"""What an algorithm consists of, and the options that all value-based ones share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from dr3_ray.networks.architecture import ENCODERS
from dr3_ray.networks.encoders import Generators
from dr3_ray.networks.precision import Precision
from dr3_ray.observations import Observations
from dr3_ray.options import Number, Options, choice, number
from dr3_ray.types import Noise, Objective, Spaces

HINDSIGHT = ("future", "final")  # which steps of its episode may give a row its goal
NO_NOISE = Noise(normal={}, uniform={})


@dataclass(frozen=True)
class AlgorithmSpec:
    """An algorithm on one kind of action space, made of pure functions of options, spaces and tensors.

    Everything in it is a pure function of options, spaces and tensors.

    `networks` builds a module whose children are named: child `x` is trained with the step size `x_lr`, child
    `target_x` follows child `x`. `act` maps networks and observations [K, B, ...] to the deterministic actions
    [K, B] or [K, B, A] of evaluation; it is None where the algorithm only evaluates the behaviour policy. `active`
    names the children that a gradient step trains (a delayed actor, a model that is trained first), by options that
    cannot differ inside a pack; None: all of them.
    """

    name: str
    action_kind: Literal["discrete", "continuous"]
    options: type[Options]
    networks: Callable[[Any, Spaces, Generators], nn.Module]
    objective: Callable[[Any], Objective]
    columns: tuple[str, ...]
    act: Callable[[Any, Observations], Tensor] | None
    noise: Callable[[Any, Spaces], Noise] = field(default=lambda options, spaces: NO_NOISE)
    has_critic: bool = True  # without one there is nothing to regularise
    active: Callable[[Any, int], frozenset[str]] | None = None


@dataclass(frozen=True)
class TrainingOptions(Options):
    """Options of every algorithm."""

    batch_size: int = choice(256, "transitions in a minibatch of one member")
    hidden_sizes: tuple[int, ...] = choice((256, 256), "widths of the ReLU layers, critic and actor alike")
    encoder: str | dict[str, str] = choice(
        "flat",
        "what reads images before `hidden_sizes`: `nature_cnn` (then 512), `impala` (256), `cog` (1024, 512, 256); or "
        "{name: encoder} for the parts of a dict observation",
        ENCODERS,
        by_name=True,
    )
    random_crop: int = choice(0, "images of a batch are moved by up to so many pixels (4: COG)", low=0)
    adam_eps: Number = number(1e-8, "Adam's ε", low=0.0)
    precision: Precision = choice(
        "fp32",
        "factors of matrix products: `bf16` rounds them to 8 bits, `tf32` to 11 on a GPU; sums stay in fp32",
        ("fp32", "tf32", "bf16"),
    )
    compile: bool = choice(
        False, "steps are compiled where a few of them show that it pays for its warm-up; equal up to rounding"
    )
    normalize_observations: bool = choice(
        False, "observations minus their mean over their standard deviation + 10⁻³, of the data (CORL: on)"
    )
    shuffle_window: int = choice(
        0,
        "rows that are held in memory, from which batches are drawn; they move on through the data; 0: all rows",
        low=0,
    )
    target_share: Number = number(
        0.0, "share of every batch of a mixture's target (its last weight); 0: as its weights say", low=0.0, high=1.0
    )


@dataclass(frozen=True)
class GoalOptions(TrainingOptions):
    """Options of every algorithm that can learn from other goals than the recorded ones."""

    hindsight: str = choice(
        "none",
        "goal data get goals that their own episode reached: one of its later steps' (`future`) or its `final` one; "
        "rewards, where they are learned from, become 0 at the goal and −1 elsewhere (HER)",
        ("none", *HINDSIGHT),
    )
    hindsight_ratio: Number = number(
        0.8, "share of rows that get another goal (HER: 0.8)", low=0.0, high=1.0, needs={"hindsight": HINDSIGHT}
    )


@dataclass(frozen=True)
class RewardOptions(GoalOptions):
    """Options of every algorithm that learns from rewards one by one."""

    hindsight_threshold: float = choice(
        0.0,
        "distance at which a goal is reached; 0: that at which the recorded rewards change",
        low=0,
        needs={"hindsight": HINDSIGHT},
    )
    hindsight_terminal: bool = choice(
        False, "an episode ends at its goal (OGBench: on; HER: off)", needs={"hindsight": HINDSIGHT}
    )
    reward_shift: Number = number(0.0, "is added to every reward (AntMaze in IQL and CORL: −1)")
    reward_scale: Number = number(1.0, "factor of every reward, after `reward_shift`", low=1e-9)
    reward_scaling: str = choice(
        "none",
        "`return_range`: rewards are divided by the range of the returns of the data's episodes (IQL and CORL, with "
        "`reward_scale` 1000)",
        ("none", "return_range"),
    )
    reward_clip: Number = number(0.0, "rewards are cut to ± this, after all else; 0: they are not (DQN: 1)", low=0.0)


@dataclass(frozen=True)
class CriticOptions(RewardOptions):
    """Options of every algorithm with a critic and a target critic."""

    gamma: Number = number(0.99, "discount", low=0.0, high=1.0)
    critic_lr: Number = number(3e-4, "Adam step size of the critic", low=0.0)
    tau: Number = number(0.005, "target ← (1 − τ) target + τ critic; 1 is a copy", low=0.0, high=1.0)
    target_period: int = choice(1, "gradient steps between two updates of the target")
