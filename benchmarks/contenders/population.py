"""K members in one process, without RLlib: packs, the cost of DR3, memory on a CPU and on a GPU."""

import dataclasses

import torch
from torch.utils.flop_counter import FlopCounterMode
from turns import asked, take_turns

from dr3_ray.algorithms.registry import find
from dr3_ray.data import load_dataset
from dr3_ray.member import Member
from dr3_ray.population import Population

torch.set_num_threads(1)
case = asked()
device = torch.device(case.get("device", "cpu"))
data = load_dataset(case["dataset"])
spec = find(case["algorithm"], data.spaces.action_kind)
options = case["options"] | {"precision": case.get("precision", "fp32"), "dr3_coeff": case["dr3_coeff"]}
members = [Member.from_dict(spec, options | {"seed": seed}) for seed in range(case.get("members", 1))]
if not case.get("regularized", True):
    members = [dataclasses.replace(member, dr3=None) for member in members]  # the base algorithm, untouched
population = Population.of(spec, members, data, data.spaces, case.get("execution", "auto"), device)
with FlopCounterMode(display=False) as counter:
    population.update(2)  # a delayed policy moves in one of two


def update(n: int) -> None:
    population.update(n)
    if device.type == "cuda":
        torch.cuda.synchronize()


def facts() -> dict[str, object]:
    """How the members are executed, floating-point operations of an update of them all, trained numbers."""
    found = {
        "execution": population.execution,
        "flops": counter.get_total_flops() / 2,
        "parameters": sum(part.values.numel() for part in population.parts.values()),
        "targets": sum(p.target_values.numel() for p in population.parts.values() if p.target_values is not None),
    }
    if device.type == "cuda":
        found["peak_device_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


take_turns(update, {"probe": population.probe}, facts)
