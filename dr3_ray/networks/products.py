"""Products of stacked matrices: in one batch, or one after the other by what multiplies fastest on this CPU.

torch hands batches of float32 matrices on a CPU to MKL. That keeps to AVX2 on processors of AMD, where oneDNN, which
torch brings as well, uses AVX-512 and is about twice as fast; and matrices of one column it multiplies ten times more
slowly in a batch than one by one. What is taken follows from the machine and the shapes alone, never from a
measurement: a run that goes on has to end as if it had not been interrupted.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dr3_ray.compat import torch as compat
from dr3_ray.networks.precision import may_be_fast, rounded

LEAST = 2**21  # multiplications of a layer, on average, below which starting oneDNN costs more than it saves
LONG = 2**14  # numbers in one network's input, beyond which one column is not for a batch


def onednn_is_faster() -> bool:
    """Return whether oneDNN is faster than MKL with float32, on this machine."""
    if not compat.by_onednn(compat.linear) or not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


ONEDNN_IS_FASTER = onednn_is_faster()
Layers = Sequence[tuple[Tensor, Tensor]]  # (W [N, in, out], b [N, 1, out]) of each layer of N networks


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W + b of N networks: [N, B, in] to [N, B, out], with W [N, in, out] and b [N, 1, out]."""
    if by_onednn(x, [(weight, bias)]):
        return _by_onednn(x, [(weight, bias)], activated=0)
    if len(weight) > 1 and weight.shape[2] == 1 and x.device.type == "cpu" and may_be_fast() and x[0].numel() >= LONG:
        return torch.stack([torch.addmm(*tensor) for tensor in zip(bias, x, weight, strict=True)])
    return torch.baddbmm(bias, x, weight)


def relu_layers(x: Tensor, layers: Layers, column: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return max(0, x W + b), layer after layer, of N networks: [N, B, in] to [N, B, out].

    With a `column` (W [N, in, n], b [N, 1, n], of few columns) the linear layer behind them, [N, B, n]: the last
    activations are then nobody else's, and are not stacked.
    """
    if by_onednn(x, layers):
        return _by_onednn(x, [*layers, column] if column else layers, activated=len(layers))
    x = _relu_layers_of_a_gpu(x, layers) if x.device.type == "cuda" else _by_torch(x, layers, activated=len(layers))
    return affine(x, *column) if column else x


def _relu_layers_of_a_gpu(x: Tensor, layers: Layers) -> Tensor:
    """Apply layers on a GPU; with factors in bfloat16, outputs are rounded as the next layer would."""
    kept = torch.bfloat16 if rounded(x) else x.dtype
    y = x.to(kept)
    for weight, bias in layers:
        # not baddbmm, which writes the bias first and multiplies more slowly: 31 TFLOP/s instead of 44 on an H100
        y = torch.relu(torch.bmm(y, weight.to(kept)).add_(bias.to(kept)))
    return y.to(x.dtype)


def by_onednn(x: Tensor, layers: Layers) -> bool:
    """Return whether oneDNN multiplies here."""
    return (
        may_be_fast()
        and x.shape[1] * sum(weight[0].numel() for weight, _ in layers) >= LEAST * len(layers)
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and (rounded(x) or ONEDNN_IS_FASTER)
        and compat.by_onednn(compat.linear)
    )


def _by_onednn(x: Tensor, layers: Layers, activated: int) -> Tensor:
    parameters = (tensor for layer in layers for tensor in layer)
    y: Tensor = _Layers.apply(x, activated, *parameters)  # type: ignore[no-untyped-call]
    return y


class _Layers(torch.autograd.Function):
    """Layers as one operation; the first `activated` have a ReLU behind them.

    With factors in bfloat16, what is kept between two layers is what the next product would round it to.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, activated: int, *parameters: Tensor) -> Tensor:
        kept, given = torch.bfloat16 if rounded(x) else torch.float32, (x, *parameters)
        x, *flat = (tensor if tensor.shape[2] == 1 else tensor.to(kept) for tensor in (x, *parameters))
        layers = list(zip(flat[::2], flat[1::2], strict=True))
        outputs: list[list[Tensor]] = []  # of each network, layer by layer
        for n, y in enumerate(x):
            outputs.append(
                [
                    y := _product(y, weight[n].t(), bias[n, 0], relu=layer < activated)
                    for layer, (weight, bias) in enumerate(layers)
                ]
            )
        ctx.activated, ctx.depth = activated, len(layers)
        ctx.save_for_backward(*given, x, *flat[::2], *(layer for network in outputs for layer in network))
        return _stack([network[-1] for network in outputs])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        depth, (needs_x, _, *needs) = ctx.depth, ctx.needs_input_grad
        given, (x, *saved) = ctx.saved_tensors[: 1 + 2 * depth], ctx.saved_tensors[1 + 2 * depth :]
        if torch.is_grad_enabled():

            def plain(x: Tensor, *parameters: Tensor) -> Tensor:
                return _by_torch(x, list(zip(parameters[::2], parameters[1::2], strict=True)), ctx.activated)

            of_x_again, *others = differentiable_gradients(plain, given, [needs_x, *needs], upstream[0])
            return of_x_again, None, *others
        weights, outputs = saved[:depth], saved[depth:]
        of_x: list[Tensor] = []
        of_layers: list[list[Tensor]] = [[] for _ in needs]  # W, b, W, b, …, each network by network
        for n, gradient in enumerate(upstream[0]):
            passed = [x[n], *outputs[n * depth : (n + 1) * depth]]
            for layer in reversed(range(depth)):
                gradient = gradient.to(passed[layer + 1].dtype)
                if layer < ctx.activated:
                    ours = layer < depth - 1  # and not somebody else's to read
                    gradient = through_relu(gradient, passed[layer + 1], out=gradient if ours else None)
                if needs[2 * layer]:
                    of_layers[2 * layer].append(_product(passed[layer].t(), gradient.t()))
                    of_layers[2 * layer + 1].append(gradient.sum(0, keepdim=True, dtype=torch.float32))
                if layer > 0 or needs_x:
                    gradient = _product(gradient, weights[layer][n])
            if needs_x:
                of_x.append(gradient)
        return (
            _stack(of_x) if needs_x else None,
            None,
            *(_stack(gradients) if gradients else None for gradients in of_layers),
        )


