"""Deltas of whole models side by side, tensor by tensor as memory allows."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import sqrt

import torch
from torch import Tensor

from mergesearch.diagnosis.model import Pair, Part
from mergesearch.diagnosis.tensors import TensorNumbers, compare_tensor, square_of
from mergesearch.merging import Job, plan_merge
from mergesearch.merging.kernel import inputs_of, release_inputs
from mergesearch.methods.formula import plain
from mergesearch.parents import Parents, layer_of, tower_depths, tower_of
from mergesearch.space import SearchSpace

#: Progress is said as often as this part of the parameters is done.
_SAID = 0.2


@torch.no_grad()
def compare_weights(
    space: SearchSpace, parents: Parents, say: Callable[[str], None]
) -> tuple[Part, ...]:
    """Compare what fine-tuning changed in each parent, by layer and group.

    One tensor of all models is held at a time.

    Args:
        space: names the base and the parents; a group is one of its granularity's, or else the
            module of a layer (self_attn, mlp), or a tensor's own outside the layers.
        parents: the models, open.
        say: is told how far it has come.

    Raises:
        InputError: the memory budget is too small even for one tensor.
        RecipeError: the models have other tensors, or other shapes.
        CandidateError: a model has NaN or infinite entries.
    """
    jobs = [job for job in plan_merge(space.task_arithmetic(1.0), parents).jobs if job.n_entries]
    parents.reserve({"comparing": max(map(_squares, jobs))})
    several = len(tower_depths(job.name for job in jobs)) > 1
    sums: dict[tuple[int | None, str], _Sums] = defaultdict(lambda: _Sums(len(space.parents)))
    done, most, said = 0, sum(job.n_entries for job in jobs), 0.0
    for job in jobs:
        group = _group(job.name, space.granularity.groups, several=several)
        _add(sums[layer_of(job.name), group], job, parents)
        done += job.n_entries
        if done / most >= said + _SAID or done == most:
            said = done / most
            say(f"compared {said:.0%} of {_count(most)} parameters")
    return tuple(sums[key].part(*key, list(space.parents)) for key in sums)


@dataclass
class _Sums:
    """Sums over the tensors of one part."""

    n: int
    n_entries: int = 0
    base: float = 0.0
    products: Tensor = field(init=False)
    shared: Tensor = field(init=False)
    opposite: Tensor = field(init=False)
    #: Of matrices: effective ranks and overlaps, times weights, and the weights.
    ranks: Tensor = field(init=False)
    squares: Tensor = field(init=False)
    overlaps: Tensor = field(init=False)
    chances: Tensor = field(init=False)
    scales: Tensor = field(init=False)

    def __post_init__(self) -> None:
        for name in ("products", "shared", "opposite", "overlaps", "chances", "scales"):
            setattr(self, name, torch.zeros(self.n, self.n, dtype=torch.float64))
        self.ranks, self.squares = torch.zeros(2, self.n, dtype=torch.float64)

    def add(self, numbers: TensorNumbers, models: Sequence[int]) -> None:
        """Add the numbers of a tensor, in which these models differ from the base."""
        self.base += numbers.base
        at = torch.meshgrid(torch.tensor(models), torch.tensor(models), indexing="ij")
        self.products[at] += numbers.products
        self.shared[at] += numbers.shared
        self.opposite[at] += numbers.opposite
        if numbers.spectral is None:
            return
        square, own = numbers.products.diagonal(), numbers.spectral.diagonal()
        scale = (square[:, None] * square[None, :]).sqrt()
        norms = (own[:, None] * own[None, :]).sqrt()
        # of zero deltas nothing is added
        self.overlaps[at] += torch.where(norms > 0, numbers.spectral / norms * scale, 0.0)
        self.scales[at] += scale
        ranks = torch.where(own > 0, square**2 / own, 0.0)
        self.chances[at] += (ranks[:, None] * ranks).sqrt() / numbers.n_inputs * scale
        self.ranks[models] += ranks * square
        self.squares[models] += square

    def part(self, layer: int | None, group: str, names: Sequence[str]) -> Part:
        """Make the part that the sums are of."""
        norms = self.products.diagonal().sqrt().tolist()
        return Part(
            layer=layer,
            group=group,
            n_entries=self.n_entries,
            base=sqrt(self.base),
            deltas=dict(zip(names, norms, strict=True)),
            ranks={name: _ratio(self.ranks[i], self.squares[i]) for i, name in enumerate(names)},
            pairs=tuple(
                Pair(
                    first=names[i],
                    second=names[j],
                    cosine=_ratio(self.products[i, j], norms[i] * norms[j]),
                    shared=int(self.shared[i, j]),
                    opposite=int(self.opposite[i, j]),
                    overlap=_ratio(self.overlaps[i, j], self.scales[i, j]),
                    chance=_ratio(self.chances[i, j], self.scales[i, j]),
                )
                for i, j in combinations(range(self.n), 2)
            ),
        )


def _count(n: int) -> str:
    return f"{n / 1e6:,.1f} M" if n >= 10**6 else f"{n:,}"


def _squares(job: Job) -> int:
    """Bound the bytes of products over a tensor's longer side, one for each pair."""
    columns, n = job.shape[-1], len(job.models)
    return 4 * n * (n + 1) // 2 * min(columns, job.n_entries // columns) ** 2


def _ratio(part: Tensor, whole: Tensor | float) -> float | None:
    return float(part) / float(whole) if whole > 0 else None


def _add(sums: _Sums, job: Job, parents: Parents) -> None:
    """Compare one tensor, and add its numbers to those of its part."""
    assert job.base is not None
    sums.n_entries += job.n_entries
    own = parents.key(job.base.model, job.base.name)
    changed = [i for i, m in enumerate(job.models) if parents.key(m.model, m.name) != own]
    try:
        if not changed:
            sums.base += square_of(parents.read(job.base.model, job.base.name))
            return
        job = replace(job, models=tuple(job.models[i] for i in changed))
        inputs = inputs_of(job, 0, parents, plain, parents.device)
        sums.add(compare_tensor(inputs), changed)
    finally:
        release_inputs(job, parents)


def _group(name: str, groups: Sequence[str], *, several: bool) -> str:
    """Name the group of a tensor."""
    tower = tower_of(name)
    named = next((group for group in groups if group in name), None)
    if not tower:
        return named or name.removesuffix(".weight").rpartition(".")[2]
    module = name.removeprefix(tower).split(".")[1]
    group = named or module
    return f"{tower.rstrip('.').rpartition('.')[0]}: {group}" if several else group
