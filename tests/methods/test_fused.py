"""Compiled into one pass, the heavy formulas give the bits that they give as they stand."""

import os
import shutil
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from mergesearch.merging import fuse
from mergesearch.methods import METHODS, Formula, Inputs
from mergesearch.methods.executor import Executor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("g++") is None and "CXX" not in os.environ, reason="no C++ compiler"
    ),
]

# Three functions, the first three being one and the same with another choice of entries.
CASES: dict[str, dict[str, Any]] = {
    "ties": {"weight": [0.3, 0.8], "density": [0.3, 0.6]},
    "breadcrumbs": {"weight": [0.3, 0.8], "density": [0.3, 0.6], "gamma": [0.1, 0.05]},
    "dare_ties": {"weight": [0.3, 0.8], "density": [0.3, 0.6]},
    "sce": {"select_topk": 0.4},
    "nuslerp": {"weight": [0.3, 0.8], "nuslerp_flatten": False},
    "ram": {"epsilon": 0.02},
}
CALL = partial(fuse._fused, at_least=0, all_of_them=True)
#: Compiling takes seconds for each of them; of one method all, and of the others the commonest.
DTYPES = {"ties": [torch.float32, torch.bfloat16, torch.float16]}


def tensors(dtype: torch.dtype) -> list[Tensor]:
    values = 0.05 * torch.randn(3, 200, 176, generator=torch.Generator().manual_seed(0))
    return list(values.to(dtype))


def blocks(inputs: Inputs, formula: Formula) -> list[Tensor]:
    return [value for _, value in inputs.values(formula)]


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_formula_gives_the_same_bits(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = torch.tensor([[12, -34], [-56, 78]], dtype=torch.int32)
    for dtype in DTYPES.get(name, [torch.bfloat16]):
        base, *models = tensors(dtype)
        inputs = Inputs.of(base, models, keys=keys)
        method = METHODS[name]
        formula = method.formula(inputs, **method.arguments(2, CASES[name]))
        assert formula.heavy
        compiled = Inputs.of(base, models, keys=keys, executor=Executor(call=CALL))
        for one, other in zip(blocks(inputs, formula), blocks(compiled, formula), strict=True):
            assert torch.equal(one, other), dtype
    assert "uncompiled" not in caplog.text
