"""Scores beside those of lm-eval's own run, and what a search relies on."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.errors import CandidateError, InputError
from mergesearch.evaluation import Evaluator
from mergesearch.requests import LogLikelihood, Request, Response
from mergesearch.runtime import Runtime
from mergesearch.scores import DocumentScore, Scores, TaskScore
from mergesearch.tasks import BuiltTask, TaskSpec
from tests.evaluating import answers_of

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
    answers, score = scored(evaluator, model)
    theirs = run(model, "t", **settings)
    samples = [s for s in theirs["samples"] if s["filter"] == score.id.filter]
    assert score.doc_ids == tuple(sample["doc_id"] for sample in samples)
    expected = [
        (tuple(arguments), want)
        for sample in samples
        for arguments, wanted in zip(sample["arguments"], sample["resps"], strict=True)
        for want in wanted
    ]
    for (request, got), (arguments, want) in zip(answers, expected, strict=True):
        assert astuple(request) == arguments
        assert got == pytest.approx(want, abs=1e-4)
    for value, sample in zip(score.values, samples, strict=True):
        assert value == pytest.approx(_listed(sample[score.id.metric]), abs=1e-3)
    key = f"{score.id.metric},{score.id.filter}"
    assert score.value == pytest.approx(theirs["results"][key], rel=1e-4)
    if score.id.aggregation == "mean":
        stderr = theirs["results"][f"{score.id.metric}_stderr,{score.id.filter}"]
        assert score.stderr == pytest.approx(stderr)
    return score


def scored(
    evaluator: Evaluator, model: PreTrainedModel
) -> tuple[list[tuple[Request, Response]], TaskScore]:
    """The score of the only task, and the answers that it rests on."""
    whole: list[Scores] = []
    answers = answers_of(evaluator, lambda: whole.append(evaluator.score(model)))
    (score,) = whole[0].tasks
    return answers, score


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
        assert score.id.higher_is_better


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
    assert not score.id.higher_is_better
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
    said = [scored(evaluator, model)[0] for _ in range(2)]
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
    (request, _) = task.requests([0])
    assert isinstance(request, LogLikelihood)
    assert request.context.count("?") == 4
    assert score.id.fingerprint == task.id.fingerprint


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
    assert full.requests(range(4)) == limited.requests(limited.doc_ids)
    some, all_ = evaluator.score(model).tasks[0], evaluator.score(model, full=True).tasks[0]
    assert some.values == all_.values[:4]
    assert some.doc_ids == all_.doc_ids[:4]
    assert some.id.fingerprint == all_.id.fingerprint
    assert build("t", num_fewshot=2, limit=99).tasks()[0].n_documents == 10


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


class Kept:
    """A store in memory, which says what it was given; nothing may be given twice."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[int, DocumentScore]] = {}
        self.added: list[tuple[str, list[int]]] = []

    def known(self, task: BuiltTask) -> Mapping[int, DocumentScore]:
        return self.documents.get(task.id.fingerprint, {})

    def add(self, task: BuiltTask, documents: Mapping[int, DocumentScore]) -> None:
        kept = self.documents.setdefault(task.id.fingerprint, {})
        assert not kept.keys() & documents.keys()
        kept.update(documents)
        self.added.append((task.id.task, sorted(documents)))

    @property
    def n(self) -> int:
        return sum(len(documents) for documents in self.documents.values())


#: Two tasks of 40 and 20 documents, a quarter and a half of them with the first answer.
PAIR = [TaskSpec(task="a", metric="acc"), TaskSpec(task="b", metric="acc", weight=3)]


@pytest.fixture
def pair(write_task: Write) -> None:
    for name, n, one_in in (("a", 40, 4), ("b", 20, 2)):
        rows = [{"text": f"{name} {i * i}", "label": int(i % one_in > 0)} for i in range(n)]
        write_task(name, rows=rows)


