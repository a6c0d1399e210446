"""The beginning of a population with what others have learned: networks and moments of Adam, member by member."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dr3_ray.data.sampler import CountingSampler, generator, key
from dr3_ray.training.population import Population, state_of

Tensors = Mapping[str, Tensor]


class Beginning(NamedTuple):
    """The end of a trained member, from which another one begins."""

    name: str
    """By which it is told from others: it decides, with the new member's seed, which batches that one draws."""
    networks: Tensors
    """Parameters and buffers of the networks by name, without the dimension of members."""
    adam: Mapping[str, Tensors]
    """Of each trained part the moments [P] and the number of steps."""

    @classmethod
    def of(cls, name: str, networks: Tensors, state: Mapping[str, Any], row: int) -> "Beginning":
        """Return that of the member at a `row` of stacked networks and the `state_dict` of their population."""
        own = {child: values[row] if is_of_members(child) else values for child, values in networks.items()}
        adam = state_of(state["adam"], [row])
        return cls(name, own, {part: {child: values[0] for child, values in of.items()} for part, of in adam.items()})


def is_of_members(name: str) -> bool:
    """Return whether a tensor of the networks has a dimension of members: buffers of the whole have none."""
    return "." in name


def begin_from(population: Population, beginnings: Sequence[Beginning], anew: Sequence[bool] = ()) -> None:
    """Have every member of a population that has not begun go on from another one, in place.

    Weights, targets, statistics of observations and the moments of Adam are the other's. Steps are counted from 0, and
    batches and noise come from a stream of their own, which repeats none of the other's. Children of the networks that
    the other lacks stay as they begin, and so do those of regularisers (an adaptive c₀) for a member with `anew`.

    Raises:
        ValueError: a network of the other has another form.
    """
    fresh = anew or [False] * len(beginnings)
    own = population.networks.state_dict()
    with torch.no_grad():
        for row, (beginning, member) in enumerate(zip(beginnings, population.members, strict=True)):
            there = {name.partition(".")[0] for name in beginning.networks}
            if fresh[row]:
                there -= {name for name in population.steps.parts if member.follows_critic(name)}
            for name, values in own.items():
                if name.partition(".")[0] in there:
                    _copy(name, values[row] if is_of_members(name) else values, beginning.networks)
            for name, part in population.steps.parts.items():
                if name in there and name in beginning.adam:
                    state = part.adam.state_dict()
                    for child, values in state.items():
                        _copy(child, values[row], beginning.adam[name])
                    part.adam.load_state_dict(state)  # which looks whether all have made equally many steps
    _begin_streams(population, [beginning.name for beginning in beginnings])


def _copy(name: str, values: Tensor, there: Tensors) -> None:
    if name not in there or there[name].shape != values.shape:
        shape = tuple(there[name].shape) if name in there else "nothing"
        raise ValueError(f"{name} has shape {tuple(values.shape)}, and {shape} is there")
    values.copy_(there[name])


def _begin_streams(population: Population, names: Sequence[str]) -> None:
    """Give every member a stream of batches, and of its layers' noise, that depends on its seed and on a name."""
    seeds = [member.seed for member in population.members]
    sampler, device = population.steps.batches.sampler, population.device
    for row, (seed, name) in enumerate(zip(seeds, names, strict=True)):
        if isinstance(sampler, CountingSampler):
            sampler.state_dict()["keys"][row].copy_(torch.tensor(key(seed, f"sampler after {name}")))
        else:
            sampler.generators[row].set_state(generator(seed, f"sampler after {name}").get_state())
        for stream, sources in population.steps.layer_noise.items():
            sources[row].set_state(generator(seed, f"{stream} after {name}", device).get_state())
