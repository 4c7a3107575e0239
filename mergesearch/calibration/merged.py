"""Gram matrices of inputs that come through merged layers, for RegMean++."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from mergesearch.calibration.activations import gram, summed
from mergesearch.calibration.folder import Entry, check_finite
from mergesearch.calibration.layers import Layers
from mergesearch.calibration.texts import Encoded
from mergesearch.errors import RecipeError
from mergesearch.merging import LiveModel, Plan, n_layers, plan_merge
from mergesearch.merging.threads import Workers
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef, Recipe


@dataclass(frozen=True)
class _OfLayer:
    """The Gram matrices of the layer that is merged next: a `Statistics`."""

    grams: Mapping[ModelRef, Mapping[str, Tensor]]

    def key(self, kind: str, model: ModelRef) -> str:
        """Name them."""
        return f"of a layer, {id(self)}"

    def read(self, kind: str, model: ModelRef, name: str) -> Tensor | None:
        """Look a tensor's matrix up."""
        return self.grams[model].get(name)


def merged_grams(
    soup: Recipe,
    alone: Mapping[ModelRef, Recipe],
    texts: Mapping[ModelRef, Sequence[Encoded]],
    parents: Parents,
    live: LiveModel,
    pool: Workers,
) -> Iterator[dict[ModelRef, list[Entry]]]:
    """Compute Gram matrices behind merged layers, layer by layer (arXiv:2508.03121).

    The layers in between are RegMean++'s at equal weights and the default alpha.

    Args:
        soup: the plain mean of the models, which is what RegMean++ makes of other tensors.
        alone: the recipe of each model by itself.
        texts: of each model.
        parents: where the models are.
        live: a model in memory; it becomes whatever is needed.
        pool: runs texts beside each other.

    Yields:
        Of each layer the entries of each model.

    Raises:
        RecipeError: the models have not one depth.
        CandidateError: what a model computes is not finite.
    """
    depths = {ref: n_layers(parents, ref) for ref in alone}
    if len(set(depths.values())) > 1:
        raise RecipeError(f"regmean_pp merges models of one depth, got {depths}")
    depth = next(iter(depths.values()))
    own = {ref: plan_merge(recipe, parents) for ref, recipe in alone.items()}
    merged = plan_merge(soup.model_copy(update={"merge_method": "regmean_pp"}), parents)
    live.become(soup)
    names, layers = live.stored_names, Layers(live.model, depth, pool)
    passages = {ref: layers.enter(of) for ref, of in texts.items()}
    for i in range(depth):
        kept = frozenset(names[n] for n in layers.parameters(i) if n in names)
        found = {}
        for ref, plan in own.items():
            live.overwrite(_only(plan, kept))
            found[ref] = summed(layers.inputs(i, passages[ref], advance=False), gram, names, pool)
            check_finite("merged gram", ref, found[ref])
        grams = {ref: {n: g for of, g in entries for n in of} for ref, entries in found.items()}
        before, parents.statistics = parents.statistics, _OfLayer(grams)
        try:
            live.overwrite(_only(merged, kept))
        finally:
            parents.statistics = before
        for of in passages.values():
            layers.advance(i, of)
        yield found


def _only(plan: Plan, names: frozenset[str]) -> Plan:
    """Keep the jobs of some tensors."""
    return replace(plan, jobs=tuple(job for job in plan.jobs if job.name in names))
