"""Recipes of data sets: which online learner plays where, for how long, and what is kept.

What is named `embedded:` in `RECIPES` comes with the package; MuJoCo's are for making at home. `recipe_of` makes one
for any other environment. Online DQN and SAC are our own: the objective of an offline algorithm on a buffer that grows
(SAC is continuous CQL with α = 0).
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from dr3_ray.algorithms.registry import find
from dr3_ray.data import SpaceSpec
from dr3_ray.errors import UserError, check_known
from dr3_ray.evaluation.environments import GYMNASIUM, is_ours, make_environment
from dr3_ray.evaluation.quality import EXPERT, MEDIUM, MEDIUM_REPLAY, QUALITIES, REPLAY
from dr3_ray.limits import read_count
from dr3_ray.training.member import Member
from dr3_ray.training.value_range import check_ranges

GAMMA = 0.99
STEPS = 100_000
RANDOM = "random"
PLAYER = "player"
UNTAUGHT = (RANDOM, PLAYER)  # algorithms that learn nothing


@dataclass(frozen=True)
class Recipe:
    """A way to collect one data set: the replay of `steps` of learning, or what the policy plays after it.

    `keep` is the share of the rows that is written, drawn uniformly. With `policy_steps`, only that many steps of the
    learned policy are written, played with the noise it explores with. `random` and `player` learn nothing.
    """

    environment: str
    algorithm: str
    options: dict[str, Any]
    steps: int
    policy_steps: int = 0
    keep: float = 1.0
    warm_up: int = 1000  # steps of random actions before the first update
    seed: int = 0
    exploration: tuple[float, float, float] = field(default=(1.0, 0.05, 0.3))  # ε: from, to, by this share of the steps
    gamma: float = GAMMA
    name: str = ""
    quality: str = REPLAY
    medium_return: float | None = None
    checks: int = 20  # how often the policy is played for its return, if the quality asks for it


BREAKOUT = Recipe(
    environment="minatar:breakout",
    algorithm="DR3-DQN",
    options={"critic_lr": 2.5e-4, "batch_size": 32, "target_period": 1000, "dr3_coeff": 0.0},
    steps=300_000,
    keep=0.1,
    warm_up=5000,
)
HALFCHEETAH = Recipe(
    environment="gymnasium:HalfCheetah-v5",
    algorithm="DR3-CQL",
    options={
        "cql_alpha": 0.0,
        "dr3_coeff": 0.0,
        "n_sampled_actions": 1,
        "entropy_backup": True,
        "hidden_sizes": [128, 128],
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "temperature_lr": 1e-3,
    },
    steps=60_000,
)
OTHER_MINATAR = ("asterix", "freeway", "seaquest", "space_invaders")
RECIPES = {
    "embedded:breakout-replay": BREAKOUT,
    "embedded:pendulum-replay": Recipe(
        environment="gymnasium:Pendulum-v1",
        algorithm="DR3-CQL",
        options={
            "cql_alpha": 0.0,
            "dr3_coeff": 0.0,
            "n_sampled_actions": 1,
            "hidden_sizes": [64, 64],
            "actor_lr": 1e-3,
            "critic_lr": 1e-3,
            "temperature_lr": 1e-3,
        },
        steps=20_000,
    ),
    "halfcheetah-replay": HALFCHEETAH,
    "halfcheetah-medium": replace(HALFCHEETAH, policy_steps=60_000),
    **{f"{game}-replay": replace(BREAKOUT, environment=f"minatar:{game}") for game in OTHER_MINATAR},
}
LEARNERS = {
    "dqn": ("DR3-DQN", "discrete", {"critic_lr": 5e-4, "batch_size": 64, "target_period": 500, "dr3_coeff": 0.0}),
    "sac": ("DR3-CQL", "continuous", HALFCHEETAH.options),
}


def preset(
    name: str, steps: int | None = None, *, environment: str | None = None, keep: float | None = None, seed: int = 0
) -> Recipe:
    """Return the recipe of this name, in another `environment`, with other `steps`, share to `keep` and `seed`.

    Raises:
        UserError: there is none.
    """
    check_known("recipe", [name], RECIPES)
    recipe = replace(RECIPES[name], name=name.removeprefix("embedded:"), seed=seed)
    if environment:
        recipe = replace(recipe, environment=environment, name=environment)
    if steps:
        recipe = replace(recipe, steps=steps, policy_steps=min(steps, recipe.policy_steps))
    return recipe if keep is None else replace(recipe, keep=keep)


def recipe_of(
    source: str,
    learner: str | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    keep: float | None = None,
    settings: Mapping[str, Any] | None = None,
    player: str | None = None,
    quality: str | None = None,
    medium_return: float | None = None,
) -> Recipe:
    """Return the recipe of this name, or one for the environment of this name.

    Args:
        source: of `RECIPES`, or what `make_environment` takes.
        learner: `dqn`, `sac` or `random`; None: `dqn` where actions are discrete, else `sac`.
        steps: of the environment; None: the preset's, or 100,000.
        seed: of the first episode, which counts up, of the networks and of all draws.
        keep: the share of rows to be written; None: the preset's, or all.
        settings: the learner's options of `docs/options.md`, and `warm_up`: steps of random actions before the first
            update, and `checks`: how often the policy is played for its return.
        player: what somebody who plays in the learner's place is called.
        quality: of `QUALITIES`; None: the replay.
        medium_return: the return that makes a policy medium; None: a third of the way from a random one's to the last.

    Raises:
        UserError: no such recipe, environment, learner or option, or a learner that does not fit the actions.
    """
    if source in RECIPES or source.startswith("embedded:"):
        if given := learner or player:
            raise UserError(f"{source} has its own learner: leave out --learner {given}, or name an environment")
        if quality:
            raise UserError(f"{source} is a recipe as it is: leave out --quality {quality}, or name an environment")
        return _with(preset(source, steps, keep=keep, seed=seed), settings or {})
    if quality:
        check_known("quality", [quality], QUALITIES)
    if medium_return is not None and quality not in (MEDIUM, MEDIUM_REPLAY):
        raise UserError("--medium-return says what medium is: give --quality medium or medium-replay, too")
    if quality and (player or learner == RANDOM):
        raise UserError(f"--learner {player or learner} learns nothing: leave out --quality {quality}")
    if learner:
        check_known("learner", [learner], (*LEARNERS, RANDOM))
    environment = make_environment(source)
    actions = SpaceSpec.of_actions(environment.action_space)
    environment.close()  # type: ignore[no-untyped-call]
    kind = "discrete" if actions.kind == "discrete" else "continuous"
    chosen = player or learner or next(name for name, (_, fits, _) in LEARNERS.items() if fits == kind)
    untaught: tuple[str, str, dict[str, Any]] = (PLAYER if player else RANDOM, kind, {})
    algorithm, fits, options = untaught if player else LEARNERS.get(chosen, untaught)
    if fits != kind:
        raise UserError(f"{chosen} plays {fits} actions, and those of {source} are {kind}: take another --learner")
    total = steps or STEPS
    recipe = Recipe(
        environment=source if is_ours(source) else f"{GYMNASIUM}{source}",
        algorithm=algorithm,
        options=options,
        steps=total,
        keep=1.0 if keep is None else keep,
        warm_up=min(1000, max(1, total // 10)),
        seed=seed,
        policy_steps=total if quality in (MEDIUM, EXPERT) else 0,
        quality=quality or REPLAY,
        medium_return=medium_return,
        name=f"{source.rpartition(':')[2]}-{chosen}" + ("" if algorithm in UNTAUGHT else f"-{quality or REPLAY}"),
    )
    return _with(recipe, settings or {}, kind)


def _with(recipe: Recipe, settings: Mapping[str, Any], kind: str | None = None) -> Recipe:
    """Return a recipe with settings of its learner."""
    kind = kind or next(fits for algorithm, fits, _ in LEARNERS.values() if algorithm == recipe.algorithm)
    options, own = dict(settings), {}
    for name in {"warm_up", "checks"} & options.keys():
        own[name] = options.pop(name)
        if isinstance(own[name], str):
            with suppress(ValueError):  # which is said below
                own[name] = read_count(own[name])
        if type(own[name]) is not int or own[name] < 1:
            raise UserError(f"{name} is {own[name]!r}: give a whole number, 1 or more")
    if "gamma" in options:
        own["gamma"] = options.pop("gamma")
        if type(own["gamma"]) not in (int, float) or not 0 <= own["gamma"] <= 1:
            raise UserError(f"gamma is {own['gamma']!r}: choose a discount between 0 and 1")
    if recipe.algorithm in UNTAUGHT and (options or own.keys() - {"gamma"}):
        raise UserError(f"--learner random has no option but gamma: leave out {', '.join(settings)}")
    alone = {"n_step": 1, "compile": False, "seed": recipe.seed, "shuffle_window": 0, "reward_scaling": "none"}
    for name, only in alone.items():
        if options.get(name, only) != only:
            raise UserError(f"an online learner has {name}={only} alone: leave out {name}={options[name]}")
    if "checks" in own and recipe.quality == REPLAY:
        raise UserError("checks belong to a --quality other than replay: leave out checks, or give one")
    changed = replace(recipe, options={**recipe.options, **options}, **own)
    if changed.algorithm not in UNTAUGHT:
        check_ranges([member_of(changed, kind)], None)
    return changed


def member_of(recipe: Recipe, kind: str) -> Member:
    """Return the learner, on discrete or continuous actions.

    Raises:
        UserError: an option of it is not acceptable.
    """
    values = recipe.options | {"gamma": recipe.gamma, "seed": recipe.seed}
    return Member.from_dict(find(recipe.algorithm, kind), values)
