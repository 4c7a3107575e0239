"""Tensors that get into a model together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Load:
    """Tensors that a model takes together, since its parameters are made of them."""

    names: frozenset[str]
    #: What they are computed in, and where.
    dtype: torch.dtype
    device: torch.device
    #: Called with the tensors by name.
    into: Callable[[Mapping[str, Tensor]], None]
