"""A trial of the faster paths on a few short requests, beside lm-eval's own path."""

import inspect
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from transformers import GenerationConfig

from mergesearch.engines.torch.generation import Prompt, continuations, prompt_batches
from mergesearch.engines.torch.loglikelihood import loglikelihoods
from mergesearch.engines.torch.packing import TokenPair, batch_of, contexts_of, groups_of, rows_of
from mergesearch.engines.torch.prefix import Prefixes, cache_argument
from mergesearch.errors import CandidateError
from mergesearch.requests import Likelihood

if TYPE_CHECKING:
    from mergesearch.engines.torch.hflm import Harness

log = logging.getLogger(__name__)

#: How far two paths may differ in a token's log-probability, by the precision of the weights.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.15}

_SEED = 1234

T = TypeVar("T")


@dataclass(frozen=True)
class FastPaths:
    """Those of the faster paths that give a model's own answers."""

    #: Several contexts and continuations in one row.
    packs: bool
    #: Rows behind a prefix that ran before them.
    shares: bool


def probe(harness: "Harness") -> FastPaths:
    """Try both paths beside lm-eval's own; what fails is left out, and said.

    Raises:
        CandidateError: the model's logits are not finite.
    """
    pairs = _some_pairs(harness)
    plain = harness.plain(pairs)
    if not all(math.isfinite(logprob) for logprob, _ in plain):
        raise CandidateError("the model's logits are not finite")
    name = type(harness.model).__name__
    reason = _missing_arguments(harness) or _difference(harness, pairs, plain, None)
    if reason:
        log.warning("%s: log-likelihoods take lm-eval's own, slower path: %s", name, reason)
        return FastPaths(packs=False, shares=False)
    reason = _difference(harness, pairs, plain, 1) or _difference_of_texts(harness, pairs)
    if reason:
        log.warning("%s: shared prefixes run again for every document: %s", name, reason)
    return FastPaths(packs=True, shares=not reason)


def _some_pairs(harness: "Harness") -> list[TokenPair]:
    """Draw six continuations of two contexts that begin alike."""
    draw = np.random.default_rng(_SEED).integers
    n = harness.model.get_input_embeddings().weight.shape[0]
    prefix = draw(n, size=4).tolist()
    return [
        ([*prefix, *context], draw(n, size=length).tolist())
        for context in (draw(n, size=5).tolist(), draw(n, size=2).tolist())
        for length in (1, 3, 2)
    ]


def _missing_arguments(harness: "Harness") -> str:
    takes = inspect.signature(harness.model.forward).parameters
    missing = {"attention_mask", "position_ids", cache_argument(harness.model)} - takes.keys()
    if missing:
        return f"its forward pass takes no {', '.join(sorted(missing))}"
    return "" if harness.model.get_output_embeddings() is not None else "it has no output layer"


def _difference(
    harness: "Harness", pairs: Sequence[TokenPair], plain: Sequence[Likelihood], saving: int | None
) -> str:
    """Say why not to pack: packed answers that differ from lm-eval's, or nothing."""

    def packed() -> dict[int, Likelihood]:
        prefixes = Prefixes(harness.model)
        answers: dict[int, Likelihood] = {}
        contexts = contexts_of(((i, *r) for i, r in enumerate(pairs)), 100)
        for group in groups_of(contexts, saving):
            batch = batch_of(group.prefix, rows_of(group, 100), harness.device)
            answers.update(loglikelihoods(harness.model, prefixes, batch))
        return answers

    answers, failure = _tried(packed)
    if answers is None:
        return failure
    apart = max(
        abs(answers[i][0] - logprob) / len(pairs[i][1]) for i, (logprob, _) in enumerate(plain)
    )
    tolerance = TOLERANCE.get(harness.model.dtype, 0.0)
    return "" if apart <= tolerance else f"packed rows differ by {apart:.2g} a token"


def _difference_of_texts(harness: "Harness", pairs: Sequence[TokenPair]) -> str:
    """Say why not to share prefixes in generation, or nothing.

    What is tried is the module, so that its own settings, under which it may stop at once, or need
    other batches, are set aside meanwhile.
    """
    model = harness.model
    contexts = {tuple(context): None for context, _ in pairs}
    prompts = [Prompt(list(context), (), 3, {"do_sample": False}) for context in contexts]

    def texts(saving: int | None) -> dict[int, str]:
        generated: dict[int, str] = {}
        for batch in prompt_batches(
            prompts,
            model.generation_config,
            least_saving=saving,
            rows_of=lambda _: len(prompts),
            pad_id=harness.tokenizer.pad_token_id,
            device=harness.device,
        ):
            generated.update(continuations(harness, Prefixes(model), batch))
        return generated

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        shared, failure = _tried(lambda: texts(1))
        if shared is None:
            return failure
        return "" if shared == texts(None) else "it generates another text"
    finally:
        model.generation_config = own


def _tried(path: Callable[[], T]) -> tuple[T | None, str]:
    """Go a path: its result, or the reason why it cannot be gone."""
    try:
        return path(), ""
    except torch.OutOfMemoryError:
        raise
    except (
        AttributeError,
        IndexError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        return None, f"it cannot run packed rows ({str(error).splitlines()[0]})"
