"""The lm-eval model `mergesearch`: a recipe, merged in memory, scored by lm-eval.

Importing this module registers it:

    import lm_eval
    import mergesearch.integrations.lm_eval

    lm_eval.simple_evaluate("mergesearch", model_args="recipe=recipe.yaml", tasks=["hellaswag"])

On the command line it is `mergesearch lm-eval --model mergesearch --model_args recipe=...`, and
plain `lm_eval` where its release discovers plugins.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from mergesearch.api import recipe_of
from mergesearch.calibration import calibrated
from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.merging import LiveModel
from mergesearch.parents import Parents, tokenizer_of
from mergesearch.runtime import choose_device, merges_on

#: Arguments of lm-eval's `hf` that concern a model which is in memory already.
_OPTIONS = (
    "add_bos_token",
    "chat_template_args",
    "enable_thinking",
    "logits_cache",
    "max_batch_size",
    "max_length",
    "mixed_precision_dtype",
    "prefix_token_id",
    "softmax_dtype",
    "think_end_token",
    "truncation",
)


@register_model("mergesearch")
class RecipeLM(HFLM):
    """A recipe as lm-eval's Hugging Face model; no checkpoint is written.

    Args:
        recipe: a mergekit YAML file, a checkpoint's folder, or `model+adapter`.
        device: "auto", "cpu", "cuda", "mps", or one of several, such as "cuda:1". As with `hf`,
            CUDA where there is none is no error, since lm-eval's command line asks for it.
        dtype: that the model computes in, such as "bfloat16"; "auto" is float32 on the CPU and the
            recipe's own elsewhere.
        batch_size: rows a forward pass, or "auto".
        memory_budget: bytes that merging may bring the process to; None is 80 % of what there is.
        allow_mismatch: merge models whose weights are of different functions.
        options: further arguments of `hf` that concern a model in memory, such as `max_length`.

    Raises:
        InputError: the recipe, a model of it, or an argument is wrong.
        CandidateError: a merged value is NaN or infinite.
    """

    def __init__(
        self,
        recipe: str | Path = "",
        *,
        device: str | None = "auto",
        dtype: str | torch.dtype = "auto",
        batch_size: int | str = 1,
        memory_budget: int | None = None,
        allow_mismatch: bool = False,
        **options: Any,
    ) -> None:
        for name in options.keys() - set(_OPTIONS):
            ours = ("recipe", "device", "dtype", "batch_size", "memory_budget", "allow_mismatch")
            takes = (*ours, *_OPTIONS)
            raise InputError(unknown("argument of the model mergesearch", name, takes))
        if not recipe:
            raise InputError("the model mergesearch needs a recipe: --model_args recipe=PATH")
        if memory_budget is not None and not isinstance(memory_budget, int):
            raise InputError(f"memory_budget must be in bytes, got {memory_budget!r}")
        computes_in = _dtype(dtype)
        no_cuda = str(device).startswith("cuda") and not torch.cuda.is_available()
        torch_device = choose_device("auto" if device is None or no_cuda else device)
        merge = recipe_of(recipe)
        parents = Parents.of(
            merge,
            keep=False,
            device=merges_on(torch_device),
            memory_budget=memory_budget,
            allow_mismatch=bool(allow_mismatch),
        )
        tokenizer = tokenizer_of(parents)
        live = LiveModel(parents, torch_device, computes_in)
        with calibrated(merge, parents):
            live.become(merge)
        with quiet():  # it warns of arguments that are ignored, and none is given
            super().__init__(
                pretrained=live.model,
                tokenizer=tokenizer,
                backend="causal",
                batch_size=batch_size,
                **options,
            )


def _dtype(name: str | torch.dtype) -> torch.dtype | None:
    """Look up the dtype of a name; None stands for "auto"."""
    if name == "auto":
        return None
    known = name if isinstance(name, torch.dtype) else getattr(torch, str(name), None)
    if not isinstance(known, torch.dtype) or not known.is_floating_point:
        raise InputError(f"dtype must be auto, float32, bfloat16 or float16, got {name!r}")
    return known


def run_lm_eval(arguments: Sequence[str]) -> None:
    """lm-eval's own command line, which then knows the model `mergesearch`.

    Raises:
        SystemExit: as lm-eval ends it.
        InputError: as for `RecipeLM`.
    """
    ours = sys.argv
    sys.argv = ["lm-eval", *arguments]  # lm-eval looks here whether a subcommand is named
    try:
        cli_evaluate()
    finally:
        sys.argv = ours
