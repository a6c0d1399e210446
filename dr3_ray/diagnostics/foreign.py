"""A diagnosis of anybody's critic: features by a forward hook, all else by calling it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dr3_ray.diagnostics.diagnosis import HELD_OUT, Diagnosis, Probe
from dr3_ray.diagnostics.hooked import PENULTIMATE, Evaluate, Evaluated, HookedCritic, Observations, evaluated
from dr3_ray.diagnostics.measuring import (
    DRAWS,
    Pairs,
    of_features,
    of_pairs,
    of_returns,
    of_values,
    policy_distance,
    spectrum_of,
)
from dr3_ray.diagnostics.verdict import findings_of, nothing_wrong, one_moment
from dr3_ray.errors import UserError, check_known
from dr3_ray.losses.td import bellman_target, masked_mean

NEEDED = ("observations", "actions", "next_observations", "terminateds")
MORE = ("rewards", "next_actions", "next_actions_valid", "monte_carlo_returns")


class Read(NamedTuple):
    """A batch as the critic takes it, and the flags of its rows."""

    observations: Observations
    actions: Tensor
    next_observations: Observations
    terminateds: Tensor  # [B]
    more: dict[str, Tensor]


def diagnose(
    critic: nn.Module,
    batch: Mapping[str, Any],
    features: str = PENULTIMATE,
    gamma: float = 0.99,
    policy: Callable[[Any], Any] | None = None,
    evaluate: Evaluate | None = None,
    held_out: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Measure any critic on a batch, and say what is wrong with it.

    Args:
        critic: A module that is called as `critic(observations, actions)`, with Q [B] or [B, 1], or for whole-numbered
            actions as `critic(observations)`, with Q of every action [B, n]. It is left as it was.
        batch: `observations`, `actions` ([B, A] of floats, or [B] of whole numbers), `next_observations` and
            `terminateds`; where they are known `rewards`, `next_actions` of the data with `next_actions_valid`, and
            `monte_carlo_returns`. Arrays or tensors as the critic takes them, 2,048 rows or more.
        features: `penultimate`, the input of the last linear layer that is called; or the name of a module, whose
            output is taken.
        gamma: The discount.
        policy: The actions of the backup at next observations; without it a' is the argmax of a critic that gives every
            action's Q, or else the data's.
        evaluate: Calls the critic in another way: `evaluate(critic, observations, actions)` returns Q as above.
        held_out: A batch of episodes that the critic was not trained on.

    Returns:
        A `Diagnosis`: `print` shows it, `to_dict()` is for programs, `wrong` names what is wrong.

    Raises:
        UserError: a column is missing or unknown or of another length, or no such features are found.
    """
    if not 0.0 <= gamma <= 1.0:
        raise UserError(f"gamma is {gamma}: give a discount between 0 and 1")
    probes, notes = {}, set()
    with evaluated(critic), torch.no_grad():
        for name, rows in {"batch": batch, HELD_OUT: held_out}.items():
            if rows is not None:
                measuring = HookedCritic(critic, features, evaluate)
                probes[name] = _probe(measuring, _read(critic, rows), gamma, policy)
                notes |= measuring.notes
    if held_out is None:
        notes.add("no held-out rows: give held_out=, or overfitting cannot be told")
    findings = findings_of(probes)
    about = {"critic": type(critic).__name__, "features": features, "gamma": gamma}
    return Diagnosis(probes, nothing_wrong([*findings, one_moment(probes["batch"])]), sorted(notes), about)


def _probe(critic: HookedCritic, batch: Read, gamma: float, policy: Callable[[Any], Any] | None) -> Probe:
    """Measure a critic on a batch."""
    here = critic.at(batch.observations, batch.actions)
    n, discrete = len(here.q), not batch.actions.is_floating_point()
    goes_on, discounts = 1.0 - batch.terminateds, torch.full((n,), gamma, device=here.q.device)
    choices: dict[str, tuple[Tensor, Tensor]] = {}
    chosen = None
    if policy is not None:
        chosen = _actions(policy(batch.observations), batch.actions)
        choices["policy"] = _actions(policy(batch.next_observations), batch.actions), goes_on
    if discrete:
        every = critic.at(batch.next_observations, batch.actions).every
        if every is not None:
            choices["argmax"] = every.argmax(-1), goes_on
    if "next_actions" in batch.more:
        valid = batch.more.get("next_actions_valid", torch.ones_like(goes_on))
        choices["data"] = batch.more["next_actions"], goes_on * valid
    if not choices:
        raise UserError("a' is not known: give next_actions in the batch, or policy=")
    pairs, targets = {}, None
    for choice, (actions, in_backup) in choices.items():
        there = critic.at(batch.next_observations, actions)
        same = (actions == batch.actions).reshape(n, -1).all(-1)
        measured = _pairs(critic.head, here, there, same, in_backup, discounts)
        pairs[choice] = of_pairs(here.phi.unsqueeze(0), measured, batch.terminateds)
        if targets is None and "rewards" in batch.more:
            rows = torch.maximum(in_backup, batch.terminateds)
            targets = bellman_target(batch.more["rewards"], batch.terminateds, there.q, gamma), rows
    q_policy = None if chosen is None else critic.value(batch.observations, chosen)
    drawn = torch.stack(
        [critic.value(batch.observations, actions) for actions in _random(batch.actions, here.every)], -1
    )
    numbers = of_features(here.phi.unsqueeze(0)) | of_values(here.q, drawn, q_policy)
    if targets is None:
        critic.notes.add("no rewards in the batch: the TD error is not measured")
    else:
        numbers["td_error"] = masked_mean((here.q - targets[0]).square(), targets[1]).item()
    if "monte_carlo_returns" in batch.more:
        every_row = torch.ones_like(here.q, dtype=torch.bool)
        numbers |= of_returns(here.q, batch.more["monte_carlo_returns"], every_row)
    else:
        critic.notes.add("no monte_carlo_returns in the batch: over-estimation is not measured")
    if chosen is not None:
        numbers["policy_distance"] = policy_distance(chosen, batch.actions)
    return Probe(n, numbers, pairs, spectrum_of(here.phi.unsqueeze(0)))


