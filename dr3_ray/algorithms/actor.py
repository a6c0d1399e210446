"""Regularised actors: LayerNorm, dropout and weight decay (Tarasov et al., arXiv 2409.07606), for all that have one."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dr3_ray.errors import UserError
from dr3_ray.networks.stochastic import Dropout
from dr3_ray.options import Number, Options, choice, largest, number


@dataclass(frozen=True)
class ActorOptions(Options):
    """Options of every algorithm with an actor; the optimiser of the child `actor` reads the last one by its name."""

    actor_layer_norm: bool = choice(False, "LayerNorm behind every ReLU of the actor (arXiv 2409.07606)")
    actor_dropout: Number = number(
        0.0,
        "share of the actor's activations that its own update sets to 0; acting and targets have none",
        0.0,
        0.95,
    )
    actor_weight_decay: Number = number(
        0.0, "λ: a step of Adam also takes step size · λ of every parameter of the actor (AdamW)", low=0.0
    )


def check_actor(options: Any) -> None:
    """Check that what stacked options ask for has hidden layers to stand behind.

    Raises:
        UserError: there is no hidden layer.
    """
    if not isinstance(options, ActorOptions) or options.hidden_sizes:  # type: ignore[attr-defined]
        return
    for name in ("actor_dropout", "actor_layer_norm"):
        if largest(getattr(options, name)):
            raise UserError(f"{name} needs a hidden layer: give hidden_sizes, or leave it out")


def regularize_actor(networks: nn.Module, options: Any) -> None:
    """Put what stacked options ask for behind every hidden layer of the actor and its target, both just built."""
    if not isinstance(options, ActorOptions):
        return
    drops = largest(options.actor_dropout) > 0.0
    for name in ("actor", "target_actor"):
        if not hasattr(networks, name) or not (options.actor_layer_norm or drops):
            continue
        actor: Any = networks.get_submodule(name)
        if options.actor_layer_norm:
            actor.encoder.normalize_layers()
        if drops:
            actor.encoder.dropout = Dropout(torch.as_tensor(options.actor_dropout), "actor_dropout")
        actor.requires_grad_(name == "actor")
