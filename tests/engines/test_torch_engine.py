"""Answers of the faster paths beside lm-eval's own, and which models take which."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import MambaConfig, MambaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.engines.torch import batches as batching
from mergesearch.engines.torch import engine as module
from mergesearch.engines.torch.engine import TorchEngine
from mergesearch.engines.torch.hflm import Harness
from mergesearch.engines.torch.limits import Limits, longest_packed
from mergesearch.engines.torch.loglikelihood import loglikelihoods
from mergesearch.engines.torch.packing import TokenPair, batch_of, contexts_of, groups_of, rows_of
from mergesearch.engines.torch.prefix import Prefixes, cache_argument
from mergesearch.engines.torch.probing import FastPaths, probe
from mergesearch.errors import CandidateError, InputError
from mergesearch.evaluation import Evaluator
from mergesearch.requests import Generation, Likelihood, LogLikelihood
from mergesearch.runtime import Runtime
from mergesearch.tasks import Suite, TaskSpec

MakeModel = Callable[..., PreTrainedModel]
ARCHITECTURES = ["llama", "gpt2", "gemma3"]


def random_pairs(seed: int, n_contexts: int = 6, n_prefix: int = 0) -> list[TokenPair]:
    draw = np.random.default_rng(seed).integers
    prefix = draw(3, 80, size=n_prefix).tolist()
    return [
        ([*prefix, *context], draw(3, 80, size=n).tolist())
        for context in (draw(3, 80, size=n).tolist() for n in draw(1, 9, size=n_contexts))
        for n in draw(1, 5, size=5)
    ]


def packed(
    harness: Harness, requests: Sequence[TokenPair], saving: int | None, n_columns: int = 40
) -> list[Likelihood]:
    answers: dict[int, Likelihood] = {}
    prefixes = Prefixes(harness.model)
    contexts = contexts_of(((i, *r) for i, r in enumerate(requests)), n_columns)
    for group in groups_of(contexts, saving):
        rows = rows_of(group, n_columns)
        answers.update(
            loglikelihoods(
                harness.model, prefixes, batch_of(group.prefix, rows, torch.device("cpu"))
            )
        )
    return [answers[i] for i in range(len(requests))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("saving", [None, 1], ids=["packed", "behind a prefix"])
def test_packed_answers_are_those_of_requests_alone(
    make_model: MakeModel,
    tokenizer: PreTrainedTokenizerFast,
    architecture: str,
    attention: str,
    saving: int | None,
) -> None:
    model = make_model(architecture)
    model.set_attn_implementation(attention)
    harness = Harness(model, tokenizer, 4)
    requests = random_pairs(0, n_prefix=4)
    for request, (logprob, greedy) in zip(requests, packed(harness, requests, saving), strict=True):
        ((expected, expected_greedy),) = harness.plain([request])
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
    requests: list[TokenPair] = [
        (context, best),
        (context, [*best[:2], (best[2] + 1) % 90]),
        (context, [(best[0] + 1) % 90, *best[1:]]),
        (context, best[:1]),
    ]
    answers = packed(Harness(model, tokenizer, 4), requests, None)
    assert [greedy for _, greedy in answers] == [True, False, False, True]


def test_lm_evals_path_answers_requests_that_differ_in_the_split_alone(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    harness = Harness(model, tokenizer, 8)
    pairs: list[TokenPair] = [
        ([4, 5], [6, 7]),
        ([4, 5, 6], [7]),
        ([4], [5, 6, 8]),
        ([4, 5], [9]),
    ]
    together = harness.plain(pairs)
    for request, (logprob, greedy) in zip(pairs, together, strict=True):
        ((expected, expected_greedy),) = harness.plain([request])
        assert logprob == pytest.approx(expected, abs=1e-5)
        assert greedy == expected_greedy


def test_a_prefix_runs_once_for_all_batches_of_a_model(
    model: PreTrainedModel, write_task: Callable[..., Path], build: Callable[..., Evaluator]
) -> None:
    instruction = "a long instruction that all of the documents share, and that costs a lot. " * 2
    write_task("t", doc_to_text=instruction + "{{text}}?")
    evaluator, widths = build("t"), []

    def watch(_: Any, __: Any, inputs: dict[str, Any], ___: Any) -> None:
        widths.append(tuple(inputs["input_ids"].shape))

    evaluator.score(model)
    with model.register_forward_hook(watch, with_kwargs=True):
        list(evaluator.blocks(model, n_blocks=5))
    n = len(instruction)
    assert [columns for rows, columns in widths if columns >= n] == [n]
    assert len(widths) == 6


def test_the_prefixes_kept_are_bounded(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mergesearch.engines.torch import prefix

    prefixes = Prefixes(model)
    one = prefixes.of((3, 4, 5))
    assert prefixes.of((3, 4, 5)) is one
    monkeypatch.setattr(prefix, "_KEPT_BYTES", one.n_bytes)
    prefixes.of((6, 7, 8))
    assert prefixes.of((3, 4, 5)) is not one


def _ignores_positions(model: PreTrainedModel) -> str:
    forward = model.forward

    @wraps(forward)
    def entry(*args: Any, **given: Any) -> Any:
        return forward(*args, **{k: v for k, v in given.items() if k != "position_ids"})

    model.forward = entry
    return "take lm-eval's own, slower path: packed rows differ by"


def _takes_ids_only(model: PreTrainedModel) -> str:
    forward = model.forward
    model.forward = lambda input_ids: forward(input_ids=input_ids)
    return "takes no attention_mask, past_key_values, position_ids"


def _refuses_masks(model: PreTrainedModel) -> str:
    forward = model.forward

    @wraps(forward)
    def entry(*args: Any, **given: Any) -> Any:
        if given.get("attention_mask") is not None:
            raise ValueError("only two dimensions")
        return forward(*args, **given)

    model.forward = entry
    return r"cannot run packed rows \(only two dimensions\)"


def _forgets_the_cache(model: PreTrainedModel) -> str:
    forward, name = model.forward, cache_argument(model)

    @wraps(forward)
    def entry(*args: Any, **given: Any) -> Any:
        if given.get(name) is not None and given["input_ids"].shape[0] > 1:
            raise ValueError("no cache given from outside")
        return forward(*args, **given)

    model.forward = entry
    return r"shared prefixes run again for every document: it cannot run packed rows \(no cache"


@pytest.mark.parametrize(
    "spoil", [_ignores_positions, _takes_ids_only, _refuses_masks, _forgets_the_cache]
)
def test_a_path_that_fails_is_left_out_and_said_once(
    write_task: Callable[..., Path],
    build: Callable[..., Evaluator],
    make_model: MakeModel,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[PreTrainedModel], str],
) -> None:
    write_task("t", doc_to_text="an instruction, rather long so that sharing it pays. {{text}}?")
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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_known_architectures_pack_and_share(
    make_model: MakeModel,
    tokenizer: PreTrainedTokenizerFast,
    architecture: str,
    dtype: torch.dtype,
) -> None:
    harness = Harness(make_model(architecture).to(dtype), tokenizer, 4)
    assert probe(harness) == FastPaths(packs=True, shares=True)


def test_a_recurrent_model_takes_lm_evals_path(
    write_task: Callable[..., Path],
    build: Callable[..., Evaluator],
    lm_eval_run: Callable[..., dict[str, Any]],
    tokenizer: PreTrainedTokenizerFast,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=90, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = MambaForCausalLM(config).eval()
    write_task("t")
    with caplog.at_level(logging.WARNING):
        (score,) = build("t").score(model).tasks
    assert "lm-eval's own, slower path" in caplog.text
    theirs = lm_eval_run(model, "t")
    assert list(score.values) == [sample["acc"] for sample in theirs["samples"]]


def test_requests_longer_than_a_sliding_window_take_lm_evals_path(
    write_task: Callable[..., Path],
    build: Callable[..., Evaluator],
    lm_eval_run: Callable[..., dict[str, Any]],
    make_model: MakeModel,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = make_model("gemma3")
    assert longest_packed(Harness(model, tokenizer, 4)) == 16
    write_task("t", doc_to_choice=["no", "yes"])
    plain: list[TokenPair] = []
    run = Harness.plain

    def spy(harness: Harness, requests: Sequence[TokenPair]) -> list[Likelihood]:
        plain.extend(requests)
        return run(harness, requests)

    evaluator = build("t")
    evaluator.score(model)
    caplog.clear()
    monkeypatch.setattr(Harness, "plain", spy)
    with caplog.at_level(logging.WARNING):
        (score,) = evaluator.score(make_model("gemma3")).tasks
    plain = [r for r in plain if len(r[0]) + len(r[1]) - 1 > 16]
    (task,) = evaluator.tasks()
    long = [
        request
        for request in task.requests(task.doc_ids)
        if isinstance(request, LogLikelihood)
        and len(request.context + request.continuation) - 1 > 16
    ]
    assert 0 < len(long) < 20
    assert len(plain) == len(long)
    theirs = lm_eval_run(make_model("gemma3"), "t")
    assert list(score.values) == [sample["acc"] for sample in theirs["samples"]]


def limits_of(model: PreTrainedModel, batch_size: int | None = None) -> Limits:
    return Limits.of(model.config, model.dtype, "cpu", batch_size)


def test_what_a_batch_may_hold(make_model: MakeModel) -> None:
    limits = limits_of(make_model("llama"))
    # two layers, keys and values of two heads of eight numbers, four bytes each
    assert limits.cache_bytes == 2 * 2 * 2 * 8 * 4
    assert limits.logits_bytes == 90 * 4
    assert limits.rows(64, 0, 1) == 2048 // 64
    assert limits.rows(10**6, 0, 1) == 1
    assert limits_of(make_model("llama"), 3).rows(64, 0, 1) == 3
    wide = replace(limits, n_layers=2**13, vocab_size=2**18)
    assert wide.cache_bytes == wide.logits_bytes == 2**20
    assert wide.rows(16, 112, 1) == 8  # the keys and values
    assert wide.rows(16, 0, 64) == 4  # the logits
    assert wide.prompts(512) == 2


def by_lm_eval(harness: Harness, request: Generation) -> str:
    """The text that lm-eval's own path gives for a prompt alone."""
    instance = Instance(
        "generate_until", {}, (request.prompt, dict(request.options)), 0, ("t", 0, 1)
    )
    (text,) = harness.generate_until([instance], disable_tqdm=True)
    return text


