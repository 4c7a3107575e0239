"""Scores beside those of lm-eval's own run, and what a search relies on."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.errors import CandidateError, InputError
from mergesearch.evaluation import (
    BuiltTask,
    Evaluator,
    Suite,
    TaskScore,
    TaskSpec,
    results_json,
)

Write = Callable[..., Path]
Build = Callable[..., Evaluator]
Run = Callable[..., dict[str, Any]]
MakeModel = Callable[..., PreTrainedModel]

ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "metric_list": [
        {
            "metric": "word_perplexity",
            "aggregation": "weighted_perplexity",
            "higher_is_better": False,
        },
        {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
    ],
}
LOGLIKELIHOOD = {
    "output_type": "loglikelihood",
    "doc_to_text": "{{text}}",
    "doc_to_target": " {{answer}}",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    ],
}
EXACT = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
GENERATE = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}:",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [EXACT],
}
FILTERS = [
    {
        "name": "letters",
        "filter": [
            {"function": "regex", "regex_pattern": "([a-z]+)"},
            {"function": "take_first"},
        ],
    },
    {"name": "whole", "filter": [{"function": "take_first"}]},
]


def assert_equal_runs(
    build: Build, run: Run, model: PreTrainedModel, metric: str, spec: Any = None, **settings: Any
) -> TaskScore:
    """Both runs of task 't' agree on every response, every document's value and the result."""
    evaluator = build("t", metric=metric, **(spec or {}))
    (score,) = evaluator.score(model).tasks
    theirs = run(model, "t", **settings)
    samples = [s for s in theirs["samples"] if s["filter"] == score.filter]
    assert score.doc_ids == tuple(sample["doc_id"] for sample in samples)
    for sample, document in zip(samples, evaluator.tasks()[0].documents, strict=False):
        assert [request.args for request in document] == [tuple(a) for a in sample["arguments"]]
        for request, expected in zip(document, sample["resps"], strict=True):
            for got, want in zip(request.resps, expected, strict=True):
                assert got == pytest.approx(want, abs=1e-4)
    for value, sample in zip(score.values, samples, strict=True):
        assert value == pytest.approx(_listed(sample[score.metric]), abs=1e-3)
    key = f"{score.metric},{score.filter}"
    assert score.value == pytest.approx(theirs["results"][key], rel=1e-4)
    if score.aggregation == "mean":
        stderr = theirs["results"][f"{score.metric}_stderr,{score.filter}"]
        assert score.stderr == pytest.approx(stderr)
    return score


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize(
    "choices", [["no way", "yes"], ["n", "y"], ["n", "yes", "perhaps not"]], ids=len
)
def test_multiple_choice(
    write_task: Write,
    build: Build,
    lm_eval_run: Run,
    make_model: MakeModel,
    architecture: str,
    choices: list[str],
) -> None:
    # Without a delimiter, a choice of one letter is one token.
    write_task("t", doc_to_choice=choices, target_delimiter="")
    for metric in ("acc", "acc_norm"):
        score = assert_equal_runs(build, lm_eval_run, make_model(architecture), metric)
        assert score.higher_is_better


def test_contexts_that_documents_share(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel
) -> None:
    write_task("t", doc_to_text="", doc_to_choice="{{[text, answer]}}")
    assert_equal_runs(build, lm_eval_run, model, "acc")


def test_choices_in_the_context(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel
) -> None:
    write_task(
        "t", doc_to_text="label", doc_to_target="{{text}}", doc_to_choice="{{['so ', 'thus ']}}"
    )
    assert_equal_runs(build, lm_eval_run, model, "acc")


@pytest.mark.parametrize("metric", ["perplexity", "acc"])
def test_loglikelihood(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel, metric: str
) -> None:
    write_task("t", **LOGLIKELIHOOD)
    assert_equal_runs(build, lm_eval_run, model, metric)


@pytest.mark.parametrize("metric", ["word_perplexity", "bits_per_byte"])
def test_rolling_where_lower_is_better(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel, metric: str
) -> None:
    write_task("t", **ROLLING)
    score = assert_equal_runs(build, lm_eval_run, model, metric)
    assert not score.higher_is_better
    assert build("t", metric=metric).score(model).total == -score.value


def test_inputs_longer_than_the_context(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel
) -> None:
    model.config.max_position_embeddings = 24
    rows = [{"text": " ".join(map(str, range(n, 2 * n))), "label": n % 2} for n in range(1, 20)]
    write_task("t", rows=rows)
    assert_equal_runs(build, lm_eval_run, model, "acc")
    write_task("t", rows=rows, **ROLLING)
    assert_equal_runs(build, lm_eval_run, model, "bits_per_byte")