def _pairs(
    head: nn.Linear | None,
    here: Evaluated,
    there: Evaluated,
    same: Tensor,
    in_backup: Tensor,
    discounts: Tensor,
) -> Pairs:
    """Return pairs of one choice of a'; `same` [B] says where it is the action of (s, a).

    R_TD is that of the last linear layer, or where φ is the output of a named one, without a bias: as DR3 has it.
    """
    one_an_action = head is not None and here.every is not None and head.out_features == here.every.shape[1]
    share = same.to(in_backup.dtype) if one_an_action else torch.ones_like(in_backup)
    bias = 1.0 if head is not None and head.bias is not None else 0.0
    return Pairs(there.phi.unsqueeze(0), in_backup, discounts, share, 1, bias)


def _read(critic: nn.Module, batch: Mapping[str, Any]) -> Read:
    """Read a batch as tensors where the critic lies.

    Raises:
        UserError: a column is missing, unknown, or of another length.
    """
    check_known("column", batch, (*NEEDED, *MORE))
    if missing := [name for name in NEEDED if name not in batch]:
        raise UserError(f"the batch has no {missing[0]}: give {', '.join(NEEDED)}")
    like = next(critic.parameters(), torch.zeros(()))

    def tensor(values: Any) -> Tensor:
        converted = torch.as_tensor(values).detach()
        return converted.to(like.device, like.dtype if converted.is_floating_point() else converted.dtype)

    def column(values: Any) -> Any:
        return {key: tensor(part) for key, part in values.items()} if isinstance(values, Mapping) else tensor(values)

    columns = {name: column(values) for name, values in batch.items()}
    actions = columns["actions"]
    if not actions.is_floating_point():
        for name in {"actions", "next_actions"} & columns.keys():
            columns[name] = columns[name].long().reshape(len(columns[name]))
    n = len(actions)
    lengths = {
        name: [len(part) for part in (x.values() if isinstance(x, dict) else [x])] for name, x in columns.items()
    }
    if wrong := [name for name, length in lengths.items() if set(length) != {n}]:
        raise UserError(f"{wrong[0]} has {lengths[wrong[0]][0]} rows, actions {n}: give equally many")
    if not n:
        raise UserError("the batch is empty: give 2,048 rows or so")
    for name in {"terminateds", "rewards", "next_actions_valid", "monte_carlo_returns"} & columns.keys():
        columns[name] = columns[name].float().reshape(n)
    more = {name: values for name, values in columns.items() if name in MORE}
    return Read(columns["observations"], columns["actions"], columns["next_observations"], columns["terminateds"], more)


def _actions(given: Any, like: Tensor) -> Tensor:
    """Return a policy's actions as those of the batch.

    Raises:
        UserError: they have another shape or type.
    """
    actions = torch.as_tensor(given).detach().to(like.device)
    actions = actions.to(like.dtype) if actions.is_floating_point() == like.is_floating_point() else actions
    if actions.dtype != like.dtype or actions.numel() != like.numel():
        raise UserError(
            f"the policy gives {actions.dtype} of shape {tuple(actions.shape)}, the data have {like.dtype} of shape "
            f"{tuple(like.shape)}: give the like"
        )
    return actions.reshape(like.shape)


def _random(actions: Tensor, every: Tensor | None) -> Tensor:
    """Draw random actions [draw, *actions], the same every time: of all choices, or uniform in the data's range."""
    source = torch.Generator().manual_seed(0)
    if actions.is_floating_point():
        low, high = actions.amin(0), actions.amax(0)
        uniform = torch.rand(DRAWS, *actions.shape, generator=source).to(actions)
        return low + uniform * (high - low)
    choices = int(actions.max()) + 1 if every is None else every.shape[1]
    return torch.randint(choices, (DRAWS, *actions.shape), generator=source).to(actions.device)
