"""The transformers model of a plan, before any weight is written."""

from collections.abc import Mapping
from typing import Any

import torch

from mergesearch.errors import InputError
from mergesearch.merging.plan import Plan
from mergesearch.parents import Parents, in_layer


def compute_dtype(plan: Plan, device: torch.device) -> torch.dtype:
    """Choose float32 on the CPU, where bfloat16 is slow, and else the model's own."""
    return torch.float32 if device.type == "cpu" else plan.jobs[0].dtype


def model_config(plan: Plan) -> Any:
    """Make the transformers configuration of a plan's model.

    Raises:
        InputError: transformers knows no such architecture.
    """
    return _configuration(plan.config)


def _configuration(config: Mapping[str, Any]) -> Any:
    """Make the transformers configuration of a `config.json`.

    Raises:
        InputError: transformers knows no such architecture.
    """
    from transformers import AutoConfig

    config = dict(config)
    try:
        return AutoConfig.for_model(config.pop("model_type"), **config)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"transformers cannot build this architecture: {error}") from None


def skeleton(plan: Plan, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Make a plan's transformers model, whose parameters have no memory yet.

    Args:
        plan: gives the configuration.
        device: where the model is going to run.
        dtype: what it computes in; None means `compute_dtype`.

    Raises:
        InputError: transformers knows no such architecture, or names its tensors otherwise.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    dtype, config = dtype or compute_dtype(plan, device), model_config(plan)
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
    check_names(plan, dict(model.named_parameters()))
    return model.eval()


def build(plan: Plan, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Make a `skeleton` whose parameters have memory, of which nothing is written yet."""
    model = skeleton(plan, device, dtype)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty_like(parameter, device=device)
            setattr(module, name, torch.nn.Parameter(empty, requires_grad=False))
    model.tie_weights()
    return model


def check_stack(plan: Plan, parents: Parents) -> None:
    """Refuse a stack that its configuration would not load.

    Its class in transformers is made without memory, and compared by names and shapes. A class that
    names the tensors of the parent itself otherwise says nothing, and neither does code of a
    model's own, which is never run.

    Raises:
        InputError: naming a tensor that would be missing, unexpected, or of another shape.
    """
    first = parents.checkpoint(parents.models[0])
    known = _shapes(first.config)
    if known is None or not known.keys() <= first.specs.keys():
        return
    expected = _shapes(plan.config)
    if expected is None:
        raise InputError("transformers cannot build the stack's configuration; merge whole models")
    written = {job.name: job.shape for job in plan.jobs}
    parameters = {in_layer(name, 0) for name in known}
    for name in sorted(written.keys() | expected.keys()):
        # what is beside the class's parameters is so in the parent as well
        if in_layer(name, 0) in parameters and written.get(name) != expected.get(name):
            raise InputError(
                f"a stack must have the tensors that its config.json means, but {name} is "
                f"{_shape(written.get(name))} of the stack's, and {_shape(expected.get(name))} "
                "there; merge whole models"
            )


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """Give the shapes of a configuration's parameters; None where it makes no model."""
    import transformers

    names = config.get("architectures") or [""]
    architecture = getattr(transformers, str(names[0]), None)
    if architecture is None:
        return None
    try:
        with torch.device("meta"):
            model = architecture(_configuration(config))
    except (InputError, KeyError, ValueError, TypeError):
        return None
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def check_names(plan: Plan, parameters: Mapping[str, object]) -> None:
    """Refuse a model whose parameters are not those that a plan writes.

    Raises:
        InputError: naming one that only one of them has.
    """
    if odd := sorted({job.name for job in plan.jobs} ^ parameters.keys()):
        owner = "model" if odd[0] in parameters else "recipe"
        raise InputError(
            f"the model must have the parameters that the recipe writes, but only the {owner} "
            f"has {odd[0]}"
        )