def test_generation(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel
) -> None:
    write_task("t", **GENERATE)
    replies = [sample["resps"][0][0] for sample in lm_eval_run(model, "t")["samples"]]
    # Half of the answers are what the model will say, so that both outcomes occur.
    rows = [
        {"text": f"{i} and {reply}"[:3], "answer": reply if i % 2 else "other"}
        for i, reply in enumerate(replies)
    ]
    write_task("t", rows=rows, **GENERATE)
    assert_equal_runs(build, lm_eval_run, model, "exact_match")


def test_sampled_generation_is_repeatable(
    write_task: Write, build: Build, model: PreTrainedModel
) -> None:
    kwargs = {"until": ["\n"], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    write_task("t", **(GENERATE | {"generation_kwargs": kwargs}))
    evaluator = build("t", metric="exact_match")
    said = []
    for _ in range(2):
        evaluator.score(model)
        said.append([request.resps for request in evaluator.tasks()[0].requests])
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["letters", "whole"])
def test_filters(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel, name: str
) -> None:
    write_task("t", **GENERATE, filter_list=FILTERS)
    assert_equal_runs(build, lm_eval_run, model, f"exact_match,{name}")


def test_fewshot(write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel) -> None:
    write_task("t")
    score = assert_equal_runs(build, lm_eval_run, model, "acc", {"num_fewshot": 3}, num_fewshot=3)
    (task,) = build("t", num_fewshot=3).tasks()
    assert task.requests[0].args[0].count("?") == 4
    assert score.fingerprint == task.fingerprint


@pytest.mark.parametrize("multiturn", [True, False])
def test_chat_template(
    write_task: Write,
    build: Build,
    lm_eval_run: Run,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    multiturn: bool,
) -> None:
    template = "{% for m in messages %}<{{m.role}}>{{m.content}}|{% endfor %}<a>"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    write_task("t")
    options = {"apply_chat_template": True, "fewshot_as_multiturn": multiturn}
    spec = {"num_fewshot": 2, **options}
    assert_equal_runs(build, lm_eval_run, model, "acc", spec, num_fewshot=2, **options)


def test_a_limit_is_the_beginning_of_the_full_run(
    write_task: Write, build: Build, model: PreTrainedModel
) -> None:
    write_task("t")
    evaluator = build("t", num_fewshot=2, limit=4)
    (limited,), (full,) = evaluator.tasks(), evaluator.tasks(full=True)
    assert (limited.n_documents, full.n_documents, limited.n_available) == (4, 10, 10)
    assert full.requests[: len(limited.requests)] == limited.requests
    some, all_ = evaluator.score(model).tasks[0], evaluator.score(model, full=True).tasks[0]
    assert some.values == all_.values[:4]
    assert some.doc_ids == all_.doc_ids[:4]
    assert some.fingerprint != all_.fingerprint
    assert build("t", num_fewshot=2, limit=99).tasks()[0].fingerprint == all_.fingerprint


def test_new_weights_in_place_score_as_a_fresh_model(
    write_task: Write, build: Build, make_model: MakeModel
) -> None:
    write_task("t")
    write_task("g", **GENERATE)
    write_task("r", **ROLLING)
    specs = [
        TaskSpec(task="t", metric="acc"),
        TaskSpec(task="g", metric="exact_match"),
        TaskSpec(task="r", metric="bits_per_byte"),
    ]
    evaluator, model = build(*specs), make_model(seed=0)
    before = evaluator.score(model)
    other = make_model(seed=1)
    model.load_state_dict(other.state_dict())
    after = evaluator.score(model)
    assert after == build(*specs).score(other)
    assert after != before
    model.load_state_dict(make_model(seed=0).state_dict())
    assert evaluator.score(model) == before


def test_known_scores_are_not_scored_again(
    write_task: Write, build: Build, model: PreTrainedModel
) -> None:
    write_task("a")
    write_task("b", doc_to_choice=["no", "maybe"])
    specs = [TaskSpec(task="a", metric="acc"), TaskSpec(task="b", metric="acc", weight=3)]
    stored: dict[str, TaskScore] = {}
    first = build(*specs).score(model, on_task=lambda score: stored.update({score.task: score}))
    assert list(stored) == ["a", "b"]

    def known(task: BuiltTask) -> TaskScore | None:
        return stored.get(task.name)

    def never(score: TaskScore) -> None:
        raise AssertionError(score)

    assert build(*specs).score(model, known=known, on_task=never) == first
    # A new weight costs nothing; a stored score of other prompts is not used.
    reweighted = build(specs[0], TaskSpec(task="b", metric="acc")).score(
        model, known=known, on_task=never
    )
    a, b = (score.value for score in first.tasks)
    assert first.total == pytest.approx((a + 3 * b) / 4)
    assert reweighted.total == pytest.approx((a + b) / 2)
    redone: list[str] = []
    build(TaskSpec(task="a", metric="acc", limit=3)).score(
        model, known=known, on_task=lambda score: redone.append(score.task)
    )
    assert redone == ["a"]


