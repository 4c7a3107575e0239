"""lm-eval's own model class: its tokenisation for every path, and its whole path where needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mergesearch.engines.torch.loglikelihood import Answer
from mergesearch.engines.torch.packing import Request
from mergesearch.errors import CandidateError


@dataclass(frozen=True)
class Prompt:
    """A context to be continued."""

    tokens: list[int]
    #: Strings that end the continuation.
    until: tuple[str, ...]
    max_gen_toks: int
    #: Further arguments of `generate`, as the task gives them.
    options: dict[str, Any]


class Harness(HFLM):
    """lm-eval's model around a model in memory."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ) -> None:
        super().__init__(
            pretrained=model,
            backend="causal",
            tokenizer=tokenizer,
            batch_size=batch_size,
            softmax_dtype="float32",
        )
        self._encoded: list[Request] | None = None

    def encode(self, kind: str, instances: Sequence[Instance]) -> tuple[list[Request], np.ndarray]:
        """What lm-eval would ask of the model, and the index of the instance each is a part of.

        Args:
            kind: "loglikelihood", or "loglikelihood_rolling", whose texts go in windows.
            instances: of that kind.
        """
        self._encoded = []
        counts = getattr(self, kind)(list(instances), disable_tqdm=True)
        encoded, self._encoded = self._encoded, None
        if kind == "loglikelihood":
            return encoded, np.arange(len(instances))
        return encoded, np.repeat(np.arange(len(instances)), [int(n) for n in counts])

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[Answer]:
        """Where every encoded request comes by: while encoding, each counts one."""
        if self._encoded is None:
            return super()._loglikelihood_tokens(list(requests), disable_tqdm=True)
        for _, context, continuation in requests:
            self._encoded.append(self._truncated(context, continuation))
        return [(1.0, False)] * len(requests)

    def _truncated(self, context: list[int], continuation: list[int]) -> Request:
        """The request within the model's context, cut on the left as lm-eval cuts it."""
        assert context and continuation
        assert len(continuation) <= self.max_length
        whole = [*context, *continuation][-(self.max_length + 1) :]
        return whole[: -len(continuation)], list(continuation)

    def prompt(self, instance: Instance) -> Prompt:
        """A request to generate, encoded and cut on the left as lm-eval does it."""
        context, given = instance.args
        options = dict(normalize_gen_kwargs(given, self.max_gen_toks))
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(options.pop("until", None), eos=end)
        max_gen_toks = options.pop("max_gen_toks")
        room = self.max_length - max_gen_toks
        assert room > 0, (
            f"max_gen_toks ({max_gen_toks}) must be less than the model's context "
            f"({self.max_length})"
        )
        ids, _ = self.tok_batch_encode([context], left_truncate_len=room)
        return Prompt(ids[0].tolist(), tuple(until), max_gen_toks, options)

    def plain(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers by lm-eval's own path."""
        if not requests:
            return []
        # It keeps one answer of requests that are equal in context and all but the last token of
        # the continuation, however they are split; so those are asked apart.
        answers: dict[int, Answer] = {}
        rounds: dict[int, list[int]] = {}
        seen: dict[tuple[int, ...], list[int]] = {}
        for i, (context, continuation) in enumerate(requests):
            splits = seen.setdefault((*context, *continuation[:-1]), [])
            if len(context) not in splits:
                splits.append(len(context))
            rounds.setdefault(splits.index(len(context)), []).append(i)
        for members in rounds.values():
            asked = [(None, *requests[i]) for i in members]
            answers.update(zip(members, self._loglikelihood_tokens(asked), strict=True))
        return [answers[i] for i in range(len(requests))]

    def _model_generate(self, *args: Any, **kwargs: Any) -> Tensor:
        return super()._model_generate(
            *args, logits_processor=LogitsProcessorList([_FiniteLogits()]), **kwargs
        )

    def generate(self, ids: Tensor, mask: Tensor, prompt: Prompt, **behind: Any) -> list[list[int]]:
        """Continuations of one batch, as token ids.

        Args:
            ids: contexts, padded on the left, (rows, columns).
            mask: 1 where there is a token, of the same shape.
            prompt: one of them, for its options.
            behind: a cache of the first columns, where there is one.
        """
        options = {"max_length": ids.shape[1] + prompt.max_gen_toks, **prompt.options, **behind}
        found = self._model_generate(
            context=ids, attention_mask=mask, stop=list(prompt.until), **options
        )
        return found[:, ids.shape[1] :].tolist()


class _FiniteLogits(LogitsProcessor):
    """Stops a generation that would go on silently from NaN."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # -inf is what other processors give a token that they rule out.
        if bool((scores.isnan() | scores.isposinf()).any()):
            raise CandidateError("the model's logits are not finite")
        return scores
