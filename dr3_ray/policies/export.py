"""A policy as a file that other programs run: ONNX, TorchScript, or torch's own `.pt2`.

What is written takes raw observations and gives actions in the environment's units. It is loaded by its own runtime
first, and has to give the policy's actions at a thousand observations; else nothing is written.
"""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dr3_ray.data.labels import dataset_label
from dr3_ray.errors import UserError, first_line
from dr3_ray.networks.precision import plain_operations
from dr3_ray.policies.policy import Policy
from dr3_ray.runs.identity import OF_PARENT, PARENT
from dr3_ray.stores import make_folder, replacing
from dr3_ray.training.normalization import as_trained

CHECKED = 1000  # observations at which a file has to give the same actions
CLOSE = 1e-4  # of the width of an action's range: runtimes sum in other orders
EQUAL = 0.99  # of discrete actions: two of nearly equal value may be swapped by rounding
SEED = 0

Runtime = Callable[[dict[str, np.ndarray]], np.ndarray]


class Deployed(nn.Module):
    """A policy as a function of tensors: observations [N, *observation], one argument a part, to actions [N, …]."""

    low: Tensor
    high: Tensor
    strides: Tensor
    factors: Tensor
    starts: Tensor

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.spec, self.networks = policy.spec, policy.networks
        space = policy.recorded.actions
        self.names = list(policy.recorded.observations.parts)
        self.choices, self.start, self.shape = space.n, space.start, space.shape
        self.product = space.choices is not None
        self.whole = space.played_dtype.kind in "iu"
        if space.choices is not None:
            last = torch.tensor((*space.choices[1:], 1)).flipud().cumprod(0).flipud()  # what one more of each adds
            self.register_buffer("strides", last)
            self.register_buffer("factors", torch.tensor(space.choices))
            self.register_buffer("starts", torch.tensor(space.starts or [0] * len(space.choices)))
        if space.n is None:
            low, high = (torch.as_tensor(bound, dtype=torch.float64).float() for bound in space.bounds())
            self.register_buffer("low", low)
            self.register_buffer("high", high)

    def forward(self, *parts: Tensor) -> Tensor:
        """Return actions: int64 [N], of a product [N, *action], or float32 [N, *action] in the environment's units."""
        named = {name: part.unsqueeze(0) for name, part in zip(self.names, parts, strict=True)}
        assert self.spec.act is not None
        chosen = self.spec.act(self.networks, as_trained(self.networks, named.get("", named)))[0]
        if self.product:
            picked = chosen.unsqueeze(-1) // self.strides % self.factors + self.starts
            return picked.reshape(-1, *self.shape)
        if self.choices is not None:
            return chosen + self.start
        scaled = chosen.clamp(-1.0, 1.0).reshape(-1, *self.shape)
        actions = (self.low + self.high) / 2 + scaled * ((self.high - self.low) / 2)
        return torch.round(actions) if self.whole else actions


def export(policy: Policy, form: str, out: Path) -> Path:
    """Write a policy to the file `out` in one of the formats of `WRITERS`, and a model card beside it; return its path.

    The file's inputs are called `observation`, or `observation_NAME` for the parts of a Dict, its output `action`; the
    first dimension of each is the batch.

    Raises:
        UserError: the packages of `form` are not installed, the policy cannot be written so, or the file gives other
            actions: then nothing is left.
    """
    samples = observations(policy, CHECKED)
    wanted = policy.act(samples.get("", samples))
    deployed = Deployed(policy).eval()
    given = {_input(name): part for name, part in samples.items()}
    card = out.with_name(out.name + ".md")
    try:
        make_folder(out.resolve().parent)
        with replacing(out) as partial, replacing(card) as partial_card:
            with _quietly():
                run = WRITERS[form](deployed, {name: torch.from_numpy(part) for name, part in given.items()}, partial)
            _check(policy, run(given), wanted, form)
            _check(policy, run({name: part[:1] for name, part in given.items()}), wanted[:1], form)
            partial_card.write_text(card_of(policy, form, given, wanted))
    except ImportError as error:
        raise UserError(
            f"{form} needs a package that is not there ({first_line(error)}): pip install 'dr3-ray[export]'"
        ) from None
    except OSError as error:
        place = card if error.filename == str(card) else out
        raise UserError(f"{place} cannot be written ({error.strerror or error}): give another --out") from None
    return card


def observations(policy: Policy, count: int) -> dict[str, np.ndarray]:
    """Draw observations of the policy's space as it takes them, by part, [N, *part]; unbounded numbers from N(0, 1)."""
    generator = np.random.default_rng(SEED)
    drawn = {}
    for name, space in policy.recorded.observations.parts.items():
        low, high = space.bounds()
        shape = (count, *space.shape)
        if space.dtype in ("uint8", "bool"):
            taken = np.uint8 if space.dtype == "uint8" else np.float32
            drawn[name] = generator.integers(0, np.asarray(high) + 1, shape).astype(taken)
        else:
            bounded = (high - low) < 1e6
            uniform = generator.uniform(size=shape) * np.where(bounded, high - low, 1.0) + np.where(bounded, low, 0.0)
            drawn[name] = np.where(bounded, uniform, generator.standard_normal(shape)).astype(np.float32)
    return drawn


