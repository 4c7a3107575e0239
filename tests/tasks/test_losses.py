"""Losses by labels, derived by hand, and the requests at which a model imitates another."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.evaluation import Evaluator
from mergesearch.requests import Generation, LogLikelihood, Request, RollingLogLikelihood
from mergesearch.tasks import BuiltTask, Suite, TaskSpec
from tests import tiny
from tests.evaluating import ROWS
from tests.tasks.test_built_in_tasks import BUILT_IN, write

Write = Callable[..., Path]
Build = Callable[..., Evaluator]

ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
GENERATE = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}:",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
    "metric_list": [{**ACC, "metric": "exact_match"}],
}
CHAT = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"


def loss(task: BuiltTask, doc_id: int, *nll: float) -> float:
    assert len(nll) == len(task.labelled_requests(doc_id))
    return float(task.labelled_loss(doc_id, torch.tensor(nll)))


def built_in(
    name: str, folder: Path, tokenizer: PreTrainedTokenizerFast, metric: str, **spec: Any
) -> BuiltTask:
    """One of lm-eval's own tasks."""
    write(name, BUILT_IN[name], folder)
    named = TaskSpec(task=f"local_{name}", metric=metric, **spec)
    (task,) = Evaluator(Suite(include_path=(folder,), search=(named,)), tokenizer).tasks()
    return task


@pytest.mark.parametrize(
    ("metric", "lengths"),
    [("acc", (1, 1)), ("acc_norm", (2, 4)), ("acc_bytes", (2, 5))],
)
def test_choices_are_weighed_as_the_metric_weighs_them(
    tmp_path: Path, metric: str, lengths: tuple[int, int]
) -> None:
    """-log softmax of the right score, of scores of -6 and -4 before they are divided."""
    documents = [{"text": "w0", "choices": ["w1", "wé 2"], "label": i} for i in (0, 1)]
    metrics = [{**ACC, "metric": name} for name in ("acc", "acc_norm", "acc_bytes")]
    tiny.write_task(tmp_path, "t", documents, metric_list=metrics)
    suite = Suite(include_path=(tmp_path,), search=(TaskSpec(task="t", metric=metric),))
    (task,) = Evaluator(suite, tiny.tokenizer()).tasks()
    asked = (LogLikelihood("w0", " w1"), LogLikelihood("w0", " wé 2"))
    assert task.labelled_requests(0) == task.imitation_requests(0) == asked
    # the same objects, which engines know again
    both = zip(task.labelled_requests(0), task.requests([0]), strict=True)
    assert all(ours is scored for ours, scored in both)
    scores = [-6 / lengths[0], -4 / lengths[1]]
    for right in (0, 1):
        expected = math.log(math.exp(scores[0]) + math.exp(scores[1])) - scores[right]
        assert loss(task, right, 6.0, 4.0) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_choices_is_their_share_less_the_right_one(tmp_path: Path) -> None:
    """d loss / d nll_i = right_i - softmax_i, here of scores log 1 and log 3."""
    tiny.task(tmp_path, "t")
    suite = Suite(include_path=(tmp_path,), search=(TaskSpec(task="t", metric="acc"),))
    (task,) = Evaluator(suite, tiny.tokenizer()).tasks()
    nll = torch.tensor([0.0, -math.log(3)], requires_grad=True)
    task.labelled_loss(0, nll).backward()
    assert nll.grad is not None
    assert nll.grad.tolist() == pytest.approx([1 - 0.25, -0.75])


def test_several_right_choices_share_the_probability(write_task: Write, build: Build) -> None:
    """Of shares 1/10, 2/10, 3/10 and 4/10, those of the right choices are added."""
    write_task("t", doc_to_choice=["a", "b", "c", "d"], doc_to_target="{{[2 * label, 3]}}")
    (task,) = build("t").tasks()
    nll = [-math.log(k) for k in (1, 2, 3, 4)]
    assert loss(task, 0, *nll) == pytest.approx(-math.log(0.1 + 0.4), rel=1e-5)
    assert loss(task, 1, *nll) == pytest.approx(-math.log(0.3 + 0.4), rel=1e-5)


