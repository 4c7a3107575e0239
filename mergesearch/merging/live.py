"""The live model: one model in memory, into which candidate after candidate is written."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mergesearch.errors import InputError
from mergesearch.merging.kernel import write
from mergesearch.merging.plan import Plan, plan
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe


def merge_into(model: nn.Module, recipe: Recipe, parents: Parents) -> str:
    """Make a model in memory the recipe's, in place; any number of times, one recipe after another.

    Args:
        model: its parameters are named and shaped as the merged tensors, of any float dtype. They
            get the merged values rounded to the recipe's dtype, so that what is scored is what a
            checkpoint of the recipe would hold.
        recipe: what to merge.
        parents: the recipe's models, opened once (`open_parents`).

    Returns:
        The hash of the merged tensors, the same as that of a checkpoint of the recipe.

    Raises:
        InputError: the recipe cannot be built from these parents, or the model is of another shape.
        CandidateError: a merged value is NaN or infinite; the model is then no candidate.
    """
    return fill(model, plan(recipe, parents), recipe, parents)


def fill(model: nn.Module, work: Plan, recipe: Recipe, parents: Parents) -> str:
    """`merge_into`, for a recipe that is planned already."""
    parameters = {name: parameter.data for name, parameter in model.named_parameters()}
    check_names(work, parameters)
    for job in work.jobs:
        if parameters[job.name].shape != job.shape:
            raise InputError(
                f"the model's {job.name} must have the recipe's shape {list(job.shape)}, "
                f"got {list(parameters[job.name].shape)}"
            )
    return write(work, recipe, parents, parameters)


def check_names(work: Plan, parameters: Mapping[str, object]) -> None:
    """Refuse a model whose parameters are not those that a plan writes.

    Raises:
        InputError: naming one that only one of them has.
    """
    if odd := sorted({job.name for job in work.jobs} ^ parameters.keys()):
        owner = "model" if odd[0] in parameters else "recipe"
        raise InputError(
            f"the model must have the parameters that the recipe writes, but only the {owner} "
            f"has {odd[0]}"
        )


def compute_dtype(shape: Plan, device: torch.device) -> torch.dtype:
    """Float32 on the CPU, where bfloat16 is slow, and the merged model's own dtype elsewhere."""
    return torch.float32 if device.type == "cpu" else shape.jobs[0].dtype


def model_config(shape: Plan) -> Any:
    """The configuration of a plan's model.

    Raises:
        InputError: transformers knows no such architecture.
    """
    from transformers import AutoConfig

    config = dict(shape.config)
    try:
        return AutoConfig.for_model(config.pop("model_type"), **config)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"transformers cannot build this architecture: {error}") from None


def skeleton(shape: Plan, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """A transformers model of a plan's configuration whose parameters have no memory yet.

    Args:
        shape: the plan.
        device: where the model is going to run.
        dtype: what it computes in; None means `compute_dtype`.

    Raises:
        InputError: transformers knows no such architecture, or names its tensors otherwise.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    dtype, config = dtype or compute_dtype(shape, device), model_config(shape)
    try:
        # Parameters on the meta device are neither allocated nor initialized; buffers are real,
        # since non-persistent ones (rotary tables) are in no checkpoint.
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"transformers cannot build this architecture: {error}") from None
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    model.tie_weights()
    check_names(shape, dict(model.named_parameters()))
    return model.eval()


def build(shape: Plan, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """A `skeleton` whose parameters have memory, of which nothing is written yet."""
    model = skeleton(shape, device, dtype)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty_like(parameter, device=device)
            setattr(module, name, torch.nn.Parameter(empty, requires_grad=False))
    model.tie_weights()
    return model
