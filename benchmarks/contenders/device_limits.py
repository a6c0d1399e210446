"""What the device can do: products of large matrices and a copy in memory, `n` times a turn."""

import torch
from turns import asked, take_turns

torch.set_num_threads(1)
case = asked()
device = torch.device(case["device"])
if case.get("precision", "fp32") != "fp32":
    torch.backends.cuda.matmul.allow_tf32 = True
n, length = (8192, 2**28) if device.type == "cuda" else (1024, 2**24)
kind = torch.bfloat16 if case.get("precision") == "bf16" else torch.float32
left, right, product = (torch.rand(n, n, device=device, dtype=kind) for _ in range(3))
source, copy = (torch.zeros(length, device=device) for _ in range(2))


def finish() -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def multiply(times: int) -> None:
    for _ in range(times):
        torch.mm(left, right, out=product)
    finish()


def copy_once() -> None:
    copy.copy_(source)
    finish()


take_turns(multiply, {"copy": copy_once}, lambda: {"flops": 2 * n**3, "bytes": 2 * 4 * length})