def card_of(policy: Policy, form: str, given: dict[str, np.ndarray], wanted: Any) -> str:
    """Write the model card: what the file takes and gives, what was trained on which data, and how it was chosen."""
    actions = np.asarray(wanted)
    inputs = [f"- `{name}`: {part.dtype} {['N', *part.shape[1:]]}" for name, part in given.items()]
    lines = [
        f"# {policy.spec.name} on {policy.recorded.name}",
        f"A policy in the format {form}, trained offline. It takes observations as the data have them, raw, and gives "
        "actions in the environment's units.",
        "## Inputs and output",
        "\n".join([*inputs, f"- output `action`: {actions.dtype} {['N', *actions.shape[1:]]}"]),
        "## How it was chosen",
        policy.chosen or "By its place in a checkpoint.",
        f"Checked: by its own runtime the file gives this policy's actions at {CHECKED} observations drawn from their "
        "space.",
        *_lineage(policy.config),
        "## Configuration",
        f"```json\n{json.dumps(policy.config, indent=1)}\n```",
    ]
    return "\n\n".join(lines) + "\n"


def _lineage(config: Mapping[str, Any]) -> list[str]:
    """Say which member a policy goes on from, where there is one."""
    if PARENT not in config:
        return []
    member, _, updates = str(config[PARENT]).partition("@")
    there = config.get(f"{OF_PARENT}dataset", config.get("dataset", ""))
    return [
        "## Trained on from",
        f"Member {member} after {int(updates):,} updates on {dataset_label(str(there))}; then "
        f"{config.get('steps', 0):,} updates of its own, which began with that member's networks, moments of Adam and "
        "statistics of observations.",
    ]


def _input(name: str) -> str:
    return f"observation_{name}" if name else "observation"


def _check(policy: Policy, numbers: np.ndarray, wanted: Any, form: str) -> None:
    """Check that a file gives the policy's actions.

    Raises:
        UserError: it gives others.
    """
    wanted = np.asarray(wanted)
    if policy.recorded.actions.n is not None:
        same = numbers.shape == wanted.shape and bool((numbers == wanted).mean() >= EQUAL)
    else:
        low, high = policy.recorded.actions.bounds()
        same = numbers.shape == wanted.shape and bool((np.abs(numbers - wanted) <= CLOSE * (high - low) + 1e-6).all())
    if not same:
        raise UserError(f"the {form} file gives other actions than the policy, and was not kept: use another format")


def onnx_runtime() -> Any:
    """Import ONNX Runtime without its telemetry, which writes to the home directory and speaks to its makers."""
    switch = "ORT_DISABLE_TELEMETRY"  # read once, by the import
    is_set = switch in os.environ
    os.environ.setdefault(switch, "1")
    try:
        import onnxruntime
    finally:
        if not is_set:
            del os.environ[switch]
    return onnxruntime


def _onnx(deployed: Deployed, given: dict[str, Tensor], out: Path) -> Runtime:
    onnxruntime = onnx_runtime()
    program = torch.onnx.export(
        deployed, tuple(given.values()), dynamo=True, input_names=list(given), output_names=["action"],
        dynamic_shapes=_batches(given), verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    return lambda samples: np.asarray(session.run(["action"], samples)[0])


def _torchscript(deployed: Deployed, given: dict[str, Tensor], out: Path) -> Runtime:
    traced = torch.jit.trace(deployed, tuple(given.values()))  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()  # because PyTorch ends the process where a file of its own finds no room
    torch.jit.save(traced, buffer)
    out.write_bytes(buffer.getvalue())
    loaded = torch.jit.load(str(out))  # type: ignore[no-untyped-call]
    return lambda samples: np.asarray(loaded(*map(torch.from_numpy, samples.values())))


def _pt2(deployed: Deployed, given: dict[str, Tensor], out: Path) -> Runtime:
    program = torch.export.export(deployed, tuple(given.values()), dynamic_shapes=_batches(given))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    out.write_bytes(buffer.getvalue())
    loaded = torch.export.load(io.BytesIO(out.read_bytes())).module()
    return lambda samples: np.asarray(loaded(*map(torch.from_numpy, samples.values())))


def _batches(given: dict[str, Tensor]) -> tuple[Any, ...]:
    """Return which dimensions may have any size: the first of every part."""
    batch = torch.export.Dim("N")
    return (tuple({0: batch} for _ in given),)


WRITERS: dict[str, Callable[[Deployed, dict[str, Tensor], Path], Runtime]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "pt2": _pt2,
}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep exporters quiet, which print their progress and warn of their own code."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with plain_operations(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