def _by_torch(x: Tensor, layers: Layers, activated: int) -> Tensor:
    """Apply layers, the first `activated` with a ReLU, by operations that torch differentiates any number of times."""
    for layer, (weight, bias) in enumerate(layers):
        x = torch.baddbmm(bias, x, weight)
        x = torch.relu(x) if layer < activated else x
    return x


def differentiable_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], needs: Sequence[bool], upstream: Tensor
) -> list[Tensor | None]:
    """Return gradients of `function(*inputs)` that can be differentiated themselves; None for what `needs` none.

    For the backward pass of a function whose fast gradient cannot: gradients are on there if `create_graph` is.
    """
    wanted = [tensor for tensor, need in zip(inputs, needs, strict=True) if need]
    gradients = iter(torch.autograd.grad(function(*inputs), wanted, upstream, create_graph=True))
    return [next(gradients) if need else None for need in needs]


def through_relu(gradient: Tensor, y: Tensor, out: Tensor | None) -> Tensor:
    """Return the gradient in the input of a ReLU with the output y."""
    if out is None:
        return torch.ops.aten.threshold_backward(gradient, y, 0.0)  # type: ignore[no-any-return]
    return torch.ops.aten.threshold_backward.grad_input(gradient, y, 0.0, grad_input=out)  # type: ignore[no-any-return]


def _product(x: Tensor, transposed: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """Return x Wᵀ + b from W [out, in], or its ReLU, by the operator that compiled linear layers use.

    Vectors, which it does not take, go through torch, unrounded.
    """
    if 1 in transposed.shape:
        x, weight = x.float(), transposed.float().t()
        y = x @ weight if bias is None else torch.addmm(bias.float(), x, weight)
        return y.relu_() if relu else y
    x, activation = x.to(transposed.dtype), "relu" if relu else "none"
    return compat.linear(x, transposed, bias, activation, [], "")  # type: ignore[no-any-return]


def _stack(networks: list[Tensor]) -> Tensor:
    """Stack [N, …] in float32; of one network without a copy."""
    return (networks[0].unsqueeze(0) if len(networks) == 1 else torch.stack(networks)).float()