@pytest.mark.usefixtures("pair")
def test_blocks_are_the_same_share_of_all_documents_for_all_candidates(
    build: Build, make_model: MakeModel
) -> None:
    evaluator = build(*PAIR)
    blocks = list(evaluator.blocks(make_model(), n_blocks=5))
    assert [[len(task.doc_ids) for task in scores.tasks] for scores in blocks] == [
        [8 * k, 4 * k] for k in range(1, 6)
    ]
    for shorter, longer in pairwise(blocks):
        assert longer.on(shorter) == shorter
        assert all(
            set(few.doc_ids) < set(more.doc_ids)
            for few, more in zip(shorter.tasks, longer.tasks, strict=True)
        )
    for scores in blocks:
        for score, task, one_in in zip(scores.tasks, evaluator.tasks(), (4, 2), strict=True):
            labels = Counter(task.documents[i][0].doc["label"] for i in score.doc_ids)
            assert abs(labels[0] - len(score.doc_ids) / one_in) <= 1.5
    other = list(build(*PAIR).blocks(make_model(seed=1), n_blocks=5))
    places = [[[task.doc_ids for task in s.tasks] for s in one] for one in (blocks, other)]
    assert places[0] == places[1]
    assert other[-1] != blocks[-1]
    whole = build(*PAIR).score(make_model())
    assert whole.total == blocks[-1].total
    assert whole.n_documents == blocks[-1].n_documents == 60
    for one, two in zip(whole.tasks, blocks[-1].tasks, strict=True):
        assert_same_documents(one, two)


def assert_same_documents(one: TaskScore, two: TaskScore) -> None:
    """Values to the bit; margins as far as the order of sums lets them."""
    assert (one.doc_ids, one.values, one.value) == (two.doc_ids, two.values, two.value)
    assert [d.margin for d in one.documents] == pytest.approx(
        [d.margin for d in two.documents], abs=1e-4
    )


@pytest.mark.usefixtures("pair")
def test_what_was_answered_before_a_stop_is_not_answered_again(
    build: Build, model: PreTrainedModel
) -> None:
    store, evaluator = Kept(), build(*PAIR)
    blocks = evaluator.blocks(model, n_blocks=4, store=store)
    first, second = islice(blocks, 2)
    assert store.n == second.n_documents == 30
    assert [name for name, _ in store.added] == ["a", "b", "a", "b"]
    assert evaluator.n_missing(store) == 30
    whole = evaluator.score(model, store=store)
    assert store.n == 60
    assert evaluator.n_missing(store) == 0
    assert whole.on(second) == second
    assert whole.on(first) == first
    for ours, theirs in zip(whole.tasks, build(*PAIR).score(model).tasks, strict=True):
        assert_same_documents(ours, theirs)
    added = list(store.added)
    # all is known: no model is needed, whatever the weights of the tasks and the blocks are
    assert evaluator.score(None, store=store) == whole
    assert [*evaluator.blocks(None, store=store, n_blocks=4)][1] == second
    a, b = (task.value for task in whole.tasks)
    reweighted = build(PAIR[0], TaskSpec(task="b", metric="acc")).score(None, store=store)
    assert whole.total == pytest.approx((a + 3 * b) / 4)
    assert reweighted.total == pytest.approx((a + b) / 2)
    assert store.added == added


@pytest.mark.usefixtures("pair")
def test_a_limit_shares_what_is_known_and_other_prompts_do_not(
    build: Build, model: PreTrainedModel
) -> None:
    store = Kept()
    build(TaskSpec(task="a", metric="acc", limit=7)).score(model, store=store)
    assert store.added == [("a", list(range(7)))]
    build("a").score(model, store=store)
    assert store.added[1:] == [("a", list(range(7, 40)))]
    build(TaskSpec(task="a", metric="acc", num_fewshot=1)).score(model, store=store)
    build(TaskSpec(task="a", metric="acc_norm")).score(model, store=store)
    assert store.added[2:] == [("a", list(range(40)))] * 2
    with pytest.raises(ValueError, match="without a model, the store must know every document"):
        build("b").score(None, store=store)


