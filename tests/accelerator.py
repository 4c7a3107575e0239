"""An accelerator of two devices, made of this machine's memory.

A tensor there is a tensor of the CPU inside of one that says it is elsewhere. As on real devices,
what is computed of tensors that lie on several is an error, and so is the CPU's beside a device's.
torch's own code takes them for tensors on its meta device, so that gradients work as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

#: torch's name for accelerators that it does not know.
KIND = "privateuseone"
DEVICES = (torch.device(KIND, 0), torch.device(KIND, 1))

_CPU = torch.device("cpu")
_tensor, _attend = torch.tensor, functional.scaled_dot_product_attention
_COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


class Elsewhere(Tensor):
    """A tensor on one of `DEVICES`."""

    _inside: Tensor
    _place: torch.device

    @staticmethod
    def __new__(cls: type["Elsewhere"], inner: Tensor, place: torch.device) -> "Elsewhere":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device("meta"),
        )
        made._inside, made._place = inner, place
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._place

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self._inside.data_ptr()

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        named = {name: value for name, value in kwargs.items() if name != "copy"}
        device, dtype, *_ = torch._C._nn._parse_to(*args, **named)
        same = device in (None, self._place) and dtype in (None, self.dtype)
        if same and not kwargs.get("copy"):
            return self
        if device in (None, self._place) or not self.requires_grad:
            return super().to(*args, **kwargs)
        return _Move.apply(super().to(dtype or self.dtype), device)

    def cpu(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.to(_CPU)

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class _Move(torch.autograd.Function):
    """A move whose gradient comes back: torch's own would stay where it is."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, device: torch.device) -> Tensor:
        context.before = tensor.device
        return torch.ops.aten._to_copy(tensor, device=device)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        return gradients[0].to(context.before), None


class _Factories(TorchDispatchMode):
    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _literal(*args: Any, device: torch.device | None = None, **kwargs: Any) -> Tensor:
    """Make a tensor of numbers, as `torch.tensor` does before dispatch begins."""
    if device is not None and device in DEVICES:
        return _tensor(*args, **kwargs).to(device)
    return _tensor(*args, **{**kwargs, "device": device})


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Attend by the CPU's kernel; torch would choose one by where it takes tensors to be."""
    if isinstance(query, Elsewhere):
        return _on_cpu(query, key, value, *args, **kwargs)
    return _attend(query, key, value, *args, **kwargs)


def _on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    n = query.shape[1] // key.shape[1]
    key, value = (key, value) if n == 1 else (of.repeat_interleave(n, 1) for of in (key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        seen = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = seen.masked_fill(~attn_mask, float("-inf"))
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]


@contextmanager
def accelerator() -> Iterator[None]:
    """Let torch know the two devices until the block ends."""
    module: Any = ModuleType(f"torch.{KIND}")
    module.is_initialized = module.is_available = lambda: True
    module.device_count = lambda: len(DEVICES)
    module.current_device = lambda: 0
    module.manual_seed_all = lambda seed: None
    module._is_in_bad_fork = lambda: False
    module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
    if not hasattr(torch, KIND):
        torch._register_device_module(KIND, module)
    with (
        _Factories(),
        patch.object(torch, "tensor", _literal),
        patch.object(functional, "scaled_dot_product_attention", _attention),
    ):
        yield


def _run(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the tensors inside, and say where its results are."""
    kwargs = dict(kwargs)
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    ours = [t for t in tensors if isinstance(t, Elsewhere)]
    place = kwargs.get("device")
    if place is not None and place.type == "meta":
        # torch's own code means where it takes a tensor to be; of a number it does not say which
        if ours:
            place = ours[0].device
        elif function is torch.ops.aten.scalar_tensor.default:
            place = _CPU
    if place is not None:
        kwargs["device"] = _CPU if place.type == KIND else place
    elif function in _COPIES:
        place = args[0].device
    else:
        place = ours[0].device if ours else _CPU
        # a number may be on the CPU
        several = {t.device for t in tensors if t.dim() or isinstance(t, Elsewhere)}
        if len(several) > 1:
            raise RuntimeError(f"{function} of tensors on {sorted(map(str, several))}")
    inner = tree_map_only(Elsewhere, lambda t: t._inside, (args, kwargs))
    result = function(*inner[0], **inner[1])
    if place.type != KIND:
        return result
    known = {id(t._inside): t for t in ours}  # what was written in place is still itself

    def outside(tensor: Tensor) -> Tensor:
        return known[id(tensor)] if id(tensor) in known else Elsewhere(tensor, place)

    return tree_map_only(Tensor, outside, result)
