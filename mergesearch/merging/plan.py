"""From a recipe and its parents to one job for each tensor of the merged model."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch

from mergesearch.errors import RecipeError
from mergesearch.methods import REQUIRED, Method, Parameter
from mergesearch.parents import Parents, TensorSpec, in_layer, layer_of
from mergesearch.recipe import ModelRef, Recipe, Slice, Source, evaluate

#: Where models say how deep they are.
_DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers")
#: Where tensors outside the layers stand, as if in layers of their own.
_BEFORE, _AFTER = -1, -2


@dataclass(frozen=True)
class Input:
    """One tensor of one parent."""

    model: ModelRef
    name: str


@dataclass(frozen=True)
class Job:
    """How one tensor of the merged model is made."""

    name: str
    method: Method
    base: Input | None
    models: tuple[Input, ...]
    #: Keyword arguments of the method's function.
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype
    #: Its first entry in the flattened model, and how many entries that has.
    place: tuple[int, int] = (0, 1)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Every tensor that it reads."""
        return self.models if self.base is None else (self.base, *self.models)

    @property
    def n_entries(self) -> int:
        """How many numbers the result holds."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """The size of the result."""
        return self.n_entries * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """Everything that is known of a merged model before a weight is read."""

    jobs: tuple[Job, ...]
    #: The merged model's `config.json`.
    config: Mapping[str, Any]

    @property
    def n_entries(self) -> int:
        """How many numbers the merged model has."""
        return sum(job.n_entries for job in self.jobs)

    @property
    def n_bytes(self) -> int:
        """The size of the merged model's weights."""
        return sum(job.n_bytes for job in self.jobs)


def plan(recipe: Recipe, parents: Parents) -> Plan:
    """Resolve a recipe's slices, filters and gradients against the parents' tensors.

    Raises:
        RecipeError: a layer range lies outside a model, a required parameter is missing, or the
            shapes of tensors that should be merged differ; or it means another vocabulary than the
            parents were opened with.
        InputError: the recipe names a model that is none of the parents.
    """
    parents.alignment.check(recipe)
    recipe = recipe.with_paths(parents.resolve)
    slices = [_with_ranges(recipe, part, parents) for part in recipe.slices]
    jobs = _placed(list(_jobs(recipe, slices, parents)))
    return Plan(jobs, _config(recipe, slices, parents))


def n_layers(parents: Parents, model: ModelRef) -> int:
    """How many layers a parent has, by its configuration."""
    config = parents.checkpoint(model).config
    for key in _DEPTH_KEYS:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise RecipeError(f"{model}: config.json has none of {', '.join(_DEPTH_KEYS)}")


def _with_ranges(recipe: Recipe, part: Slice, parents: Parents) -> Slice:
    """The slice with its base among the sources and every layer range explicit and in bounds."""
    sources, base = list(part.sources), recipe.base_of(part)
    whole = all(source.layer_range is None for source in sources)
    if base is not None and base not in [s.model for s in sources]:
        if whole:
            sources.append(Source(model=base))
        elif recipe.method.sets_base_apart:
            ranges = {source.layer_range for source in sources}
            if len(ranges) > 1:
                raise RecipeError(
                    f"the base {base} must be a source of its own where the sources' layer ranges "
                    f"differ, got {', '.join(str(list(r)) for r in ranges if r)}"
                )
            sources.append(Source(model=base, layer_range=ranges.pop()))
    ranged = []
    for source in sources:
        depth = n_layers(parents, source.model)
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


def _jobs(recipe: Recipe, slices: list[Slice], parents: Parents) -> Iterator[Job]:
    models = {source.model for part in slices for source in part.sources}
    names = {model: _names(parents, model) for model in models}
    first, last = slices[0], slices[-1]
    yield from _group(recipe, first, [_BEFORE] * len(first.sources), _BEFORE, 0.0, names, parents)
    layer = 0
    for part in slices:
        starts = [source.layer_range[0] for source in part.sources if source.layer_range]
        length = part.sources[0].n_layers or 0
        for offset in range(length):
            # a slice of one layer lies at its end
            depth = offset / (length - 1) if length > 1 else 1.0
            layers = [start + offset for start in starts]
            yield from _group(recipe, part, layers, layer, depth, names, parents)
            layer += 1
    # mergekit takes what follows the layers from the last slice, at depth 0
    yield from _group(recipe, last, [_AFTER] * len(last.sources), _AFTER, 0.0, names, parents)


def _placed(jobs: list[Job]) -> tuple[Job, ...]:
    """The jobs with their places in the flattened model."""
    ends = list(accumulate((job.n_entries for job in jobs), initial=0))
    return tuple(
        replace(job, place=(start, ends[-1])) for job, start in zip(jobs, ends, strict=False)
    )


def _group(
    recipe: Recipe,
    part: Slice,
    layers: list[int],
    layer: int,
    depth: float,
    names: Mapping[ModelRef, Mapping[int, list[str]]],
    parents: Parents,
) -> Iterator[Job]:
    """The jobs of one layer of the output, of which each source gives one of its `layers`."""
    first, *others = part.sources
    own = names[first.model].get(layers[0], [])
    if layer >= 0 and not own:
        raise RecipeError(f"{first.model} has no tensors of layer {layers[0]}")
    for source, theirs in zip(others, layers[1:], strict=True):
        for name in names[source.model].get(theirs, []):
            _spec(parents, first.model, in_layer(name, layers[0]))
    for name in own:
        inputs = [in_layer(name, theirs) for theirs in layers]
        yield _job(recipe, part, in_layer(name, layer), inputs, depth, parents)