@pytest.mark.parametrize(
    ("settings", "metric"),
    [({}, "acc"), (ROLLING, "bits_per_byte"), (GENERATE, "exact_match")],
    ids=["choice", "rolling", "generation"],
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("when", ["first", "later"])
def test_weights_that_are_not_finite_fail_the_candidate(
    write_task: Write,
    build: Build,
    make_model: MakeModel,
    settings: Any,
    metric: str,
    bad: float,
    when: str,
) -> None:
    write_task("t", **settings)
    evaluator, model = build("t", metric=metric), make_model()
    if when == "later":
        evaluator.score(model)
    model.get_output_embeddings().weight.fill_(bad)
    with pytest.raises(CandidateError, match=r"^task 't': .*(not finite|is nan|is -?inf)$"):
        evaluator.score(model)
    model.load_state_dict(make_model().state_dict())
    evaluator.score(model)


def test_the_document_that_is_not_finite_is_named(
    write_task: Write, build: Build, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    write_task("t")
    evaluator = build("t")
    evaluator.score(model)
    # "#" is read in one document only.
    write_task("t", rows=[{"text": "a", "label": 0}, {"text": "a#", "label": 0}])
    evaluator = build("t")
    model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("#")] = math.nan
    with (
        torch.no_grad(),
        pytest.raises(CandidateError, match=r"^task 't': document 1: log-likelihood is nan$"),
    ):
        evaluator._scorer._packable[model] = True  # the trial rows may hold "#" too
        evaluator.score(model)


def test_a_split_must_exist_and_have_tasks(write_task: Write, build: Build) -> None:
    write_task("t")
    evaluator = build("t")
    with pytest.raises(InputError, match="unknown split 'serch'; did you mean 'search'"):
        evaluator.tasks("serch")
    with pytest.raises(InputError, match="the suite has no held_out tasks"):
        evaluator.tasks("held_out")


def test_continuations_must_have_tokens(
    write_task: Write, build: Build, model: PreTrainedModel
) -> None:
    write_task("t", **(LOGLIKELIHOOD | {"doc_to_target": "{{text[:0]}}"}))
    with pytest.raises(InputError, match=r"task 't' does not fit the model: .* has no tokens"):
        build("t").score(model)


def test_generation_must_leave_room_for_the_prompt(
    write_task: Write, build: Build, model: PreTrainedModel
) -> None:
    model.config.max_position_embeddings = 6
    write_task("t", **GENERATE)
    with pytest.raises(InputError, match=r"task 't' does not fit the model.*max"):
        build("t", metric="exact_match").score(model)


def test_a_batch_needs_a_row(tokenizer: PreTrainedTokenizerFast) -> None:
    suite = Suite(search=(TaskSpec(task="t", metric="acc"),))
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        Evaluator(suite, tokenizer, batch_size=0)


def test_nothing_is_drawn_on_the_terminal(
    write_task: Write, build: Build, model: PreTrainedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    write_task("t")
    write_task("g", **GENERATE)
    write_task("r", **ROLLING)
    build(
        TaskSpec(task="t", metric="acc", num_fewshot=1),
        TaskSpec(task="g", metric="exact_match"),
        TaskSpec(task="r", metric="bits_per_byte"),
    ).score(model)
    assert capfd.readouterr() == ("", "")


def test_results_are_in_lm_evals_format(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel
) -> None:
    write_task("t", metadata={"version": 1.5})
    evaluator = build("t", limit=4)
    ours = results_json(evaluator.score(model), evaluator.tasks())
    theirs = lm_eval_run(model, "t", limit=4)["whole"]
    assert json.loads(json.dumps(ours)) == ours
    for key, value in ours["results"]["t"].items():
        assert value == pytest.approx(theirs["results"]["t"][key]), key
    assert ours["n-samples"] == theirs["n-samples"] == {"t": {"original": 10, "effective": 4}}
    assert ours["versions"] == theirs["versions"] == {"t": 1.5}
    assert ours["n-shot"] == theirs["n-shot"] == {"t": 0}
    assert ours["higher_is_better"]["t"].items() <= theirs["higher_is_better"]["t"].items()
    assert ours["configs"]["t"].items() <= theirs["configs"]["t"].items()
