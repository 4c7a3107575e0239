"""Matrix products of linear layers by the faster of torch's libraries on a CPU.

torch multiplies float32 by MKL, and MKL leaves AVX-512 alone on AMD's processors; oneDNN, which is
in torch as well, does not, and is twice as fast there. Which one multiplies follows from the
processor and from sizes alone, so that the same machine gives the same numbers.
"""

import platform
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

#: Products of fewer multiplications take longer to prepare than is gained.
_LEAST = 1 << 22


@cache
def has_slow_products() -> bool:
    """Tell if oneDNN multiplies faster than MKL here, and torch has it."""
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and "AuthenticAMD" in _processor()
    )


def quicken(model: nn.Module) -> Callable[[], None]:
    """Let a model's linear layers multiply by oneDNN where that is faster.

    Args:
        model: anything; only plain `nn.Linear` layers are changed, and compute another way only
            where their weights are float32 on a CPU of that kind.

    Returns:
        Makes the layers what they were.
    """
    layers = list(_plain_layers(model.modules())) if has_slow_products() else []
    for layer in layers:
        vars(layer)["forward"] = MethodType(_forward, layer)

    def undo() -> None:
        for layer in layers:
            vars(layer).pop("forward", None)

    return undo


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x Wᵀ + b, by oneDNN where that is faster.

    Args:
        x: (..., columns).
        weight: (rows, columns).
        bias: (rows,).

    Returns:
        (..., rows); by oneDNN it is differentiable once.
    """
    if not (has_slow_products() and _pays(x, weight)):
        return functional.linear(x, weight, bias)
    product: Tensor = _Product.apply(x, weight, bias)
    return product


class _Product(torch.autograd.Function):
    """A product, and its derivatives, which are products, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _product(gradient, weight.T, None) if of_x else None,
            _product(rows.T, x.reshape(-1, x.shape[-1]).T, None) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not x.numel():  # of which oneDNN makes nothing
        return functional.linear(x, weight, bias)
    # the operator that torch's own compiler calls for linear layers
    found: Tensor = torch.ops.mkldnn._linear_pointwise(
        x.contiguous(), weight.contiguous(), bias, "none", [], ""
    )
    return found


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)


def _pays(x: Tensor, weight: Tensor) -> bool:
    enough = x.numel() * weight.shape[0] >= _LEAST
    return enough and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"


def _plain_layers(modules: Iterable[nn.Module]) -> Iterable[nn.Linear]:
    for module in modules:
        computes_plainly = getattr(type(module), "forward", None) is nn.Linear.forward
        if isinstance(module, nn.Linear) and computes_plainly and "forward" not in vars(module):
            yield module


def _processor() -> str:
    """Name the processor's maker, as the system has it."""
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else platform.processor()
