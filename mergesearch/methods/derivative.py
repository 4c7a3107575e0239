"""PROVISIONAL."""
from dataclasses import replace
from typing import Any, Mapping
import torch
from torch import Tensor
from mergesearch.methods.formula import ByRow, Formula
from mergesearch.methods.inputs import Inputs


def pull_back(method, inputs, arguments, gradient, *, dtype=torch.float32):
    names = [p.argument for p in method.differentiable if arguments.get(p.argument) is not None]
    with torch.enable_grad():
        leaves = {n: torch.tensor(arguments[n], dtype=torch.float64, requires_grad=True) for n in names}
        spread = {n: list(l.unbind()) if l.dim() else l for n, l in leaves.items()}
        formula = method.formula(inputs, **{**arguments, **spread})
        live = {k: v for k, v in formula.constants.items() if isinstance(v, Tensor) and v.requires_grad}
        sub = {k: v.detach().to(dtype).requires_grad_() for k, v in live.items()}
        f = replace(formula, constants={**formula.constants, **sub})
        acc = {k: torch.zeros_like(v, dtype=torch.float64) for k, v in live.items()}
        rows_g = gradient.reshape(inputs.shape)
        for rows, value in inputs.values(f):
            gs = torch.autograd.grad(value, list(sub.values()), rows_g[rows].to(value.dtype), allow_unused=True)
            for k, g in zip(sub, gs):
                if g is not None:
                    acc[k] += g.double()
        out = torch.autograd.grad(list(live.values()), list(leaves.values()), [acc[k] for k in live], allow_unused=True)
    return {n: torch.zeros_like(l) if o is None else o for (n, l), o in zip(leaves.items(), out)}


def combination(method, n_models, arguments):
    n = n_models + 1
    eye = torch.eye(n, dtype=torch.float64)
    inputs = Inputs.of(None if method.base == "unused" else eye[:1], [eye[i:i+1] for i in range(1, n)])
    formula = method.formula(inputs, **arguments)
    base = None if inputs.base is None else inputs.base
    return formula.function(base, list(inputs.models), **formula.constants)[0]