def _names(parents: Parents, model: ModelRef) -> dict[int, list[str]]:
    """A model's tensor names by layer, and what precedes and what follows the layers.

    A tied output head is left out: transformers restores it from the embeddings. So are rotary
    tables, which old checkpoints store and transformers computes.
    """
    checkpoint = parents.checkpoint(model)
    tied = checkpoint.config.get("tie_word_embeddings", False)
    groups: dict[int, list[str]] = {}
    for name in sorted(checkpoint.specs):
        if (tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq"):
            continue
        layer = layer_of(name)
        if layer is None:
            before = any(word in name for word in ("embed", "wte", "wpe"))
            layer = _BEFORE if before else _AFTER
        groups.setdefault(layer, []).append(name)
    return groups


def _job(
    recipe: Recipe, part: Slice, name: str, inputs: list[str], depth: float, parents: Parents
) -> Job:
    base_model = recipe.base_of(part) if recipe.method.sets_base_apart else None
    pairs = list(zip(part.sources, inputs, strict=True))
    specs = [_spec(parents, source.model, tensor) for source, tensor in pairs]
    _check_shapes(name, [source.model for source in part.sources], specs)
    base = next((Input(s.model, n) for s, n in pairs if s.model == base_model), None)
    others = [(s, n) for s, n in pairs if s.model != base_model]
    arguments = {
        parameter.argument: _per_model(recipe, part, parameter, others, name, depth)
        if parameter.per_model
        else _shared(recipe, part, parameter, name, depth)
        for parameter in recipe.method.parameters
    }
    try:
        recipe.method.check(arguments)
    except ValueError as error:
        raise RecipeError(f"{recipe.merge_method}: {error} (for {name})") from None
    out = recipe.out_dtype or recipe.dtype
    return Job(
        name,
        recipe.method,
        base,
        tuple(Input(s.model, n) for s, n in others),
        arguments,
        specs[0].shape,
        getattr(torch, out) if out else _first_dtype(recipe, pairs, parents),
    )


def _per_model(
    recipe: Recipe,
    part: Slice,
    parameter: Parameter,
    others: list[tuple[Source, str]],
    name: str,
    depth: float,
) -> list[Any]:
    """One value for each model: the source's own, else the slice's, else the recipe's."""
    values = []
    for source, tensor in others:
        scopes = (source.parameters, part.parameters, recipe.parameters)
        value = _lookup(scopes, parameter, tensor, depth)
        if value is REQUIRED:
            raise RecipeError(
                f"{recipe.merge_method} needs a {parameter.name} for every model, "
                f"but {source.model} has none for {name}"
            )
        values.append(value)
    return values


def _shared(recipe: Recipe, part: Slice, parameter: Parameter, name: str, depth: float) -> Any:
    value = _lookup((part.parameters, recipe.parameters), parameter, name, depth)
    if value is REQUIRED:
        raise RecipeError(f"{recipe.merge_method} needs a {parameter.name}, but {name} has none")
    return value


def _lookup(scopes: tuple[Any, ...], parameter: Parameter, name: str, depth: float) -> Any:
    for scope in scopes:
        if parameter.name in scope:
            value = evaluate(scope[parameter.name], name, depth)
            if value is not None:
                # a gradient's values lie between those that were checked; 10.0 may mean 10
                return parameter.check(value)
    return parameter.default


def _spec(parents: Parents, model: ModelRef, name: str) -> TensorSpec:
    spec = parents.specs(model).get(name)
    if spec is None:
        raise RecipeError(f"{model} has no tensor {name}; all models must have the same tensors")
    return spec


def _check_shapes(name: str, models: list[ModelRef], specs: list[TensorSpec]) -> None:
    if len({spec.shape for spec in specs}) > 1:
        shapes = ", ".join(f"{list(s.shape)} in {m}" for m, s in zip(models, specs, strict=True))
        raise RecipeError(f"{name} must have one shape in all models, got {shapes}")


def _first_dtype(recipe: Recipe, pairs: list[tuple[Source, str]], parents: Parents) -> torch.dtype:
    """The dtype that the base stores a tensor in, or the first model where there is no base."""
    for source, name in pairs:
        if source.model == recipe.base_model:
            return parents.specs(source.model)[name].dtype
    source, name = pairs[0]
    return parents.specs(source.model)[name].dtype


def _config(recipe: Recipe, slices: list[Slice], parents: Parents) -> dict[str, Any]:
    """The first model's configuration, with what follows a change of depth or dtype."""
    config = parents.alignment.config(parents.checkpoint(recipe.models[0]).config)
    depth = n_layers(parents, recipe.models[0])
    layers = [
        (part.sources[0].model, part.sources[0].layer_range[0] + offset)  # type: ignore[index]
        for part in slices
        for offset in range(part.sources[0].n_layers or 0)
    ]
    for key, value in config.items():
        if key in _DEPTH_KEYS:
            config[key] = len(layers)
        elif isinstance(value, list) and len(value) == depth and key.startswith("layer"):
            config[key] = [parents.checkpoint(m).config.get(key, value)[i] for m, i in layers]
    if dtype := recipe.out_dtype or recipe.dtype:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    return config
