"""Requests on a live model: lm-eval's own model class, with a faster log-likelihood path.

lm-eval runs a context again for each continuation of more than one token, and the output layer at
every position. Here a context runs once (see `packing`), and the output layer only where a
continuation is scored. Generation, rolling windows, tokenisation and truncation stay lm-eval's.
"""

import inspect
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mergesearch.errors import CandidateError
from mergesearch.evaluation.packing import Request, Row, batch, pack

log = logging.getLogger(__name__)

#: Log-probability of a continuation, and whether greedy decoding would give it.
Answer = tuple[float, bool]

#: lm-eval's seed, for tasks that sample.
_SEED = 1234

#: How far the two paths may differ in a token's log-probability, by the precision of the weights.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.15}

#: Attributes of a model's config that bound how far a layer looks back.
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")


class Scorer:
    """Answers requests on live models; what does not change between candidates is kept.

    Args:
        tokenizer: of the models.
        batch_size: rows a forward pass.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._token_ids: dict[tuple[str, bool | None], list[int]] = {}
        self._packable: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()

    def answer(self, model: PreTrainedModel, requests: Sequence[Instance]) -> None:
        """Replace the responses of each request by those of the model.

        Args:
            model: as it is now; its weights may have changed since the last call.
            requests: of one task.

        Raises:
            CandidateError: the model's logits are not finite.
        """
        harness = _Harness(model, self._tokenizer, self._batch_size, self._token_ids)
        by_kind: dict[str, list[Instance]] = {}
        for request in requests:
            by_kind.setdefault(request.request_type, []).append(request)
        for kind, members in by_kind.items():
            if kind == "generate_until":
                torch.manual_seed(_SEED)
            else:
                if model not in self._packable:
                    self._packable[model] = harness.packs_safely()
                harness.packs = self._packable[model]
            # lm-eval asks a request as often as its task repeats it.
            repeated = [request for request in members for _ in range(request.repeats)]
            replies = iter(getattr(harness, kind)(repeated, disable_tqdm=True))
            for request in members:
                request.resps = [_finite(next(replies), request) for _ in range(request.repeats)]
                request.filtered_resps = {}


class _Harness(HFLM):
    """lm-eval's model around a model in memory."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        token_ids: dict[tuple[str, bool | None], list[int]],
    ) -> None:
        super().__init__(
            pretrained=model,
            backend="causal",
            tokenizer=tokenizer,
            batch_size=batch_size,
            softmax_dtype="float32",
        )
        self.packs = False
        self._token_ids = token_ids

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """lm-eval's encoding, remembered: every candidate asks for the same texts."""
        if left_truncate_len is not None or kwargs:
            return super().tok_encode(string, add_special_tokens, left_truncate_len, **kwargs)
        key = (string, add_special_tokens)
        if key not in self._token_ids:
            self._token_ids[key] = super().tok_encode(string, add_special_tokens)
        return self._token_ids[key]

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[Answer]:
        """Answers in the order of the requests; `override_bs` is for automatic batch sizes."""
        if not self.packs:
            return self._plain(requests)
        rows, unpacked = pack(requests, self._longest_row())
        answers: dict[int, Answer] = {}
        for start in range(0, len(rows), self.batch_size):
            answers.update(self._forward(rows[start : start + self.batch_size]))
        answers.update(zip(unpacked, self._plain([requests[i] for i in unpacked]), strict=True))
        return [answers[i] for i in range(len(requests))]

    def _plain(self, requests: Sequence[Request]) -> list[Answer]:
        """lm-eval's own path."""
        if not requests:
            return []
        return super()._loglikelihood_tokens(list(requests), disable_tqdm=True)

    def _forward(self, rows: Sequence[Row]) -> Iterator[tuple[int, Answer]]:
        """Answers of one batch of rows, each with the index of its request."""
        packed = batch(rows, self.device)
        with torch.no_grad():
            logits = self.model(
                input_ids=packed.ids,
                attention_mask=packed.attention_mask(self.model.dtype),
                position_ids=packed.positions,
                use_cache=False,
                logits_to_keep=packed.n_kept,
            ).logits  # (rows, kept columns, vocabulary)
            place = packed.scored_row, packed.scored_column
            # Row by row, for the float32 copy of the logits to stay small.
            normaliser = torch.stack([row.float().logsumexp(-1) for row in logits])
            logprob = logits[*place, packed.scored_id].float() - normaliser[place]
            greedy = logits.argmax(-1)[place] == packed.scored_id
            scored = torch.stack([logprob, greedy.float()]).cpu().numpy()  # the batch's one sync
        for owner in np.unique(packed.owners):
            logprobs, hits = scored[:, packed.owners == owner]
            yield int(owner), (float(logprobs.sum()), bool(hits.all()))

    def _longest_row(self) -> int:
        """Columns up to which a packed row is right: within the context and any local window."""
        config = self.model.config.get_text_config()
        windows = [getattr(config, name, None) for name in _WINDOWS]
        return min([self.max_length, *(w for w in windows if isinstance(w, int) and w > 0)])

    def packs_safely(self) -> bool:
        """Whether packed rows give this model's own answers, by trying both on two short rows.

        Raises:
            CandidateError: the model's logits are not finite.
        """
        draw = np.random.default_rng(_SEED).integers
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        requests: list[Request] = [
            (None, context, draw(vocabulary, size=n).tolist())
            for context in (draw(vocabulary, size=9).tolist(), draw(vocabulary, size=5).tolist())
            for n in (1, 3, 2)
        ]
        plain = self._plain(requests)
        if not all(math.isfinite(logprob) for logprob, _ in plain):
            raise CandidateError("the model's logits are not finite")
        reason = self._why_not_packed(requests, plain)
        if reason:
            name = type(self.model).__name__
            log.warning("%s: log-likelihoods take lm-eval's own, slower path: %s", name, reason)
        return not reason

    def _why_not_packed(self, requests: Sequence[Request], plain: Sequence[Answer]) -> str:
        """What keeps the model from packed rows, or nothing."""
        takes = inspect.signature(self.model.forward).parameters
        missing = {"attention_mask", "position_ids", "logits_to_keep"} - takes.keys()
        if missing:
            return f"its forward pass takes no {', '.join(sorted(missing))}"
        rows, _ = pack(requests, sum(len(context) for _, context, _ in requests))
        try:
            packed = dict(self._forward(rows))
        except torch.OutOfMemoryError:
            raise
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            return f"it cannot run packed rows ({str(error).splitlines()[0]})"
        apart = max(
            abs(packed[i][0] - logprob) / len(continuation)
            for i, ((_, _, continuation), (logprob, _)) in enumerate(
                zip(requests, plain, strict=True)
            )
        )
        tolerance = _TOLERANCE.get(self.model.dtype, 0.0)
        return "" if apart <= tolerance else f"packed rows differ by {apart:.2g} a token"

    def _model_generate(self, *args: Any, **kwargs: Any) -> Tensor:
        return super()._model_generate(
            *args, logits_processor=LogitsProcessorList([_FiniteLogits()]), **kwargs
        )


class _FiniteLogits(LogitsProcessor):
    """Stops a generation that would go on silently from NaN."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # -inf is what other processors give a token that they rule out.
        if bool((scores.isnan() | scores.isposinf()).any()):
            raise CandidateError("the model's logits are not finite")
        return scores


def _finite(reply: Any, request: Instance) -> Any:
    """The reply, unless it is a log-likelihood, alone or with a flag, that is not finite."""
    logprob = reply[0] if isinstance(reply, tuple) else reply
    if isinstance(logprob, float) and not math.isfinite(logprob):
        raise CandidateError(f"document {request.doc_id}: log-likelihood is {logprob}")
    return reply
