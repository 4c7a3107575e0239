"""The live model: one model in memory, into which candidate after candidate is written."""

from typing import Any

import torch

from mergesearch.errors import CandidateError, InputError
from mergesearch.merging.digest import Digest
from mergesearch.merging.kernel import run
from mergesearch.merging.plan import Plan, plan
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe


class LiveModel:
    """A transformers model that stays resident while its weights change in place.

    Args:
        shape: a plan whose configuration every later candidate shares (its depth above all).
        device: where the model runs.
        dtype: what it computes in; None means float32 on the CPU, where bfloat16 is slow, and the
            merged model's own dtype elsewhere. Weights are rounded to the recipe's dtype first, so
            that what is scored is what is exported.
    """

    def __init__(self, shape: Plan, device: torch.device, dtype: torch.dtype | None = None) -> None:
        if dtype is None:
            dtype = torch.float32 if device.type == "cpu" else shape.jobs[0].dtype
        self.model = build(shape, device, dtype)
        self._parameters = dict(self.model.named_parameters())
        self._depth = len(shape.jobs)

    def write(self, recipe: Recipe, parents: Parents) -> str:
        """Make the live model the recipe's, in place.

        Returns:
            The hash of the merged tensors, as a checkpoint of the recipe would hold them.

        Raises:
            CandidateError: a merged value is NaN or infinite; the model is then no candidate.
            RecipeError: the recipe cannot be built from these parents.
        """
        work = plan(recipe, parents)
        if len(work.jobs) != self._depth:
            raise CandidateError("the candidate has another depth than the live model")
        digest = Digest()
        with torch.no_grad():
            for name, tensor in run(work, recipe, parents):
                digest.add(name, tensor)
                self._parameters[name].copy_(tensor)
        return digest.hexdigest()


def build(shape: Plan, device: torch.device, dtype: torch.dtype) -> Any:
    """A transformers model of a plan's configuration, its weights not yet written.

    Raises:
        InputError: transformers knows no such architecture, or names its tensors otherwise.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(shape.config)
    try:
        # Parameters on the meta device are neither allocated nor initialized; buffers are real,
        # since non-persistent ones (rotary tables) are in no checkpoint.
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(config.pop("model_type"), **config), dtype=dtype
            )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"transformers cannot build this architecture: {error}") from None
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty_like(parameter, device=device)
            setattr(module, name, torch.nn.Parameter(empty, requires_grad=False))
    model.to(device)
    model.tie_weights()
    ours = {job.name for job in shape.jobs}
    theirs = {name for name, _ in model.named_parameters()}
    if odd := sorted(ours ^ theirs):
        raise InputError(
            f"{config.get('architectures')}: the checkpoint's tensors are not named as the "
            f"model's, e.g. {odd[0]}"
        )
    return model.eval()