def test_documents_whose_choices_are_all_right_or_all_wrong_have_no_label(
    write_task: Write, build: Build
) -> None:
    rows = [{"text": str(i), "gold": gold} for i, gold in enumerate(([0], [0, 1], [7], [1]))]
    write_task("t", rows=rows, doc_to_target="gold")
    (task,) = build("t").tasks()
    assert task.labelled_docs(range(4)) == (0, 3)
    with pytest.raises(ValueError, match="document 1 of task 't' has no label"):
        task.labelled_requests(1)
    with pytest.raises(ValueError, match="document 2 of task 't' has no label"):
        task.labelled_loss(2, torch.zeros(2))
    assert len(task.imitation_requests(2)) == 2


def test_mutual_information_counts_where_it_is_the_metric(write_task: Write, build: Build) -> None:
    """Log-likelihoods without a prompt are taken off, in losses, margins and answers alike."""
    write_task("t", metric_list=[ACC, {**ACC, "metric": "acc_mutual_info"}])
    (task,) = build("t", metric="acc_mutual_info").tasks()
    asked = (LogLikelihood("sun is down?", " no way"), LogLikelihood("sun is down?", " yes"))
    alone = (LogLikelihood("", " no way"), LogLikelihood("", " yes"))
    assert task.labelled_requests(0) == task.imitation_requests(0) == (*asked, *alone)
    # -1 and -3 with the prompt, -1 and -5 without: "yes" gains by it, and "no way" does not
    nll = (1.0, 3.0, 1.0, 5.0)
    responses = [(-value, False) for value in nll]
    (graded,) = task.grade([0], responses).values()
    right = task.answer(0, responses) == task.texts(0)[1]
    assert graded.value == float(right)
    assert task.answer(0, responses) == "yes"
    assert graded.margin == pytest.approx(2.0 if right else -2.0)
    expected = math.log1p(math.exp(-2.0)) + (0.0 if right else 2.0)
    assert loss(task, 0, *nll) == pytest.approx(expected, rel=1e-5)
    theirs = torch.tensor([0.0, 0.0, 0.0, 2.0])  # of the same scores
    assert float(task.imitation_loss(0, torch.tensor(nll), theirs)) == pytest.approx(0, abs=1e-6)

    (task,) = build("t", metric="acc").tasks()
    assert len(task.requests([0])) == 4
    assert task.labelled_requests(0) == task.imitation_requests(0) == asked
    assert loss(task, 0, 1.0, 1.0) == pytest.approx(math.log(2))