def test_generation_behind_a_prefix_gives_the_texts_of_prompts_alone(
    make_model: MakeModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "LEAST_SAVING", 1)
    for architecture in ARCHITECTURES:
        model = make_model(architecture)
        harness = Harness(model, tokenizer, 4)
        options = {"until": ["e"], "max_gen_toks": 8}
        requests = [
            Generation(f"one two {text}", options) for text in ["three", "a", "fox.", "one", ""]
        ]
        (batch,) = batching.generation_batches(
            requests, harness, FastPaths(True, True), limits_of(model)
        )
        assert [len(part.prefix) for part in batch.parts] == [7]
        engine = TorchEngine(tokenizer)
        engine.load(model)
        for request, text in zip(requests, engine.answer(requests), strict=True):
            assert text == by_lm_eval(harness, request)


def test_generation_from_prompts_of_one_token_and_of_others(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    for texts in (["a", "b"], ["a", "moon", "b"]):
        harness = Harness(model, tokenizer, 4)
        requests = [Generation(text, {"until": ["q"], "max_gen_toks": 5}) for text in texts]
        engine = TorchEngine(tokenizer)
        engine.load(model)
        for request, text in zip(requests, engine.answer(requests), strict=True):
            assert text == by_lm_eval(harness, request)


def test_logits_that_are_not_finite_are_the_candidates_fault(
    write_task: Callable[..., Path], build: Callable[..., Evaluator], make_model: MakeModel
) -> None:
    write_task("t")
    evaluator, model = build(TaskSpec(task="t", metric="acc")), make_model()
    evaluator.score(model)
    model.get_output_embeddings().weight[:, 3] = torch.nan
    with pytest.raises(CandidateError, match="task 't': log-likelihoods are not finite"):
        evaluator.score(model)


def test_a_model_elsewhere_than_the_runtime_says_is_refused(
    write_task: Callable[..., Path], tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    suite = Suite(include_path=(write_task("t"),), search=(TaskSpec(task="t", metric="acc"),))
    assert Evaluator(suite, tokenizer, Runtime(device="cpu")).score(model).n_documents == 10
    with pytest.raises(InputError, match="must be on meta, as the runtime says, but is on"):
        Evaluator(suite, tokenizer, Runtime(device="meta")).score(model)


def test_batches_shrink_until_the_device_holds_them_and_stay_so(
    write_task: Callable[..., Path],
    build: Callable[..., Evaluator],
    model: PreTrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_task("t")
    expected = build("t").score(model)
    rows: list[int] = []
    run = loglikelihoods

    def small(model: Any, prefixes: Any, batch: Any) -> Any:
        rows.append(len(batch.ids))
        if len(batch.ids) > 1:
            raise torch.OutOfMemoryError
        return run(model, prefixes, batch)

    monkeypatch.setattr(module, "loglikelihoods", small)
    evaluator = build("t")  # of four rows a batch
    assert evaluator.score(model).tasks[0].values == expected.tasks[0].values
    assert rows[:3] == [4, 2, 1]
    assert caplog.text.count("batches are halved") == 2
    rows.clear()
    evaluator.score(model)
    assert set(rows) == {1}

    def full(model: Any, prefixes: Any, batch: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(module, "loglikelihoods", full)
    with pytest.raises(InputError, match="does not hold the model and a single row"):
        evaluator.score(model)
