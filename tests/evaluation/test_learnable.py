"""The documents to learn from: a training split, left over, or the search's own."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator, lessons
from mergesearch.requests import LogLikelihood
from mergesearch.tasks import Suite, TaskSpec
from tests import tiny

Write = Callable[..., Path]
Build = Callable[..., Evaluator]
#: Splits of specs, or of names.
BySplit = Callable[..., Evaluator]


def spec(task: str, **changes: Any) -> TaskSpec:
    return TaskSpec(task=task, metric="acc", **changes)


def rows(*texts: str) -> list[dict[str, Any]]:
    return [{"text": text, "label": i % 2} for i, text in enumerate(texts)]


@pytest.fixture
def evaluator(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> BySplit:
    def make(**splits: Any) -> Evaluator:
        return Evaluator(Suite(include_path=(tmp_path,), **splits), tokenizer)

    return make


def test_the_training_split_comes_first(write_task: Write, evaluator: BySplit) -> None:
    for name in ("a", "b", "train"):
        write_task(name, rows=rows(*(f"{name} {i}" for i in range(10))))
    made = evaluator(
        search=(spec("a", limit=3), spec("b")), learn=(spec("train", limit=6, expert="one"),)
    )
    (lesson,) = lessons(made).tasks
    assert lesson.task is made.tasks("learn")[0]
    assert (lesson.task.id.task, lesson.source, lesson.n_held_out) == ("train", "learn", 0)
    assert sorted(lesson.doc_ids) == [0, 1, 2, 3, 4, 5]
    assert lesson.task.spec.expert == "one"


def test_else_what_the_limits_leave_over_and_else_the_searchs_own(
    write_task: Write, evaluator: BySplit
) -> None:
    for name in ("limited", "whole"):
        write_task(name, rows=rows(*(f"{name} {i}" for i in range(10))))
    made = evaluator(search=(spec("limited", limit=4), spec("whole")))
    over, own = lessons(made).tasks
    assert (over.task.id.task, over.source) == ("limited", "left over")
    assert sorted(over.doc_ids) == [4, 5, 6, 7, 8, 9]
    assert not set(over.doc_ids) & set(over.task.doc_ids)
    assert (own.task.id.task, own.source) == ("whole", "search")
    assert own.doc_ids == own.task.order
    assert lessons(made).n_documents == 16


@pytest.mark.parametrize("n", [1, 4, 10, 30, 99])
def test_any_number_of_documents_is_balanced(write_task: Write, evaluator: BySplit, n: int) -> None:
    """Of 40 documents left over, a quarter has the first answer."""
    documents = [{"text": f"{i}.", "label": int(i % 4 > 0)} for i in range(60)]
    write_task("t", rows=documents)
    made = evaluator(search=(spec("t", limit=20),))
    (lesson,) = lessons(made, n).tasks
    assert len(lesson.doc_ids) == min(n, 40)
    assert lesson.doc_ids == lessons(made).tasks[0].doc_ids[:n]
    assert min(lesson.doc_ids) >= 20
    counts = Counter(documents[i]["label"] for i in lesson.doc_ids)
    assert abs(counts[0] - len(lesson.doc_ids) / 4) <= 1


@pytest.mark.parametrize("num_fewshot", [0, 2])
@pytest.mark.parametrize("split", ["learn", "search"])
def test_texts_that_are_held_out_are_dropped(
    write_task: Write, evaluator: BySplit, split: str, num_fewshot: int
) -> None:
    """Under another name, at another place and behind other solved examples."""
    write_task("one", rows=rows("a", "b", "c", "d", "e", "f", "g"))
    write_task("two", rows=rows("x", "f", "y", "d", "z"))
    write_task("three", rows=rows("a", "w", "v"))
    given = {"search": (spec("one", limit=2, num_fewshot=num_fewshot),)}
    if split == "learn":
        given = {"search": (spec("three"),), "learn": (spec("one", num_fewshot=num_fewshot),)}
    made = evaluator(**given, held_out=(spec("two", limit=2),))
    (lesson,) = lessons(made).tasks
    kept = {"learn": {1, 2, 4, 6}, "search": {2, 4, 6}}  # "a" is scored in the search
    assert set(lesson.doc_ids) == kept[split]
    assert lesson.n_held_out == lessons(made).n_held_out == 2
    held_out = {document[0].doc["text"] for document in made.tasks("held_out")[0].documents}
    taught = {lesson.task.documents[i][0].doc["text"] for i in lesson.doc_ids}
    assert not taught & held_out


@pytest.mark.parametrize("split", ["learn", "search"])
def test_texts_that_the_search_scores_are_taken_where_a_task_has_no_others(
    write_task: Write, evaluator: BySplit, split: str
) -> None:
    write_task("scored", rows=rows("a", "b", "c", "d"))
    write_task("some", rows=rows("x", "d", "y", "b"))
    write_task("all", rows=rows("c", "b"))
    if split == "learn":
        made = evaluator(search=(spec("scored"),), learn=(spec("some"), spec("all")))
    else:  # `some` leaves over what `scored` has, and texts of its own
        made = evaluator(search=(spec("scored"), spec("some", limit=1), spec("all")))
    some, only = lessons(made).tasks[-2:]
    assert (some.source, set(some.doc_ids)) == (
        ("learn", {0, 2}) if split == "learn" else ("left over", {2})
    )
    assert (only.source, set(only.doc_ids)) == ("search", {0, 1})


def test_other_choices_behind_the_same_text_are_another_document(
    write_task: Write, evaluator: BySplit
) -> None:
    settings = {"doc_to_text": "Which?", "doc_to_choice": "{{[text, text + text]}}"}
    write_task("one", rows=rows("a", "b", "c"), **settings)
    write_task("two", rows=rows("c", "d"), **settings)
    (lesson,) = lessons(evaluator(search=(spec("one"),), held_out=(spec("two"),))).tasks
    assert set(lesson.doc_ids) == {0, 1}


def test_a_search_task_that_is_held_out_as_well_teaches_nothing(
    write_task: Write, evaluator: BySplit
) -> None:
    write_task("t")
    made = evaluator(search=(spec("t", limit=4),), held_out=(spec("t"),))
    (lesson,) = lessons(made).tasks
    assert lesson.doc_ids == ()
    assert lesson.n_held_out == 4
    assert lessons(made).n_documents == 0


@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("name", ["t", "copy", "part"])
def test_held_out_must_not_be_learned_from(
    write_task: Write, evaluator: BySplit, name: str, limit: int | None
) -> None:
    write_task("other", rows=rows("x"))
    write_task("t", rows=rows("a", "b", "c"))
    write_task("copy", rows=rows("c", "b", "a"))
    write_task("part", rows=rows("b"))
    with pytest.raises(InputError) as caught:
        evaluator(
            search=(spec("other"),),
            learn=(spec(name, limit=limit),),
            held_out=(spec("t", num_fewshot=1, limit=1),),
        )
    assert str(caught.value) == (
        f"held-out must not be learned from, but the documents of the task {name!r} under learn "
        f"are those of 't' under held_out; name a training split under learn"
    )


def test_a_suite_without_a_training_split_has_no_such_tasks(
    write_task: Write, evaluator: BySplit
) -> None:
    write_task("t")
    made = evaluator(search=(spec("t"),))
    with pytest.raises(InputError, match="the suite has no learn tasks; list some under 'learn'"):
        made.tasks("learn")


def test_a_training_split_changes_nothing_else(tmp_path: Path) -> None:
    for seed, name in enumerate(("first", "second", "train")):
        tiny.task(tmp_path, name, seed=seed)
    search = {"include_path": (tmp_path,), "search": (spec("first", limit=5), spec("second"))}
    with_it = Suite(**search, learn=(spec("train"),))
    plain, taught = (Evaluator(suite, tiny.tokenizer()) for suite in (Suite(**search), with_it))
    ids = [[(t.id, t.weight, t.order) for t in made.tasks()] for made in (plain, taught)]
    assert ids[0] == ids[1]


def test_the_engine_may_answer_for_another_model_between_blocks(
    write_task: Write, build: Build, make_model: Callable[..., PreTrainedModel]
) -> None:
    write_task("t")
    made = build("t")
    one, two = make_model(seed=0), make_model(seed=1)
    expected = made.score(one)
    blocks = made.blocks(one, n_blocks=2)
    next(blocks)
    engine = made.engine
    engine.load(two)
    first = engine.answer([LogLikelihood("sun", " up")])
    *_, scores = blocks
    assert scores == expected
    made.engine.load(two)
    assert made.engine.answer([LogLikelihood("sun", " up")]) == first