def test_choices_in_the_context(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Winogrande: the contexts differ, and the text behind them is one."""
    task = built_in("winogrande", tmp_path, tokenizer, "acc")
    first, second = task.labelled_requests(0)
    assert isinstance(first, LogLikelihood)
    assert isinstance(second, LogLikelihood)
    assert first.context != second.context
    assert first.continuation == second.continuation
    assert task.imitation_requests(0) == (first, second)
    (right,) = (int(task.documents[0][0].doc["answer"]) - 1,)
    nll = [1.0, 1.0]
    nll[right] = 0.0
    assert loss(task, 0, *nll) == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize("metric", ["acc", "perplexity"])
def test_a_continuation_is_taken_as_a_whole(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, metric: str
) -> None:
    task = built_in("lambada_openai", tmp_path, tokenizer, metric)
    (request,) = task.labelled_requests(2)
    assert isinstance(request, LogLikelihood)
    assert [request] == task.requests([2]) == list(task.imitation_requests(2))
    assert loss(task, 2, 3.5) == 3.5


def test_a_rolling_text_is_weighed_by_its_words(write_task: Write, build: Build) -> None:
    write_task(
        "t",
        rows=[{"text": "one two  three\nfour"}],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[
            {"metric": "word_perplexity", "aggregation": "weighted_perplexity"}
            | {"higher_is_better": False}
        ],
    )
    (task,) = build("t", metric="word_perplexity").tasks()
    asked = (RollingLogLikelihood("one two  three\nfour"),)
    assert task.labelled_requests(0) == task.imitation_requests(0) == asked
    assert loss(task, 0, 10.0) == 2.5


def test_a_reference_is_weighed_by_its_words(write_task: Write, build: Build) -> None:
    write_task("t", **GENERATE | {"doc_to_target": "{{answer}} and so on"})
    (task,) = build("t", metric="exact_match").tasks()
    assert task.labelled_requests(0) == (LogLikelihood("sun is down:", " su and so on"),)
    assert loss(task, 0, 6.0) == 1.5


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({}, " su"),
        ({"target_delimiter": "\n"}, "\nsu"),
        ({"fewshot_config": {"target_delimiter": "|"}}, "|su"),
        ({"doc_to_target": "{{[answer, 'other']}}"}, " su"),
        ({"doc_to_target": "label"}, " 0"),  # graded as a text
        ({"doc_to_target": "label", "doc_to_choice": ["up", "down"]}, " up"),
        ({"gen_prefix": "So"}, " su"),
        ({"gen_prefix": "So:\n"}, "su"),
        ({"doc_to_target": "{{''}}"}, None),
    ],
    ids=str,
)
def test_a_reference_stands_behind_its_prompt_as_a_solved_example_has_it(
    write_task: Write, build: Build, settings: Any, answer: str | None
) -> None:
    write_task("t", **GENERATE | settings)
    (task,) = build("t", metric="exact_match").tasks()
    (asked,) = task.requests([0])
    assert isinstance(asked, Generation)
    assert task.labelled_docs([0]) == ((0,) if answer is not None else ())
    if answer is not None:
        assert task.labelled_requests(0) == (LogLikelihood(asked.prompt, answer),)


@pytest.mark.parametrize("gen_prefix", [None, "So", "So:\n"])
def test_the_reference_continues_a_prompt_as_the_examples_before_it(
    write_task: Write, build: Build, gen_prefix: str | None
) -> None:
    """A solved example of the same document is its prompt and reference, to the letter."""
    rows = [ROWS[0]] * 4
    write_task("t", rows=rows, **GENERATE, gen_prefix=gen_prefix, fewshot_delimiter="##")
    (task,) = build("t", metric="exact_match", num_fewshot=1).tasks()
    (request,) = task.labelled_requests(0)
    assert isinstance(request, LogLikelihood)
    example, prompt = request.context.split("##")
    assert example == prompt + request.continuation


@pytest.mark.parametrize(("prefix", "answer"), [(None, "su"), ("So", " su")])
def test_a_chat_has_no_delimiter(
    write_task: Write,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    prefix: str | None,
    answer: str,
) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", CHAT)
    folder = write_task("t", **GENERATE, gen_prefix=prefix)
    spec = TaskSpec(task="t", metric="exact_match", apply_chat_template=True)
    (task,) = Evaluator(Suite(include_path=(folder,), search=(spec,)), tokenizer).tasks()
    (request,) = task.labelled_requests(0)
    assert isinstance(request, LogLikelihood)
    assert request.continuation == answer


def test_a_number_is_no_reference_where_a_task_grades_by_itself(
    write_task: Write, build: Build
) -> None:
    folder = write_task("t", **GENERATE)
    (folder / "grade.py").write_text("def grade(doc, results):\n    return {'good': 1.0}\n")
    (folder / "t.yaml").write_text(
        "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: t.jsonl}}\n"
        'test_split: test\noutput_type: generate_until\ndoc_to_text: "{{text}}"\n'
        "doc_to_target: 0\nprocess_results: !function grade.grade\n"
        "metric_list:\n  - {metric: good, aggregation: mean, higher_is_better: true}\n"
    )
    (task,) = build("t", metric="good").tasks()
    assert task.labelled_docs(task.doc_ids) == ()
    assert isinstance(task.imitation_requests(0)[0], Generation)


def test_a_generation_is_imitated_once(write_task: Write, build: Build) -> None:
    write_task("t", **GENERATE, repeats=3)
    (task,) = build("t", metric="exact_match").tasks()
    assert len(task.requests([1])) == 3
    assert task.imitation_requests(1) == (task.requests([1])[0],)
    assert len(task.labelled_requests(1)) == 1


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_task_has_a_finite_loss_with_a_gradient(
    name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    task = built_in(name, tmp_path, tokenizer, BUILT_IN[name].metrics[0])
    labelled = task.labelled_docs(task.doc_ids)
    assert labelled == tuple(task.doc_ids)
    for doc_id in labelled:
        requests: tuple[Request, ...] = task.labelled_requests(doc_id)
        nll = torch.linspace(1, 2, len(requests), requires_grad=True)
        value = task.labelled_loss(doc_id, nll)
        value.backward()
        assert value.shape == ()
        assert float(value.detach()) > 0
        assert nll.grad is not None
        assert bool((nll.grad != 0).any())
