"""The distribution over actions that augmented copies of a state have in the mean, and its entropy.

MEMO (Zhang, Levine & Finn, arXiv 2110.09506), as in the authors' code.
"""

import math

from jaxtyping import Float
from torch import Tensor


def log_marginal(logits: Float[Tensor, "*batch copy action"]) -> Float[Tensor, "*batch action"]:
    """Return log p̄(a) = log (1/n) Σ_i softmax(z_i)(a), over n copies (eq. 1)."""
    return logits.log_softmax(-1).logsumexp(-2) - math.log(logits.shape[-2])


def marginal_entropy(logits: Float[Tensor, "*batch copy action"]) -> Float[Tensor, "*batch"]:
    """Return H(p̄) = −Σ_a p̄(a) log p̄(a), in nats, of the mean over copies (eq. 2)."""
    log_probs = log_marginal(logits)
    return -(log_probs.exp() * log_probs).sum(-1)
