"""What the cases derived by hand have in common."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mergesearch.methods import METHODS, apply

Rows = Sequence[Sequence[float]]


def m(rows: Rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


BASE = m([[1, 2], [3, 4]])
A = m([[2, 0], [3, 8]])  # task vector [[1, -2], [0, 4]]
B = m([[5, 3], [2, 3]])  # task vector [[4, 1], [-1, -1]]


def run(name: str, base: Tensor | None, models: Sequence[Tensor], /, **given: Any) -> Tensor:
    """Merge, with the table's defaults for what is not given."""
    return apply(METHODS[name], base, models, **given)


def expect(actual: Tensor, rows: Rows) -> None:
    torch.testing.assert_close(actual, m(rows), rtol=1e-6, atol=1e-6)
