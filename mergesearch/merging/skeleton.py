"""The transformers model of a plan, before any weight is written."""

from typing import Any

import torch

from mergesearch.errors import InputError
from mergesearch.merging.conversion import Conversion
from mergesearch.merging.plan import Plan
from mergesearch.merging.spread import Spread, place_of
from mergesearch.parents import configuration


def compute_dtype(plan: Plan, device: torch.device) -> torch.dtype:
    """Choose float32 on the CPU, where bfloat16 is slow, and else the model's own."""
    return torch.float32 if device.type == "cpu" else plan.jobs[0].dtype


def model_config(plan: Plan) -> Any:
    """Make the transformers configuration of a plan's model.

    Raises:
        InputError: transformers knows no such architecture.
    """
    return configuration(plan.config)


def skeleton(plan: Plan, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Make a plan's transformers model, whose parameters have no memory yet.

    Args:
        plan: gives the configuration.
        device: where the model is going to run.
        dtype: what it computes in; None means `compute_dtype`.

    Raises:
        InputError: transformers knows no such architecture.
    """
    from accelerate import init_empty_weights

    dtype, config = dtype or compute_dtype(plan, device), model_config(plan)
    auto = _auto_class(config)
    try:
        # Parameters on the meta device are neither allocated nor initialized; buffers are real,
        # since non-persistent ones (rotary tables) are in no checkpoint.
        with init_empty_weights(include_buffers=False):
            model = auto.from_config(config, dtype=dtype)
    except (KeyError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"transformers cannot build this architecture: {reason}") from None
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    model.tie_weights()
    return model.eval()


def _auto_class(config: Any) -> Any:
    """Choose the class that answers to text: of causal models, or of such with towers.

    Raises:
        InputError: there is none of this architecture.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    # half of an encoder-decoder is listed among causal models too, but is not what people have
    if config.model_type not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
            if type(config) in auto._model_mapping:
                return auto
    raise InputError(
        "only models that continue a text are scored, and transformers has none of the type "
        f"{config.model_type}; merge it without scores, with `mergesearch merge`"
    )


def build(
    plan: Plan,
    device: torch.device,
    dtype: torch.dtype | None = None,
    spread: Spread | None = None,
) -> Any:
    """Make a `skeleton` whose parameters have memory, of which nothing is written yet.

    Args:
        plan: as for `skeleton`.
        device: likewise.
        dtype: likewise.
        spread: over several devices, `device` the first of them.
    """
    model = skeleton(plan, device, dtype)
    allocate(model, device, spread)
    return model


def conversion_of(plan: Plan) -> Conversion:
    """Find how a plan's tensors become a model's, before any has memory.

    Raises:
        InputError: transformers knows no such architecture, or its model has other tensors.
    """
    return Conversion(skeleton(plan, torch.device("meta")), plan.shapes)


def allocate(model: Any, device: torch.device, spread: Spread | None = None) -> None:
    """Give a skeleton's parameters memory, on one device or on several."""
    places = spread.places(model) if spread else {"": device}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            place = place_of(f"{prefix}.{name}".removeprefix("."), places)
            empty = torch.empty_like(parameter, device=place)
            setattr(module, name, torch.nn.Parameter(empty, requires_grad=False))
    model.tie_weights()
    if spread:
        spread.connect(model, places)
