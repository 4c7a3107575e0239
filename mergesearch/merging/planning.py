"""From a recipe and its parents to the plan of the merged model."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from mergesearch.errors import RecipeError
from mergesearch.merging.arguments import Target, arguments_of
from mergesearch.merging.buffers import plan_buffers
from mergesearch.merging.configuration import has_towers, merged_config, n_layers
from mergesearch.merging.conversion import loads
from mergesearch.merging.factors import check_adapters
from mergesearch.merging.plan import Held, Input, Job, Plan
from mergesearch.methods.declare import is_matrix
from mergesearch.parents import (
    Parents,
    TensorSpec,
    empty_model,
    further_layers,
    in_layer,
    is_computed,
    is_further,
    layer_of,
    tower_depths,
    tower_of,
    untied,
    without_further,
)
from mergesearch.recipe import ModelRef, Recipe, Slice, Source

#: The layers that tensors before and after all layers count as, and those of layers that a
#: model's configuration does not count: of a deeper decoder, or that predict further tokens.
_BEFORE, _AFTER, _BEYOND = -1, -2, -3


def plan_merge(recipe: Recipe, parents: Parents) -> Plan:
    """Resolve a recipe's slices, filters and gradients against the parents' tensors.

    Raises:
        RecipeError: a layer range lies outside a model, a required parameter is missing, or the
            shapes of tensors that should be merged differ; or it means another vocabulary than the
            parents were opened with.
        InputError: the recipe names a model that is none of the parents.
    """
    recipe = recipe.with_paths(parents.resolve)
    parents.alignment.check(recipe)
    return _Planner(recipe, parents).plan()


class _Planner:
    """Plans one recipe.

    Args:
        recipe: names its models as they were opened.
        parents: every model that it names.
    """

    def __init__(self, recipe: Recipe, parents: Parents) -> None:
        self._recipe = recipe
        self._parents = parents
        #: Every source's layer range explicit, the base among the sources.
        self._slices = [self._with_ranges(part) for part in recipe.slices]
        first = self._slices[0].sources[0].model
        self._depth = self._n_layers(first)
        self._towers = tower_depths(parents.checkpoint(first).specs)
        models = dict.fromkeys(source.model for part in self._slices for source in part.sources)
        named = [*models, *([recipe.aim.base] if recipe.aim else [])]
        self._specs = {model: parents.specs(model) for model in named}
        #: Whether no model has an output head beside its embeddings.
        self._ties = all(parents.checkpoint(model).is_tied for model in models)
        #: Each model's tensor names by layer.
        self._names = {model: self._names_by_layer(model) for model in models}

    def plan(self) -> Plan:
        """Plan every tensor, in the order of the layers."""
        if self._is_stack:
            self._check_towers()
            if self._recipe.aim is not None:
                raise RecipeError(
                    "aim holds layers to the base's, and a stack moves them; drop aim"
                )
        jobs = list(self._jobs())
        for job in jobs:
            check_adapters(job, self._parents)
        ends = list(accumulate((job.n_entries for job in jobs), initial=0))
        if self._recipe.towers == "refuse" and (odd := self._apart & {job.name for job in jobs}):
            raise RecipeError(
                f"towers: refuse takes models without towers, and {min(odd)} is one's; merge them, "
                "or copy the base's (towers: base)"
            )
        laid_out = (
            replace(job, flat_range=(start, ends[-1]))
            for job, start in zip(jobs, ends, strict=False)
        )
        config = merged_config(self._recipe, self._layers, self._parents, self._depth)
        written = {job.name for job in jobs}
        further = further_layers(config)
        if not any(is_further(name, further) for name in written):
            config = without_further(config)
        first = self._parents.checkpoint(self._recipe.models[0])
        if first.head in written and first.says_tied:
            config = untied(config)  # it is written, and transformers loads it
        layers = self._layers if self._is_stack else None
        buffers = tuple(plan_buffers(self._recipe.models, self._parents, layers))
        return Plan(
            jobs=tuple(laid_out),
            config=config,
            generation=self._generation(),
            seed=self._recipe.seed,
            left_out=self._left_out(written | {buffer.name for buffer in buffers}),
            buffers=buffers,
            is_stack=self._is_stack,
        )

    def _generation(self) -> Mapping[str, Any] | None:
        """Give the first model's settings of generation, with the merged ids."""
        settings = self._parents.checkpoint(self._recipe.models[0]).generation_config
        if settings is None:
            return None
        return self._parents.alignment.with_ids(settings, "generation_config.json")

    def _left_out(self, written: Set[str]) -> tuple[str, ...]:
        """List what is not written of the models; of a stack, layers aside."""
        first = self._parents.checkpoint(self._slices[0].sources[0].model)
        names = (*first.specs, *first.buffers)
        others = (self._parents.checkpoint(model) for model in self._recipe.models)
        more = {n for of in others for n in (*of.specs, *of.buffers)} - set(names)
        every = [n for n in (*names, *sorted(more)) if n not in written]
        if self._is_stack:  # whose layers are taken as the recipe says
            stay = (_AFTER,) if self._carries_further else (_AFTER, _BEYOND)
            named = {n for of in self._names.values() for at in stay for n in of.get(at, ())}
            every = [name for name in every if layer_of(name) is None or name in named]
        return tuple(every)

    @cached_property
    def _apart(self) -> frozenset[str]:
        """The tensors of towers, where they are told from others."""
        first = self._parents.checkpoint(self._slices[0].sources[0].model)
        if self._recipe.towers is None and not (self._is_stack and has_towers(first.config)):
            return frozenset()
        return self._parents.towers

    @cached_property
    def _beside(self) -> frozenset[str]:
        """Of a stack, tensors whose numbers are of no layer that is moved.

        Towers, and what the class does not load: further heads, and layers of further tokens that
        have names of their own.
        """
        foreign = self._parents.foreign
        first = self._parents.checkpoint(self._slices[0].sources[0].model)
        own = {tower_of(name) for name in first.specs.keys() - foreign}
        return self._apart | {name for name in foreign if tower_of(name) not in own}

    @cached_property
    def _is_stack(self) -> bool:
        """Tell if a layer of the output is another layer of a source."""
        taken = [[_first(s) + i for s in part.sources] for part in self._slices for i in _of(part)]
        stays = all(layer == i for i, layers in enumerate(taken) for layer in layers)
        return not (stays and len(taken) == self._depth)

    def _n_layers(self, model: ModelRef) -> int:
        """Count a model's layers; where all are merged whole, by its tensors if need be."""
        whole = not any(s.layer_range for part in self._recipe.slices for s in part.sources)
        return n_layers(self._parents, model, whole=whole)

    def _with_ranges(self, part: Slice) -> Slice:
        """Put a slice's base among its sources, and make every layer range explicit.

        Raises:
            RecipeError: a range lies outside its model, or they are not equally long.
        """
        sources, base = list(part.sources), self._recipe.base_of(part)
        whole = all(source.layer_range is None for source in sources)
        if base is not None and base not in [s.model for s in sources]:
            if whole:
                sources.append(Source(model=base))
            elif self._recipe.method.sets_base_apart:
                ranges = {source.layer_range for source in sources}
                if len(ranges) > 1:
                    raise RecipeError(
                        f"the base {base} must be a source of its own where the sources' layer "
                        "ranges differ, got "
                        f"{', '.join(str(list(r)) for r in ranges if r)}"
                    )
                sources.append(Source(model=base, layer_range=ranges.pop()))
        ranged = []
        for source in sources:
            depth = self._n_layers(source.model)
            first, end = source.layer_range or (0, depth)
            if end > depth:
                raise RecipeError(
                    f"layer_range must lie within the model's {depth} layers, got [{first}, {end}] "
                    f"for {source.model}"
                )
            ranged.append(source.model_copy(update={"layer_range": (first, end)}))
        if len({source.n_layers for source in ranged}) > 1:
            depths = ", ".join(f"{s.model}: {s.n_layers}" for s in ranged)
            raise RecipeError(f"models merged as a whole must be equally deep, got {depths} layers")
        return part.model_copy(update={"sources": tuple(ranged)})

    def _names_by_layer(self, model: ModelRef) -> Mapping[int, list[str]]:
        """Group a model's tensor names by layer, and those before and after the layers.

        An output head is left out where all are tied: transformers restores it from the embeddings.
        So are rotary tables and masks, which old checkpoints store and transformers computes.
        """
        checkpoint, n = self._parents.checkpoint(model), self._n_layers(model)
        groups: dict[int, list[str]] = {}
        for name in sorted(checkpoint.specs):
            if is_computed(name, checkpoint.specs[name]) or (
                name == checkpoint.head and self._ties
            ):
                continue
            layer = layer_of(name)
            if self._is_stack and name in self._beside:
                layer = _AFTER  # layers of the language model are moved, and no tower's
            elif layer is None:
                before = any(word in name for word in ("embed", "wte", "wpe"))
                layer = _BEFORE if before else _AFTER
            groups.setdefault(layer if layer < n else _BEYOND, []).append(name)
        return groups

    def _jobs(self) -> Iterator[Job]:
        """Plan what precedes the layers, the layers in order, and what follows them."""
        first, last = self._slices[0], self._slices[-1]
        yield from self._layer(first, [_BEFORE] * len(first.sources), _BEFORE, 0.0)
        layer = 0
        for part in self._slices:
            length = len(_of(part))
            for offset in _of(part):
                # a slice of one layer lies at its end
                depth = offset / (length - 1) if length > 1 else 1.0
                layers = [_first(source) + offset for source in part.sources]
                yield from self._layer(part, layers, layer, depth)
                layer += 1
        # mergekit takes what follows the layers from the last slice, at depth 0
        yield from self._layer(last, [_AFTER] * len(last.sources), _AFTER, 0.0)
        if self._carries_further:
            yield from self._layer(last, [_BEYOND] * len(last.sources), _BEYOND, 1.0)

    def _check_towers(self) -> None:
        """Refuse to move layers of a model whose towers have other depths than it says.

        Raises:
            RecipeError: as an encoder has more layers than its decoder, or a vision tower other.
        """
        for model, names in self._names.items():
            depth, further = self._n_layers(model), self._further(model)
            moved = (n for of in names.values() for n in of if n not in self._beside)
            towers = tower_depths(n for n in moved if layer_of(n) not in further)
            if odd := [f"{tower}* {n}" for tower, n in towers.items() if n != depth]:
                raise RecipeError(
                    f"layers are moved of models whose layers are all counted in config.json, but "
                    f"{model} has {depth} by that, and {', '.join(odd)}; merge whole models"
                )

    def _layer(self, part: Slice, layers: Sequence[int], layer: int, depth: float) -> Iterator[Job]:
        """Plan one layer of the output, of which each source gives one of its `layers`."""
        first, *others = part.sources
        own = self._names[first.model].get(layers[0], [])
        if layer >= 0 and not own and (self._is_stack or not self._is_whole):
            raise RecipeError(f"{first.model} has no tensors of layer {layers[0]}")
        for source, theirs in zip(others, layers[1:], strict=True):
            for name in self._names[source.model].get(theirs, []):
                if self._is_shared(name, [(first.model, _moved(name, layers[0]))]):
                    self._spec(first.model, _moved(name, layers[0]))
        for name in own:
            names = [_moved(name, theirs) for theirs in layers]
            pairs = [(s.model, n) for s, n in zip(part.sources, names, strict=True)]
            if not self._is_shared(name, pairs):
                continue
            at = self._position(name, depth)
            placed = self._behind(name, first.model) if layer == _BEYOND else _moved(name, layer)
            yield self._job(Target(part, placed, at), names)

    def _behind(self, name: str, model: ModelRef) -> str:
        """Name a tensor of a layer behind a model's own, for the output."""
        if not self._is_stack:
            return name
        return in_layer(name, (layer_of(name) or 0) - self._n_layers(model) + len(self._layers))

    @cached_property
    def _carries_further(self) -> bool:
        """False for a stack whose first and last model count other such layers."""
        ends = [self._slices[at].sources[0].model for at in (0, -1)]
        return not self._is_stack or len({len(self._further(model)) for model in ends}) == 1

    def _further(self, model: ModelRef) -> range:
        """List a model's layers of further tokens, behind its own."""
        return further_layers(self._parents.checkpoint(model).config)

    def _is_shared(self, name: str, pairs: Sequence[tuple[ModelRef, str]]) -> bool:
        """Tell a tensor of the model from a value head that training left in some."""
        everywhere = all(n in self._specs[model] for model, n in pairs)
        return everywhere or name not in self._parents.foreign

    @cached_property
    def _is_whole(self) -> bool:
        """True where the class finds every parameter, however config.json counts layers."""
        ref = self._slices[0].sources[0].model
        first = self._parents.checkpoint(ref)
        shapes = {name: spec.shape for name, spec in first.specs.items()}

        def loads_all() -> bool:
            return (model := empty_model(first.config)) is not None and loads(model, shapes)

        return self._parents.memo.recall(("loads all", ref), loads_all)

    def _position(self, name: str, depth: float) -> float:
        """Give a tensor's place in depth, for gradients: that in a tower of its own depth."""
        tower = self._towers.get(tower_of(name), self._depth)
        if self._is_stack or tower == self._depth:
            return depth
        return (layer_of(name) or 0) / max(tower - 1, 1)

    def _job(self, target: Target, names: Sequence[str]) -> Job:
        """Plan one tensor, which each source of its slice has under one of `names`."""
        recipe, sources = self._recipe, target.part.sources
        base_model = recipe.base_of(target.part) if recipe.method.sets_base_apart else None
        named = list(zip(sources, names, strict=True))
        specs = [self._spec(source.model, name) for source, name in named]
        if len({spec.shape for spec in specs}) > 1:
            shapes = ", ".join(
                f"{list(spec.shape)} in {source.model}"
                for source, spec in zip(sources, specs, strict=True)
            )
            raise RecipeError(f"{target.name} must have one shape in all models, got {shapes}")
        copied = recipe.towers == "base" and target.name in self._apart
        if copied:  # from the base, or else from the first model; without models to merge with it
            base_model = recipe.base_model or sources[0].model
        models = [] if copied else [(s, n) for s, n in named if s.model != base_model]
        out = recipe.out_dtype or recipe.dtype
        return Job(
            name=target.name,
            method=recipe.method,
            base=next((Input(s.model, n) for s, n in named if s.model == base_model), None),
            models=tuple(Input(s.model, n) for s, n in models),
            arguments={} if copied else arguments_of(recipe, target, models),
            shape=specs[0].shape,
            dtype=getattr(torch, out) if out else self._stored_dtype(named),
            held=None if copied else self._held(target.name, specs[0]),
        )

    def _held(self, name: str, spec: TensorSpec) -> Held | None:
        """Plan what AIM holds a matrix to."""
        aim = self._recipe.aim
        if aim is None or not is_matrix(name, len(spec.shape)):
            return None
        if self._spec(aim.base, name).shape != spec.shape:
            raise RecipeError(
                f"aim holds {name} to the base's, which must have its shape, {list(spec.shape)}, "
                f"got {list(self._spec(aim.base, name).shape)} in {aim.base}"
            )
        return Held(Input(aim.base, name), aim.omega)

    def _spec(self, model: ModelRef, name: str) -> TensorSpec:
        spec = self._specs[model].get(name)
        if spec is None:
            raise RecipeError(
                f"{model} has no tensor {name}; all models must have the same tensors"
            )
        return spec

    def _stored_dtype(self, named: Sequence[tuple[Source, str]]) -> torch.dtype:
        """Look up the dtype in which the base stores a tensor, or else the first model."""
        of_base = [(s, n) for s, n in named if s.model == self._recipe.base_model]
        source, name = (of_base or named)[0]
        return self._specs[source.model][name].dtype

    @cached_property
    def _layers(self) -> list[tuple[ModelRef, int]]:
        """List for each layer of the output the first source's model, and its layer there."""
        return [
            (part.sources[0].model, _first(part.sources[0]) + offset)
            for part in self._slices
            for offset in _of(part)
        ]


def _of(part: Slice) -> range:
    """Count through the layers of a planned slice."""
    return range(part.sources[0].n_layers or 0)


def _moved(name: str, layer: int) -> str:
    """Name the same tensor of another layer; what lies outside of the layers stays."""
    return in_layer(name, layer) if layer >= 0 else name


def _first(source: Source) -> int:
    """Give the first layer that a source of a planned slice gives."""
    return source.layer_range[0] if source.layer_range else 0
