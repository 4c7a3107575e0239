"""The diagonal of the Fisher information of a model's parameters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mergesearch.calibration.texts import Encoded
from mergesearch.merging.threads import Workers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def fisher(
    model: "PreTrainedModel", names: Mapping[str, str], texts: Sequence[Encoded], pool: Workers
) -> dict[str, Tensor]:
    """Average squared gradients of the log-likelihood (arXiv:2111.09832, eq. 3).

    Gradients are of single texts, whose own continuations are the labels: the empirical Fisher
    information. A text counts with the log-likelihood of all that it predicts.

    Args:
        model: with its weights.
        names: of parameters, to what the results are called by.
        texts: at least one.
        pool: runs texts beside each other.

    Returns:
        float32 on the CPU, of the parameters' shapes.
    """
    parameters = {n: p for n, p in model.named_parameters() if n in names}
    total = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in parameters.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    try:
        for gradients in _gradients(model, list(parameters.values()), texts, pool):
            for of, gradient in zip(total.values(), gradients, strict=True):
                if gradient is not None:
                    of.addcmul_(gradient.float(), gradient.float())
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)
    return {names[n]: (of / len(texts)).cpu() for n, of in total.items()}


def nll(model: "PreTrainedModel", text: Encoded) -> Tensor:
    """Compute the negative log-likelihood of a text behind its context, in nats: ()."""
    ids = text.ids.to(model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, text.n_context - 1 : -1]
    wanted = ids[0, text.n_context :]
    return torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")


def _gradients(
    model: "PreTrainedModel",
    parameters: Sequence[Tensor],
    texts: Sequence[Encoded],
    pool: Workers,
) -> Iterator[tuple[Tensor | None, ...]]:
    """Differentiate text by text, in their order."""

    @torch.enable_grad()
    def of_text(text: Encoded) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(nll(model, text), parameters, allow_unused=True)

    return pool.map(of_text, texts)
