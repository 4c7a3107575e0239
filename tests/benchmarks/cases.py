"""What is merged: a recipe for every method and every candidate, and the goals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.benchmarks.family import PARENTS

#: A parameter's lowest and highest value; candidates lie in between.
Range = tuple[float, float]


@dataclass(frozen=True)
class Goal:
    """What a candidate may cost."""

    #: After the first, at most so many times the time to copy the same bytes.
    copies: float
    #: At least so many times faster than mergekit's merge alone.
    peer: float | None = None
    #: Seconds of the first candidate, at most.
    first: float | None = None


@dataclass(frozen=True)
class Case:
    """One method, and what its candidates differ in.

    A method without a number to change takes the parents in another order, or another parent.
    """

    method: str
    per_model: Mapping[str, Range] = field(default_factory=dict)
    shared: Mapping[str, Range] = field(default_factory=dict)
    n_models: int = len(PARENTS)
    base: bool = True
    #: Whether mergekit has the method.
    peer: bool = True
    #: Whether a candidate reads the base and one cached direction, and no parent.
    direction: bool = False
    #: Symmetric eigendecompositions that the first candidate takes of each matrix.
    eigenvectors: int = 0
    goal: Goal | None = None

    def recipe(self, candidate: int) -> str:
        """The YAML of a candidate; of one number, each has another value."""
        first = 0 if self.per_model or self.shared else candidate % len(PARENTS)
        names = [*PARENTS[first:], *PARENTS[:first]][: self.n_models]
        models: list[dict[str, Any]] = [
            {"model": name, "parameters": _values(self.per_model, candidate, i)}
            for i, name in enumerate(names)
        ]
        data: dict[str, Any] = {"merge_method": self.method, "models": models}
        if self.base:
            data["base_model"] = "base"
        data["parameters"] = _values(self.shared, candidate)
        return yaml.safe_dump(data, sort_keys=False)

    def recipe_in_blocks(self, candidates: Sequence[int], n_layers: int) -> str:
        """The YAML of a recipe whose blocks of layers each have the numbers of a candidate."""
        slices, step = [], n_layers // len(candidates)
        for block, candidate in enumerate(candidates):
            at = [block * step, (block + 1) * step]
            sources: list[dict[str, Any]] = [{"model": "base", "layer_range": at}]
            sources += [
                {"model": n, "layer_range": at, "parameters": _values(self.per_model, candidate, i)}
                for i, n in enumerate(PARENTS)
            ]
            slices.append({"sources": sources})
        data = {"merge_method": self.method, "base_model": "base", "slices": slices}
        return yaml.safe_dump(data, sort_keys=False)

    def bytes_read(self, n_entries: int, itemsize: int) -> int:
        """The bytes of the inputs of one candidate."""
        if self.direction:
            return n_entries * (itemsize + 4)  # the direction is float32
        return n_entries * itemsize * (self.n_models + self.base)


def _values(ranges: Mapping[str, Range], candidate: int, model: int = 0) -> dict[str, float]:
    """Values spread over their ranges by the golden ratio: no two candidates share one."""
    return {
        name: round(low + (high - low) * ((0.5 + 0.618034 * candidate + 0.3 * model) % 1), 8)
        for name, (low, high) in ranges.items()
    }


_WEIGHT: dict[str, Range] = {"weight": (0.2, 0.9)}
_SPARSE: dict[str, Range] = {**_WEIGHT, "density": (0.2, 0.8)}
_CRUMBS: dict[str, Range] = {**_SPARSE, "gamma": (0.01, 0.05)}
_DELLA: dict[str, Range] = {**_WEIGHT, "density": (0.3, 0.7), "epsilon": (0.05, 0.15)}
_LAMBDA: dict[str, Range] = {"lambda": (0.5, 1.5)}
_STREAMED, _ANGLES, _SPARSIFIED = Goal(3, 10), Goal(5, 10), Goal(10, 20)
_SINGULAR_VECTORS = Goal(3, first=10)


def _along_direction(method: str, eigenvectors: int) -> Case:
    return Case(
        method, shared=_LAMBDA, peer=False, direction=True, eigenvectors=eigenvectors,
        goal=_SINGULAR_VECTORS,
    )  # fmt: skip


CASES = {
    case.method: case
    for case in (
        Case("linear", _WEIGHT, base=False, goal=_STREAMED),
        Case("task_arithmetic", _WEIGHT, goal=_STREAMED),
        Case("passthrough", {"scale": (0.5, 1.5)}, n_models=1, base=False, goal=Goal(2)),
        Case("slerp", shared={"t": (0.1, 0.9)}, n_models=1, goal=_ANGLES),
        Case("nuslerp", _WEIGHT, n_models=2, goal=_ANGLES),
        Case("ties", _SPARSE, goal=Goal(10, 20, first=4)),
        Case("breadcrumbs", _CRUMBS, goal=_SPARSIFIED),
        Case("dare_linear", _SPARSE, goal=_SPARSIFIED),
        Case("dare_ties", _SPARSE, goal=_SPARSIFIED),
        Case("sce", shared={"select_topk": (0.1, 0.9)}, goal=_SPARSIFIED),
        # of each of three task vectors, and of the two sides that are made orthogonal
        _along_direction("tsv_m", eigenvectors=5),
        _along_direction("iso_c", eigenvectors=1),
        # of the sum; those of what is beyond it are of smaller matrices, and are not counted
        _along_direction("iso_cts", eigenvectors=1),
        Case("nearswap", shared={"t": (0.0005, 0.004)}, n_models=1),
        Case("karcher", shared={"tol": (5e-6, 2e-5)}, base=False),
        Case("multislerp", _WEIGHT),
        Case("model_stock"),
        Case("breadcrumbs_ties", _CRUMBS),
        Case("della", _DELLA),
        Case("della_linear", _DELLA),
        Case("arcee_fusion", n_models=1, goal=Goal(10)),
        Case("ram", shared={"epsilon": (5e-6, 2e-5)}),
        Case("ramplus_tl", shared={"r": (0.05, 0.2), "alpha": (0.1, 0.4)}),
        Case("magmax", shared=_LAMBDA, peer=False),
        Case("consensus_ta", {"mask_lambda": (0.2, 0.6)}, _LAMBDA, peer=False),
        Case("pcb", {"density": (0.1, 0.4)}, _LAMBDA, peer=False),
        Case("localize_and_stitch", {"density": (0.02, 0.2)}, _LAMBDA, peer=False),
        Case("wudi", shared={**_LAMBDA, "ridge": (0.05, 0.5)}, peer=False),
        Case("bmm", _WEIGHT, {"ridge": (0.05, 0.5)}, peer=False),
        Case("crossover", shared={"t": (0.1, 0.9), "split": (0.2, 0.8)}, n_models=1, peer=False),
    )
}
