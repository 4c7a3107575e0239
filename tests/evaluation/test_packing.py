"""Packed rows: the same answers as one request at a time, or lm-eval's own path."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.evaluation import Evaluator
from mergesearch.evaluation.packing import Request, batch, pack
from mergesearch.evaluation.scorer import Answer, _Harness

MakeModel = Callable[..., PreTrainedModel]


def random_requests(seed: int, n_contexts: int = 6) -> list[Request]:
    draw = np.random.default_rng(seed).integers
    return [
        (None, context, draw(3, 80, size=n).tolist())
        for context in (draw(3, 80, size=n).tolist() for n in draw(1, 30, size=n_contexts))
        for n in draw(1, 7, size=5)
    ]


def harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, packs: bool) -> _Harness:
    harness = _Harness(model, tokenizer, 4, {})
    harness.packs = packs
    return harness


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_answers_are_those_of_requests_alone(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, architecture: str, attention: str
) -> None:
    model = make_model(architecture)
    model.set_attn_implementation(attention)
    requests = random_requests(0)
    packed = harness(model, tokenizer, True)._loglikelihood_tokens(requests)
    plain = harness(model, tokenizer, False)
    for request, (logprob, greedy) in zip(requests, packed, strict=True):
        ((expected, expected_greedy),) = plain._loglikelihood_tokens([request])
        assert logprob == pytest.approx(expected, abs=1e-4)
        assert greedy == expected_greedy


def test_an_answer_is_greedy_where_every_token_is(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    context = [5, 9, 14, 30]
    ids = torch.tensor([context])
    for _ in range(3):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    best = ids[0, 4:].tolist()
    requests: list[Request] = [
        (None, context, best),
        (None, context, [*best[:2], (best[2] + 1) % 90]),
        (None, context, [(best[0] + 1) % 90, *best[1:]]),
        (None, context, best[:1]),
    ]
    answers = harness(model, tokenizer, True)._loglikelihood_tokens(requests)
    assert [greedy for _, greedy in answers] == [True, False, False, True]


def test_rows() -> None:
    requests: list[Request] = [
        (None, [1, 2, 3], [4, 5]),
        (None, [1, 2], [7]),
        (None, [1, 2, 3], [6, 7, 8]),
        (None, [1, 2, 3], [9] * 6),  # would make the row longer than 2 x 4 columns
        (None, [1, 2], [8]),
        (None, [1, 2], []),
        (None, [1] * 9, [2, 3]),
    ]
    rows, unpacked = pack(requests, longest=9)
    assert [(row.context, [i for i, _ in row.continuations]) for row in rows] == [
        ([1, 2, 3], [3]),
        ([1, 2, 3], [0, 2]),
        ([1, 2], [1, 4]),
    ]
    assert [(row.length, row.n_scored) for row in rows] == [(8, 6), (6, 4), (2, 1)]
    assert unpacked == [5, 6]


def test_the_layout_of_a_batch() -> None:
    """The example in the module's docstring, beside a shorter row."""
    requests: list[Request] = [
        (None, [10, 11, 12], [20, 21]),
        (None, [10, 11, 12], [30, 31, 32]),
        (None, [13, 14], [22]),
    ]
    rows, _ = pack(requests, longest=100)
    tensors = batch(rows, torch.device("cpu"))
    assert tensors.ids.tolist() == [[10, 11, 12, 20, 30, 31], [0, 0, 0, 0, 13, 14]]
    assert tensors.positions.tolist() == [[0, 1, 2, 3, 3, 4], [0, 0, 0, 0, 0, 1]]
    assert tensors.n_kept == 4
    assert tensors.scored_id.tolist() == [20, 21, 30, 31, 32, 22]
    assert tensors.scored_column.tolist() == [0, 1, 0, 2, 3, 3]
    assert tensors.scored_row.tolist() == [0, 0, 0, 0, 0, 1]
    assert tensors.owners.tolist() == [0, 0, 1, 1, 1, 2]
    seen = tensors.attention_mask(torch.float32)[0, 0] == 0
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1, 1],
    ]
    assert bool((tensors.attention_mask(torch.float32) == 0).any(-1).all())


def test_rows_longer_than_a_sliding_window_take_the_plain_path(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("gemma3")
    assert model.config.sliding_window == 16
    requests = random_requests(1)
    packed = harness(model, tokenizer, True)
    plain: list[Request] = []
    run = packed._plain

    def spy(batch: list[Request]) -> list[Answer]:
        plain.extend(batch)
        return run(batch)

    monkeypatch.setattr(packed, "_plain", spy)
    packed._loglikelihood_tokens(requests)
    long = [r for r in requests if len(r[1]) + len(r[2]) - 1 > 16]
    assert 0 < len(long) < len(requests)
    assert plain == long


def _ignores_positions(model: PreTrainedModel) -> str:
    forward = model.forward

    def entry(
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        logits_to_keep: int = 0,
        use_cache: bool | None = None,
    ) -> Any:
        return forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            logits_to_keep=logits_to_keep,
            use_cache=use_cache,
        )

    model.forward = entry
    return "packed rows differ by"


def _takes_ids_only(model: PreTrainedModel) -> str:
    forward = model.forward
    model.forward = lambda input_ids: forward(input_ids=input_ids)
    return "takes no attention_mask, logits_to_keep, position_ids"


def _refuses_masks(model: PreTrainedModel) -> str:
    forward = model.forward

    def entry(
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        logits_to_keep: int = 0,
        use_cache: bool | None = None,
    ) -> Any:
        if attention_mask is not None:
            raise ValueError("only two dimensions")
        return forward(input_ids=input_ids)

    model.forward = entry
    return r"cannot run packed rows \(only two dimensions\)"


@pytest.mark.parametrize("spoil", [_ignores_positions, _takes_ids_only, _refuses_masks])
def test_models_that_cannot_pack_take_the_plain_path(
    write_task: Callable[..., Path],
    build: Callable[..., Evaluator],
    make_model: MakeModel,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[PreTrainedModel], str],
) -> None:
    write_task("t")
    expected = build("t").score(make_model())
    model = make_model()
    reason = spoil(model)
    evaluator = build("t")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # the second time, it is known
            got = evaluator.score(model)
    assert got.tasks[0].values == expected.tasks[0].values
    (record,) = [r for r in caplog.records if r.name.startswith("mergesearch")]
    assert re.search(reason, record.getMessage())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_known_architectures_pack(
    make_model: MakeModel,
    tokenizer: PreTrainedTokenizerFast,
    architecture: str,
    dtype: torch.dtype,
) -> None:
    model = make_model(architecture).to(dtype)
    assert harness(model, tokenizer, False).packs_safely()
