"""K members in one process, without RLlib: packs, the cost of DR3, memory on a CPU and on a GPU."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula
from turns import asked, take_turns

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.training.member import Member
from dr3_ray.training.population import Population
from dr3_ray.training.process import prepare_training


class Operations(TorchDispatchMode):
    """Counts floating-point operations of products and convolutions. Torch's own counter wants to hook leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=out) if count else 0
        return out


@register_flop_formula([torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._convolution_pointwise], get_raw=True)
def onednn(x: torch.Tensor, weight: torch.Tensor, *_: Any, out_val: torch.Tensor, **__: Any) -> int:
    return 2 * out_val.numel() * weight[0].numel()


torch.set_num_threads(1)
case = asked()
device = torch.device(case.get("device", "cpu"))
data = load_dataset(case["dataset"])
spec = find(case["algorithm"], data.spaces.action_kind)
options = case["options"] | {"precision": case.get("precision", "fp32"), "dr3_coeff": case["dr3_coeff"]}
options["compile"] = case.get("compile", False)
members = [Member.from_dict(spec, options | {"seed": seed}) for seed in range(case.get("members", 1))]
if not case.get("regularized", True):
    members = [dataclasses.replace(member, regularizers={}) for member in members]  # the base algorithm, untouched
prepare_training()
population = Population.of(spec, members, data, data.spaces, case.get("execution", "auto"), device)
if not case.get("graphs", True):
    population.compose(without=("graphs",))
first = 16 if device.type == "cuda" else 2  # a chunk of a graph; a delayed policy moves in one of two
with Operations() as counter:
    population.update(first)
population.record()  # a turn is far shorter than a run, which replays all but its first steps
if population.compiler:
    population.compiler.choice = True
population.update(first)


def update(n: int) -> None:
    population.update(n)
    if device.type == "cuda":
        torch.cuda.synchronize()


def facts() -> dict[str, object]:
    """Return how the members are executed, floating-point operations of an update of them all, trained numbers."""
    found = {
        "execution": population.execution,
        "flops": counter.total / first,
        "parameters": sum(part.values.numel() for part in population.steps.parts.values()),
        "targets": sum(p.target_values.numel() for p in population.steps.parts.values() if p.target_values is not None),
    }
    if device.type == "cuda":
        found["peak_device_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


take_turns(update, {"probe": population.probe}, facts)
