import math

import pytest

from mergesearch.diagnosis import Answers
from mergesearch.diagnosis.answers import compare_answers
from mergesearch.scores import DocumentScore, Scores, TaskId, TaskScore, summary


def scored(*values: object, higher: bool = True, aggregation: str = "mean") -> Scores:
    of = TaskId("sums", "acc", "none", higher, aggregation, fingerprint="4fe1")
    documents = {i: DocumentScore(value) for i, value in enumerate(values)}
    if aggregation != "mean":
        documents_alone = tuple(documents.values())
        ids = tuple(documents)
        return Scores((TaskScore(of, 1.0, ids, documents_alone, math.nan, None),))
    return Scores((TaskScore(of, 1.0, **summary(aggregation, documents)),))


def compared(**scores: Scores) -> Answers:
    (found,) = compare_answers(scores)
    return found


def test_the_union_of_right_answers_and_who_has_them() -> None:
    found = compared(
        base=scored(1.0, 1.0, 1.0, 1.0),  # is no parent
        one=scored(1.0, 1.0, 0.0, 0.0),
        two=scored(0.0, 1.0, 1.0, 0.0),
    )
    assert found.values == {"base": 1.0, "one": 0.5, "two": 0.5}
    assert found.best == 0.75
    assert found.ahead == {"one": {"two": 0.25}, "two": {"one": 0.25}}
    assert found.agreement("one", "two") == 0.5
    assert found.alone == {"one": 0.25, "two": 0.25}
    assert found.n_documents == 4


def test_of_three_parents_only_one_may_be_right_alone() -> None:
    found = compared(one=scored(1.0, 1.0), two=scored(1.0, 0.0), three=scored(0.0, 0.0))
    assert found.alone == {"one": 0.5, "two": 0.0, "three": 0.0}
    assert found.leader == "one"


def test_where_lower_is_better_the_best_is_the_lowest() -> None:
    found = compared(one=scored(0.1, 0.4, higher=False), two=scored(0.3, 0.2, higher=False))
    assert found.best == pytest.approx(0.15)
    assert found.ahead == {"one": {"two": 0.5}, "two": {"one": 0.5}}
    assert found.leader == "one" or found.values["one"] == found.values["two"]


def test_documents_without_a_value_are_left_out() -> None:
    found = compared(one=scored(1.0, None, 0.0), two=scored(0.0, 1.0, 0.0))
    assert found.best == 0.5


@pytest.mark.parametrize("aggregation", ["perplexity", "f1"])
def test_other_aggregations_have_values_alone(aggregation: str) -> None:
    found = compared(one=scored(1.0, 0.0, aggregation=aggregation))
    assert found.values == {"one": None}
    assert (found.best, found.ahead, found.alone) == (None, {}, {})
    assert found.leader is None


def test_values_that_are_no_numbers_are_not_compared() -> None:
    task = TaskId("sums", "acc", "none", True, "mean", fingerprint="4fe1")
    documents = (DocumentScore([1, 2]), DocumentScore([2, 3]))
    one = Scores((TaskScore(task, 1.0, (0, 1), documents, 1.0, None),))
    assert compared(one=one).best is None
