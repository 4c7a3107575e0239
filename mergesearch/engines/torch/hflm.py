"""lm-eval's own model class: its tokenisation, and its whole path where needed.

The one file of an engine that uses lm-eval, private parts of it among them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mergesearch.engines.base import UnfitRequestError
from mergesearch.engines.torch.generation import Prompt
from mergesearch.engines.torch.packing import TokenPair
from mergesearch.errors import CandidateError
from mergesearch.requests import (
    Generation,
    Likelihood,
    LogLikelihood,
    RollingLogLikelihood,
    Written,
)


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
        self._encoded: list[TokenPair] | None = None
        self._ends: dict[tuple[str, ...], frozenset[int]] = {}

    def encode(
        self, requests: Sequence[LogLikelihood] | Sequence[RollingLogLikelihood]
    ) -> tuple[list[TokenPair], np.ndarray]:
        """Encode log-likelihood requests of one kind as lm-eval does.

        Returns:
            What lm-eval would ask of the model, a rolling text in windows, and of each the index
            of its request.

        Raises:
            UnfitRequestError: a continuation has no tokens, or more than the context holds.
        """
        rolling = isinstance(requests[0], RollingLogLikelihood)
        kind = "loglikelihood_rolling" if rolling else "loglikelihood"
        texts = (
            (r.text,) if isinstance(r, RollingLogLikelihood) else (r.context, r.continuation)
            for r in requests
        )
        instances = [Instance(kind, {}, text, i) for i, text in enumerate(texts)]
        encoded: list[TokenPair] = []
        self._encoded = encoded
        try:
            counts = getattr(self, kind)(instances, disable_tqdm=True)
        except AssertionError as error:  # how lm-eval states what a request must fit
            reason = str(error) or "a choice has no tokens, or more than the context holds"
            raise UnfitRequestError(reason) from error
        finally:
            self._encoded = None
        indices = np.arange(len(instances))
        return encoded, np.repeat(indices, [int(n) for n in counts]) if rolling else indices

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[Likelihood]:
        """Answer encoded requests, or note them and count each as one while encoding."""
        if self._encoded is None:
            return super()._loglikelihood_tokens(list(requests), disable_tqdm=True)
        for _, context, continuation in requests:
            self._encoded.append(self._truncated(context, continuation))
        return [(1.0, False)] * len(requests)

    def _truncated(self, context: list[int], continuation: list[int]) -> TokenPair:
        """Cut a request on the left to the model's context, as lm-eval does."""
        assert context and continuation
        assert len(continuation) <= self.max_length
        whole = [*context, *continuation][-(self.max_length + 1) :]
        return whole[: -len(continuation)], list(continuation)

    def prompt(self, request: Generation) -> Prompt:
        """Encode a request to generate and cut it on the left as lm-eval does.

        Raises:
            UnfitRequestError: what is to be written leaves no room for a prompt.
        """
        options = dict(normalize_gen_kwargs(dict(request.options), self.max_gen_toks))
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(options.pop("until", None), eos=end)
        max_gen_toks = options.pop("max_gen_toks")
        room = self.max_length - max_gen_toks
        if room <= 0:
            raise UnfitRequestError(
                f"max_gen_toks ({max_gen_toks}) must be less than the model's context "
                f"({self.max_length})"
            )
        ids, _ = self.tok_batch_encode([request.prompt], left_truncate_len=room)
        return Prompt(ids[0].tolist(), tuple(until), max_gen_toks, options)

    def ends(self, prompt: Prompt) -> frozenset[int]:
        """Give the special tokens that end a prompt's continuation, which are in no text."""
        if prompt.until not in self._ends:
            self._ends[prompt.until] = frozenset(
                i
                for i, token in self.tokenizer.added_tokens_decoder.items()
                if token.special and any(end and end in token.content for end in prompt.until)
            )
        return self._ends[prompt.until]

    def text(self, tokens: Sequence[int], prompt: Prompt) -> Written:
        """Decode a continuation and end it as its prompt asks.

        What a row went on to write behind a special token that ends it, beside others that had
        not ended, is dropped.
        """
        ends = self.ends(prompt)
        written = list(takewhile(lambda token: token not in ends, tokens))
        decoded = self.tok_decode(written)
        text = postprocess_generated_text(decoded, list(prompt.until), None)
        # padding, or an end of generation_config.json's, is a special token as well
        ended = written != tokens or not {*tokens[-1:]} - {*self.tokenizer.all_special_ids}
        return Written(text, cut=not ended and text == decoded)

    def describe(self) -> Mapping[str, Any]:
        """Describe the model and the tokenizer; see `Engine.describe`."""
        from lm_eval.loggers.utils import add_tokenizer_info  # slow to import

        facts = {"config": {**self.get_model_info(), "device": str(self.model.device)}}
        add_tokenizer_info(facts, self)
        return facts

    def plain(self, pairs: Sequence[TokenPair]) -> list[Likelihood]:
        """Answer by lm-eval's own path."""
        if not pairs:
            return []
        # It keeps one answer of requests that are equal in context and all but the last token of
        # the continuation, however they are split; so those are asked apart.
        answers: dict[int, Likelihood] = {}
        rounds: dict[int, list[int]] = {}
        seen: dict[tuple[int, ...], list[int]] = {}
        for i, (context, continuation) in enumerate(pairs):
            splits = seen.setdefault((*context, *continuation[:-1]), [])
            if len(context) not in splits:
                splits.append(len(context))
            rounds.setdefault(splits.index(len(context)), []).append(i)
        for members in rounds.values():
            asked = [(None, *pairs[i]) for i in members]
            answers.update(zip(members, self._loglikelihood_tokens(asked), strict=True))
        return [answers[i] for i in range(len(pairs))]

    def generate(self, ids: Tensor, mask: Tensor, prompt: Prompt, **cache: Any) -> list[list[int]]:
        """Generate the continuations of one batch, as token ids.

        Args:
            ids: contexts, padded on the left, (rows, columns).
            mask: 1 where there is a token, of the same shape.
            prompt: one of them, for its options.
            cache: the argument with a cache of the first columns, where there is one.

        Raises:
            CandidateError: the model's logits are not finite.
        """
        options = {"max_length": ids.shape[1] + prompt.max_gen_toks, **prompt.options, **cache}
        with _finite_logits(self.model):
            rows = self._model_generate(
                context=ids, attention_mask=mask, stop=list(prompt.until), **options
            )
        rows = getattr(rows, "sequences", rows)  # with `return_dict_in_generate`
        return rows[:, ids.shape[1] :].tolist()


@contextmanager
def _finite_logits(model: PreTrainedModel) -> Iterator[None]:
    """Stop a generation that would go on silently from NaN."""

    def check(_: Any, __: Any, output: Any) -> None:
        # -inf is what a model gives a token that it rules out.
        logits = output.logits[:, -1]
        if bool((logits.isnan() | logits.isposinf()).any()):
            raise CandidateError("the model's logits are not finite")

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()
