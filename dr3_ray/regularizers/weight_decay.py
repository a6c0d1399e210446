"""Weight decay of the critic, decoupled from its gradient (AdamW)."""

from dataclasses import dataclass

from dr3_ray.options import Number, Options, number
from dr3_ray.regularizers.spec import Regularizer


@dataclass(frozen=True)
class WeightDecay(Options):
    """The λ of AdamW; the optimiser of the child `critic` reads it by its name."""

    critic_weight_decay: Number = number(
        0.0, "λ: a step of Adam also takes step size · λ of every parameter of the critic (AdamW)", low=0.0
    )


REGULARIZER = Regularizer("weight_decay", WeightDecay)