@pytest.mark.parametrize(
    ("settings", "metric", "num_fewshot"),
    [({}, "acc_norm", 2), (ROLLING, "bits_per_byte", None), (GENERATE, "exact_match", 1)],
    ids=["choice", "rolling", "generation"],
)
def test_some_documents_score_what_they_score_among_all(
    write_task: Write,
    build: Build,
    model: PreTrainedModel,
    settings: Any,
    metric: str,
    num_fewshot: int | None,
) -> None:
    write_task("t", **settings)
    evaluator = build("t", metric=metric, num_fewshot=num_fewshot)
    (whole,) = evaluator.score(model).tasks
    (task,) = evaluator.tasks()
    store = Kept()
    some = (1, 4, 8)
    rest = {i: whole.documents[i] for i in task.doc_ids if i not in some}
    store.documents[task.id.fingerprint] = rest
    evaluator.score(model, store=store)
    assert store.added == [("t", [1, 4, 8])]
    for i in some:
        got, expected = store.known(task)[i], whole.documents[i]
        assert got.value == pytest.approx(
            expected.value, abs=0 if task.spec.metric == "acc" else 1e-4
        )
        assert got.margin == pytest.approx(expected.margin, abs=1e-4)


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
@pytest.mark.parametrize(
    "settings",
    [
        {"doc_to_choice": ["n", "yes", "perhaps not"]},
        {"doc_to_target": "{{['no way', 'yes'][label]}}"},
        {
            "doc_to_choice": ["n", "yes", "no way", "y"],
            "doc_to_target": "{{[2 * label, 2 * label + 1]}}",
        },
        {
            "doc_to_text": "label",
            "doc_to_target": "{{text}}",
            "doc_to_choice": "{{['so ', 'therefore ']}}",
        },
    ],
    ids=["an index", "a text", "several targets", "choices in the context"],
)
def test_a_margin_is_how_far_the_right_choice_leads(
    write_task: Write, build: Build, model: PreTrainedModel, settings: Any, metric: str
) -> None:
    rows = [{"text": f"{i} ways", "label": i % 2} for i in range(40)]
    write_task("t", rows=rows, **settings)
    evaluator = build("t", metric=metric)
    answers, score = scored(evaluator, model)
    (task,) = evaluator.tasks()
    assert {0.0, 1.0} == set(score.values)
    responses: Any = iter([response for _, response in answers])
    for document, instances in zip(score.documents, task.documents, strict=True):
        doc = instances[0].doc
        choices = task.source.doc_to_choice(doc)
        label = doc["label"]
        right = {2 * label, 2 * label + 1} if len(choices) == 4 else {label}
        logprobs = [next(responses)[0] for _ in instances]
        if metric == "acc_norm":
            logprobs = [x / len(choice) for x, choice in zip(logprobs, choices, strict=True)]
        wrong = [x for i, x in enumerate(logprobs) if i not in right]
        expected = max(logprobs[i] for i in right) - max(wrong)
        assert document.margin == pytest.approx(expected, rel=1e-5)
        assert (expected > 0) == (document.value == 1.0)


@pytest.mark.parametrize("metric", ["perplexity", "acc"])
def test_a_margin_without_choices_is_the_log_likelihood(
    write_task: Write, build: Build, model: PreTrainedModel, metric: str
) -> None:
    write_task("t", **LOGLIKELIHOOD)
    evaluator = build("t", metric=metric)
    answers, score = scored(evaluator, model)
    responses: Any = [response for _, response in answers]
    logprobs = [logprob for logprob, _ in responses]
    margins = [document.margin for document in score.documents]
    assert margins == pytest.approx(logprobs, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "metric"),
    [
        (GENERATE, "exact_match"),
        ({"doc_to_choice": ["no way", "yes"], "doc_to_target": "{{[0, 1]}}"}, "acc"),
    ],
    ids=["generation", "every choice is right"],
)
def test_no_margin_where_nothing_can_lead(
    write_task: Write, build: Build, model: PreTrainedModel, settings: Any, metric: str
) -> None:
    write_task("t", **settings)
    (score,) = build("t", metric=metric).score(model).tasks
    assert {document.margin for document in score.documents} == {None}


def write_grading(folder: Path, code: str) -> None:
    """A task 't' of two choices whose documents a function of its own grades."""
    (folder / "grade.py").write_text(code)
    (folder / "t.yaml").write_text(
        "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: t.jsonl}}\n"
        "test_split: test\noutput_type: multiple_choice\n"
        'doc_to_text: "{{text}}"\ndoc_to_choice: ["no way", "yes"]\ndoc_to_target: label\n'
        "process_results: !function grade.grade\n"
        "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
        "  - {metric: other, aggregation: mean, higher_is_better: true}\n"
    )


