"""DR3 in somebody else's learner: `with_dr3_learner(SomeTorchLearner)`, and stock RLlib modules that expose features.

Options stand in the learner's own settings, `config.learners(learner_config_dict={"dr3_coeff": 0.03})`: that dict is
what RLlib gives every learner, local or remote, and what Tune can search in an ordinary `param_space`.
"""

import warnings
from collections import Counter, defaultdict
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.utils.typing import StateDict
from torch import Tensor, nn

from dr3_ray.diagnostics.features import feature_statistics
from dr3_ray.errors import UserError
from dr3_ray.regularizers.dr3 import DR3, dr3_penalty, schedule
from dr3_ray.rllib.learner import PopulationLearner

OPTIONS = ("dr3_coeff", "dr3_form", "dr3_stop_gradient", "dr3_mask_terminals", "dr3_warmup_steps")


@runtime_checkable
class ExposesFeatures(Protocol):
    """The one method that a module needs for `with_dr3_learner`."""

    def dr3_features(self, batch: dict[str, Any], fwd_out: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the features of every critic in this batch: name -> (φ(s, a), φ(s', a')), each [B, F].

        φ is the input of the critic's last linear layer (`penultimate` finds it), both times of the online network and
        with gradient; s' is `batch["new_obs"]` and a' the action of the Bellman backup, without gradient. A learner
        with one optimizer a network, as stock SAC, finds its critics by the optimizers' names: `qf`, `qf_twin`.

        Args:
            batch: The learner's minibatch, RLlib's columns.
            fwd_out: What `forward_train` returned for it.
        """


def penultimate(head: nn.Module, *inputs: Any) -> Tensor:
    """Return φ: the input of the last `nn.Linear` of `head` while `head(*inputs)` runs, with gradient."""
    layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UserError(f"{type(head).__name__} has no nn.Linear: return φ, the input of its last layer, yourself")
    entered: list[Tensor] = []
    hook = layers[-1].register_forward_pre_hook(lambda layer, given: entered.append(given[0]))
    try:
        head(*inputs)
    finally:
        hook.remove()
    return entered[0]


class DR3Learner(TorchLearner):
    """The mixin behind `with_dr3_learner`: `class MyLearner(DR3Learner, DQNTorchLearner)` is the same by hand."""

    def build(self) -> None:
        """Build the base learner, then check options and modules: before the first step, not at it."""
        super().build()
        self._dr3_steps: Counter[str] = Counter()
        for module_id in self.module.keys():  # noqa: SIM118 - not a dict
            if self.should_module_be_updated(module_id):
                exposing(self.module[module_id], options_of(self.config.get_config_for_module(module_id)))

    def compute_loss_for_module(self, *, module_id: str, config: Any, batch: Any, fwd_out: Any) -> Tensor:
        """Return L_base + c0 · mean over critics of the penalty; with `dr3_coeff = 0` L_base itself."""
        loss = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
        options = options_of(config)
        module = exposing(self.module[module_id], options)
        if module is None:
            return loss
        step = self._dr3_steps[module_id]
        self._dr3_steps[module_id] += 1
        coefficient = float(options.dr3_coeff) * schedule(options.dr3_warmup_steps, step).item()
        with torch.set_grad_enabled(coefficient > 0.0):
            critics = module.dr3_features(batch, fwd_out)
            penalties, metrics = penalties_of(critics, batch, getattr(config, "burn_in_len", 0), options)
        self.metrics.log_dict(metrics | {"dr3_weight": coefficient}, key=module_id, window=1)
        if coefficient == 0.0:
            return loss
        if step == 0 and options.dr3_form == "dot":
            warn_if_signed(critics)
        # stock learners with several optimizers take the gradients of these, not of the loss that they return
        separate = getattr(self, "_temp_losses", {})
        for critic, penalty in penalties.items():
            term = coefficient * penalty / len(penalties)
            loss = loss + term
            if separate:
                key = separate_loss(separate, module_id, critic)
                separate[key] = separate[key] + term
        return loss

    def get_state(self, *args: Any, **kwargs: Any) -> StateDict:
        """Return the base learner's state, and how far the warm-up is."""
        return super().get_state(*args, **kwargs) | {"dr3_steps": dict(self._dr3_steps)}

    def set_state(self, state: StateDict) -> None:
        """Restore; a state of the base learner alone starts the warm-up anew."""
        super().set_state(state)
        self._dr3_steps = Counter(state.get("dr3_steps", {}))


@cache
def with_dr3_learner(learner_class: type[TorchLearner]) -> type[TorchLearner]:
    """Return a subclass of an RLlib learner whose loss has `dr3_coeff` times DR3's penalty added.

    Its module has to expose features: `DQNWithFeatures`, `SACWithFeatures`, or any module with the one method of
    `ExposesFeatures`; without it training does not start, unless `dr3_coeff` is 0. Options are keys of
    `.learners(learner_config_dict={...})`: dr3_coeff (default 0.03), dr3_form, dr3_stop_gradient, dr3_mask_terminals,
    dr3_warmup_steps; `dr3_ray.regularizers.dr3.DR3` documents them. `dr3_penalty`, `dot_product`, `cosine` and
    `phi_norm` appear among the learner's results. The same class gives the same class again.

    Raises:
        UserError: not a class of torch learners, or one of ours, which have DR3 already.
    """
    if not (isinstance(learner_class, type) and issubclass(learner_class, TorchLearner)):
        raise UserError(f"with_dr3_learner takes a subclass of RLlib's TorchLearner, not {learner_class!r}")
    if issubclass(learner_class, PopulationLearner):
        raise UserError(f"{learner_class.__name__} has DR3 already: .regularization(dr3_coeff=...)")
    if issubclass(learner_class, DR3Learner):
        return learner_class
    # no body of its own: cloudpickle sends it to workers as a name and two bases
    name = f"DR3{learner_class.__name__}"
    return type(name, (DR3Learner, learner_class), {"__doc__": f"{learner_class.__name__} with DR3's penalty."})


class DQNWithFeatures(DefaultDQNTorchRLModule):
    """Stock DQN, with C51, dueling and LSTM, whose φ(s) is the input of its Q-head, the same for every action.

    With dueling Q is linear in what both streams see together, so φ is the two side by side; where the streams have no
    hidden layer of their own (RLlib's default) they see the same, and φ is that.
    """

    def dr3_features(self, batch: dict[str, Any], fwd_out: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the features as `ExposesFeatures` says; the critic is `qf`."""
        return {
            "qf": (
                self._phi(batch, Columns.OBS, Columns.STATE_IN),
                self._phi(batch, Columns.NEXT_OBS, Columns.NEXT_STATE_IN),
            )
        }

    def _phi(self, batch: dict[str, Any], observations: str, state: str) -> Tensor:
        recurrent = {Columns.STATE_IN: batch[state]} if state in batch else {}
        encoded = self.encoder({Columns.OBS: batch[observations], **recurrent})[ENCODER_OUT]
        phi = penultimate(self.af, encoded)
        if not self.uses_dueling or phi is encoded:
            return phi
        return torch.cat([phi, penultimate(self.vf, encoded)], dim=-1)


class SACWithFeatures(DefaultSACTorchRLModule):
    """Stock SAC: φ(s, a) of `qf` and `qf_twin`; a' is the very sample of the policy that the target is made with.

    Its critics' last hidden layer is tanh by default: `model_config={"fusionnet_activation": "relu"}` makes φ ≥ 0.
    With discrete actions φ(s) is the same for all of them.
    """

    def forward_target(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Compute targets as stock SAC, and keep (s', a'), which stock SAC makes and forgets."""
        self._backup = batch
        return super().forward_target(batch, *args, **kwargs)

    def dr3_features(self, batch: dict[str, Any], fwd_out: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the features as `ExposesFeatures` says; the critics are `qf` and, if there is one, `qf_twin`."""
        critics = {"qf": (self.qf_encoder, self.qf)}
        if self.twin_q:
            critics["qf_twin"] = (self.qf_twin_encoder, self.qf_twin)
        return {
            name: (
                penultimate(head, encoder(batch)[ENCODER_OUT]),
                penultimate(head, encoder(self._backup)[ENCODER_OUT]),
            )
            for name, (encoder, head) in critics.items()
        }


def options_of(config: Any) -> DR3:
    """Return the options in a config's `learner_config_dict`, checked; its keys without `dr3_` are not ours."""
    given = {name: value for name, value in config.learner_config_dict.items() if str(name).startswith("dr3_")}
    for name in given:
        if name not in OPTIONS:
            raise UserError(f"learner_config_dict has {name!r}, which nothing reads: DR3 has {', '.join(OPTIONS)} here")
    return DR3(**given)


def exposing(module: Any, options: DR3) -> ExposesFeatures | None:
    """Return the module itself; None where it has no features and c0 = 0 asks for none."""
    module = module.unwrapped()
    if isinstance(module, ExposesFeatures):
        return module
    if options.dr3_coeff == 0.0:
        return None
    raise UserError(
        f"{type(module).__name__} exposes no features: give it dr3_features(batch, fwd_out) -> "
        "{critic: (phi, next_phi)}, use DQNWithFeatures or SACWithFeatures, or set dr3_coeff to 0"
    )


def penalties_of(
    critics: dict[str, tuple[Tensor, Tensor]], batch: dict[str, Any], burn_in: int, options: DR3
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return every critic's penalty on its own features, and the metrics, means over critics.

    Rows of the loss that are padding or burn-in of a recurrent module count for nothing, here as in the loss.
    """
    if not critics:
        raise UserError("dr3_features returned no critic: return {critic: (phi, next_phi)}")
    in_backup = 1.0 - batch[Columns.TERMINATEDS].float()
    valid = torch.ones_like(in_backup)
    if Columns.LOSS_MASK in batch:
        valid = batch[Columns.LOSS_MASK].to(valid.dtype).clone()
        valid[:, :burn_in] = 0.0
    backed_up = (valid * in_backup).reshape(1, -1)
    mask = backed_up if options.dr3_mask_terminals else valid.reshape(1, -1)
    penalties: dict[str, Tensor] = {}
    measured: dict[str, list[Tensor]] = defaultdict(list)
    for name, (phi, next_phi) in critics.items():
        if not phi.shape == next_phi.shape == (*in_backup.shape, phi.shape[-1]):
            raise UserError(
                f"dr3_features of critic {name!r} are {[*phi.shape]} at (s, a) and {[*next_phi.shape]} at (s', a'): "
                f"return one row of features for each of the batch's {[*in_backup.shape]} rows"
            )
        phi, next_phi = (rows.reshape(1, 1, -1, rows.shape[-1]) for rows in (phi, next_phi))  # one member, one critic
        target = next_phi.detach() if options.dr3_stop_gradient else next_phi
        penalties[name] = dr3_penalty(phi, target, mask, options.dr3_form).squeeze(0)
        statistics = feature_statistics(phi.detach(), next_phi.detach(), backed_up)
        for key, value in {"dr3_penalty": penalties[name].detach(), **statistics}.items():
            measured[key].append(value)
    return penalties, {key: torch.stack(values).mean() for key, values in measured.items()}


def warn_if_signed(critics: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Say once that the raw dot product of features of either sign has no lower bound."""
    for name, (phi, _) in critics.items():
        if (phi < 0.0).any():
            warnings.warn(
                f"critic {name!r} has negative features: DR3 can push φ·φ' far below zero; use ReLU in its last hidden "
                "layer, or dr3_form='abs'",
                stacklevel=3,
            )


def separate_loss(losses: dict[Any, Tensor], module_id: str, critic: str) -> tuple[str, str]:
    """Return the key of a critic's own loss."""
    key = (module_id, f"{critic}_loss")
    if key not in losses:
        known = ", ".join(repr(name.removesuffix("_loss")) for mid, name in losses if mid == module_id)
        raise UserError(f"dr3_features has a critic {critic!r}, but the learner's optimizers are {known}: name it so")
    return key