def test_a_document_without_the_metric_is_left_out_as_lm_eval_leaves_it(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel
) -> None:
    folder = write_task("t")
    write_grading(
        folder,
        "def grade(doc, results):\n"
        "    right = float(results[0][0] > results[1][0]) == doc['label']\n"
        "    return {'other': 1.0} if 'i' in doc['text'][:4] else {'acc': float(right)}\n",
    )
    (score,) = build("t").score(model).tasks
    theirs = lm_eval_run(model, "t")
    assert [sample.get("acc") for sample in theirs["samples"]] == list(score.values)
    assert 0 < score.values.count(None) < 5
    assert score.value == pytest.approx(theirs["results"]["acc,none"])
    assert score.stderr == pytest.approx(theirs["results"]["acc_stderr,none"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            "{'acc': float('nan')}",
            "task 't' has no finite score whatever a model answers: document 0: acc is nan; "
            "check its data and its metric",
        ),
        (
            "{'other': 1.0}",
            "task 't' lists 'acc' in its metric_list, but its grading does not compute it; "
            "choose one that lm-eval has for multiple_choice",
        ),
        ("{'acc': doc['lable']}", "task 't': cannot compute acc: KeyError: 'lable'"),
    ],
)
def test_a_task_that_no_answer_can_score_is_named_before_a_search(
    write_task: Write, build: Build, returned: str, message: str
) -> None:
    write_grading(write_task("t"), f"def grade(doc, results):\n    return {returned}\n")
    with pytest.raises(InputError) as caught:
        build("t")
    assert str(caught.value) == message


def test_a_metric_that_some_answers_leave_undefined_is_no_fault_of_the_task(
    write_task: Write, build: Build, model: PreTrainedModel
) -> None:
    """As where a ratio has nothing below its line: that candidate fails alone."""
    write_grading(
        write_task("t"),
        "def grade(doc, results):\n"
        "    return {'acc': 1.0 if not results[0][1] else float('nan')}\n",
    )
    evaluator = build("t")
    assert evaluator.score(model).total == 1.0


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
    # a new model is tried out first; one that is known answers at once
    where = "the model's logits are" if when == "first" else "task 't': .* (is|are)"
    with pytest.raises(CandidateError, match=f"^{where} not finite$"):
        evaluator.score(model)
    model.load_state_dict(make_model().state_dict())
    evaluator.score(model)


def test_the_task_that_is_not_finite_is_named(
    write_task: Write, build: Build, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    write_task("a")
    write_task("b", rows=[{"text": "a#", "label": 0}])  # "#" is read here only
    evaluator = build("a", "b")
    evaluator.score(model)
    model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("#")] = math.nan
    message = r"^task 'b': log-likelihoods are not finite$"
    with pytest.raises(CandidateError, match=message):
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


@pytest.mark.usefixtures("pair")
def test_models_may_be_scored_in_turns(build: Build, make_model: MakeModel) -> None:
    alone = [list(build(*PAIR).blocks(make_model(seed=seed), n_blocks=3)) for seed in (0, 1)]
    evaluator = build(*PAIR)
    turns = zip(*(evaluator.blocks(make_model(seed=s), n_blocks=3) for s in (0, 1)), strict=True)
    assert [list(scores) for scores in zip(*turns, strict=True)] == alone


def test_grading_leaves_the_tasks_as_they_were(
    write_task: Write, build: Build, model: PreTrainedModel
) -> None:
    write_task("t", **GENERATE, filter_list=FILTERS)
    evaluator = build("t", metric="exact_match,letters")
    evaluator.score(model)
    (task,) = evaluator.tasks()
    instances = [instance for document in task.documents for instance in document]
    assert all(i.resps == [] and i.filtered_resps == {} for i in instances)
    right = [instances[k].doc["answer"] for k in (2, 0)]
    (two, zero) = (f"12 {right[0]}!", right[1].upper())
    grades = task.grade([2, 0], [two, zero])
    assert {i: grade.value for i, grade in grades.items()} == {2: 1.0, 0: 0.0}
    with pytest.raises(ValueError, match="fewer responses than requests"):
        task.grade([2, 0], [two])
    with pytest.raises(ValueError, match="more responses than requests"):
        task.grade([2], [two, zero])


def test_a_prompt_that_is_asked_several_times_is_answered_each_time(
    write_task: Write, build: Build, lm_eval_run: Run, model: PreTrainedModel
) -> None:
    take = {"name": "none", "filter": [{"function": "take_first"}]}
    write_task("t", **GENERATE, repeats=3, filter_list=[take])
    (task,) = build("t", metric="exact_match").tasks()
    assert task.requests([4]) == task.requests([4])[:1] * 3
    write_task("l", **LOGLIKELIHOOD, repeats=3)
    (once,) = build("l").tasks()
    assert len(once.requests([4])) == 1
    assert_equal_runs(build, lm_eval_run, model, "exact_match")


def test_a_batch_needs_a_row() -> None:
    with pytest.raises(InputError, match=r"^runtime: batch_size: must be at least 1"):
        Runtime.of({"batch_size": 0})
