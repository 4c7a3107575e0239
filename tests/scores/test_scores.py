"""Totals, intervals and paired comparisons, beside closed forms."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.errors import InputError
from mergesearch.scores import (
    DocumentScore,
    Interval,
    Scores,
    TaskId,
    TaskScore,
    interval,
    paired_difference,
    paired_lead,
)
from mergesearch.scores import intervals as module
from mergesearch.scores.aggregation import VECTORISED, aggregation_function
from mergesearch.scores.scores import summary


def score(values: list, task: str = "t", aggregation: str = "mean", **changes: object) -> TaskScore:
    named: dict = {"metric": "acc", "filter": "none", "higher_is_better": True, "fingerprint": "f"}
    named |= {key: changes.pop(key) for key in named.keys() & changes.keys()}
    defaults: dict = {
        "weight": 1.0,
        "doc_ids": tuple(range(len(values))),
        "value": float(np.mean(values)) if values and aggregation == "mean" else math.nan,
        "stderr": None,
    }
    documents = tuple(DocumentScore(value) for value in values)
    task_id = TaskId(task=task, aggregation=aggregation, **named)
    return TaskScore(id=task_id, documents=documents, **defaults | changes)


def scores(*tasks: TaskScore) -> Scores:
    return Scores(tasks)


def test_the_total_weighs_tasks_and_is_higher_where_better() -> None:
    """(2 * 0.5 + 1 * -3) / 3."""
    accuracy = score([0.0, 1.0], weight=2)
    perplexity = score([], aggregation="perplexity", value=3.0, higher_is_better=False)
    assert scores(accuracy, perplexity).total == pytest.approx(-2 / 3)


def test_a_paired_difference_has_the_binomial_bounds() -> None:
    """Where a is right and b wrong on k of n documents, the resampled difference is Bin(n, k/n)/n.

    Both are right on 70 and wrong on 10 of the others, which adds nothing: the comparison is
    paired. Percentiles of a lattice are its points, so the bounds are the binomial's own.
    """
    a = [1.0] * 90 + [0.0] * 10
    b = [1.0] * 70 + [0.0] * 30
    got = paired_difference(scores(score(a)), scores(score(b)), n_resamples=50_000)
    chances = [math.comb(100, k) * 0.2**k * 0.8 ** (100 - k) for k in range(101)]
    low, high = np.searchsorted(np.cumsum(chances), [0.025, 0.975]) / 100
    assert (got.value, got.low, got.high) == pytest.approx((0.2, low, high))


def test_what_is_hard_for_both_cancels() -> None:
    generator = np.random.default_rng(0)
    b = generator.normal(size=50)
    got = paired_difference(scores(score(list(b + 0.25))), scores(score(list(b))))
    assert (got.value, got.low, got.high) == pytest.approx((0.25, 0.25, 0.25))


def test_an_interval_has_the_normal_width() -> None:
    """Mean of n values with standard deviation s: 1.96 s / sqrt(n) to each side."""
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    got = interval(scores(score(list(values))), n_resamples=20_000)
    half = NormalDist().inv_cdf(0.975) * values.std() / math.sqrt(len(values))
    assert got.value == pytest.approx(values.mean())
    assert (got.high - got.value) == pytest.approx(half, rel=0.05)
    assert (got.value - got.low) == pytest.approx(half, rel=0.05)
    narrow = interval(scores(score(list(values))), confidence=0.5)
    assert (narrow.high - narrow.low) == pytest.approx(2 * half * 0.6745 / 1.96, rel=0.05)


def test_tasks_are_resampled_apart_and_weighed() -> None:
    """Independent tasks with weights 3 and 1: variances add as (3/4)^2 and (1/4)^2."""
    x, y = (np.random.default_rng(seed).normal(size=300) for seed in (1, 2))
    both = scores(
        score(list(x), "x", weight=3), score(list(y), "y", weight=1, higher_is_better=False)
    )
    got = interval(both, n_resamples=20_000)
    sigma = math.sqrt((0.75 * x.std()) ** 2 + (0.25 * y.std()) ** 2) / math.sqrt(300)
    assert got.value == pytest.approx(0.75 * x.mean() - 0.25 * y.mean())
    assert (got.high - got.low) / 2 == pytest.approx(1.96 * sigma, rel=0.05)


@pytest.mark.parametrize(
    ("aggregation", "values", "value"),
    [
        ("perplexity", [-1.0, -2.0, -4.5], math.exp(2.5)),
        ("weighted_perplexity", [[-6.0, 2], [-2.0, 2]], math.exp(2.0)),
        ("bits_per_byte", [[-6.0, 2], [-2.0, 2]], 2.0 / math.log(2)),
        ("f1", [[1, 1], [0, 1], [1, 1], [0, 0]], 0.8),
        ("median", [1.0, 2.0, 9.0], 2.0),
    ],
)
def test_other_aggregations(aggregation: str, values: list, value: float) -> None:
    lower = aggregation not in {"f1", "median"}
    one = score(values, aggregation=aggregation, value=value, higher_is_better=not lower)
    got = interval(scores(one), n_resamples=200)
    assert got.value == pytest.approx(-value if lower else value)
    assert got.low <= got.value <= got.high
    assert got.low < got.high
    same = paired_difference(scores(one), scores(one), n_resamples=200)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_vectorised_aggregations_are_lm_evals() -> None:
    from lm_eval.api import metrics  # noqa: F401  registers the aggregations
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    values = np.random.default_rng(0).uniform(1, 5, size=(20, 2))
    for name, vectorised in VECTORISED.items():
        column = values if name in {"weighted_perplexity", "bits_per_byte"} else values[:, 0]
        items = [v.tolist() for v in column]
        expected = AGGREGATION_REGISTRY[name](items)
        assert vectorised(column[None])[0] == pytest.approx(expected)
        assert aggregation_function(name)(items) == pytest.approx(expected)


def test_a_foreign_aggregation_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"'u.worth' is a task's own function.*build its suite"):
        interval(scores(score([1.0], aggregation="u.worth", value=1.0)))


@pytest.mark.parametrize(
    "change", [{"fingerprint": "g"}, {"doc_ids": (0, 2)}, {"task": "u"}], ids=str
)
def test_only_the_same_documents_are_paired(change: dict) -> None:
    one = score([0.0, 1.0])
    with pytest.raises(InputError, match="only scores of the same documents can be paired"):
        paired_difference(scores(one), scores(score([0.0, 1.0], **change)))
    with pytest.raises(InputError, match="same tasks can be paired, got 1 and 2 tasks"):
        paired_difference(scores(one), scores(one, one))


@given(
    values=st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=30), seed=st.integers(0, 99)
)
def test_a_comparison_is_antisymmetric_and_repeatable(values: list[float], seed: int) -> None:
    a, b = scores(score(values)), scores(score(values[::-1]))
    one = paired_difference(a, b, n_resamples=100, seed=seed)
    two = paired_difference(b, a, n_resamples=100, seed=seed)
    assert (one.value, one.low, one.high) == pytest.approx((-two.value, -two.high, -two.low))
    assert paired_difference(a, b, n_resamples=100, seed=seed) == one


def test_blocks_do_not_change_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    one = scores(score([0.0, 1.0, 1.0, 5.0]))
    whole = interval(one, n_resamples=1000)
    monkeypatch.setattr(module, "_BLOCK", 4 * 7)
    assert interval(one, n_resamples=1000) == whole
    assert isinstance(whole, Interval)


def test_a_document_without_the_metric_is_left_out() -> None:
    documents = {7: DocumentScore(1.0), 2: DocumentScore(None), 5: DocumentScore(0.5)}
    got = summary("mean", documents)
    assert (got["doc_ids"], got["value"]) == ((2, 5, 7), 0.75)
    assert got["stderr"] == pytest.approx(0.25)
    assert math.isnan(summary("mean", {2: DocumentScore(None)})["value"])
    holed = scores(replace(score([]), **got))
    assert interval(holed).value == 0.75
    other = scores(replace(score([]), **summary("mean", documents | {5: DocumentScore(1.0)})))
    assert paired_difference(other, holed).value == 0.25


ONE = DocumentScore(1.0)


def some(aggregation: str = "mean", **tasks: dict[int, DocumentScore]) -> Scores:
    return scores(
        *(
            replace(
                score([], name, aggregation, fingerprint=f"of {name}"),
                **summary(aggregation, documents),
            )
            for name, documents in tasks.items()
        )
    )


def test_scores_on_what_another_candidate_was_scored_on() -> None:
    a = {i: DocumentScore(float(i % 3 == 0), margin=i - 2.5) for i in range(9)}
    b = {i: DocumentScore(float(i % 2), margin=0.5) for i in range(9)}
    long = some(x=a, y=b)
    short = some(y={i: b[i] for i in (6, 1, 3)}, x={4: a[4], 3: a[3]})
    got = long.on(short)
    assert [task.id.task for task in got.tasks] == ["y", "x"]
    assert [task.doc_ids for task in got.tasks] == [(1, 3, 6), (3, 4)]
    assert got == short
    assert paired_difference(got, short) == Interval(0, 0, 0)
    assert long.on(long) == long


def test_other_aggregations_are_computed_anew_on_a_part() -> None:
    documents = {i: DocumentScore([-float(i), i + 1]) for i in range(4)}
    whole = some("weighted_perplexity", x=documents)
    (part,) = whole.on(some("weighted_perplexity", x={3: documents[3], 1: documents[1]})).tasks
    assert part.value == pytest.approx(math.exp(4 / 6))
    assert part.stderr is None


@pytest.mark.parametrize("aggregation", ["mean", "median"])
def test_the_error_of_a_lead_is_how_far_it_is_from_that_on_all_documents(aggregation: str) -> None:
    """In the mean over many parts, drawn from two tasks of which one is seen nearly whole."""
    generator = np.random.default_rng(0)
    sizes, parts = {"x": 40, "y": 12}, {"x": 15, "y": 10}

    def candidate() -> Scores:
        values = {name: generator.normal(size=n) for name, n in sizes.items()}
        found = {
            name: {i: DocumentScore(float(v)) for i, v in enumerate(of)}
            for name, of in values.items()
        }
        return some(aggregation, **found)

    ours, rival = candidate(), candidate()
    whole = ours.total - rival.total
    misses, errors = [], []
    for _ in range(400 if aggregation == "mean" else 40):
        ids = {n: generator.choice(sizes[n], size=k, replace=False) for n, k in parts.items()}
        drawn = some(aggregation, **{n: dict.fromkeys(map(int, i), ONE) for n, i in ids.items()})
        lead, error = paired_lead(ours.on(drawn), rival)
        assert lead == pytest.approx(ours.on(drawn).total - rival.on(drawn).total)
        misses.append(lead - whole)
        errors.append(error)
    measured = float(np.sqrt(np.mean(np.square(misses))))
    expected = float(np.sqrt(np.mean(np.square(errors))))
    # a bootstrapped median is rough on so few documents, and its error that of a sample of all
    assert expected == pytest.approx(measured, rel=0.1 if aggregation == "mean" else 0.5)
    assert paired_lead(ours, rival) == (whole, 0)


def test_one_document_of_several_says_nothing_of_the_error() -> None:
    ours, rival = (some(x={i: DocumentScore(v) for i in range(4)}) for v in (1.0, 0.0))
    one = ours.on(some(x={2: ONE}))
    assert paired_lead(one, rival) == (1, math.inf)
    # of a task's only document all is known
    only = some(x={0: DocumentScore(1.0)})
    assert paired_lead(only, some(x={0: DocumentScore(0.0)})) == (1, 0)


def test_what_was_not_scored_is_named() -> None:
    documents = {i: DocumentScore(1.0) for i in range(3)}
    with pytest.raises(InputError, match=r"^task 'x' was scored on 3 documents, without 7; score"):
        some(x=documents).on(some(x=documents | {7: DocumentScore(1.0), 8: DocumentScore(0.0)}))
    with pytest.raises(InputError, match=r"^task 'y' was not scored; score the candidate on it"):
        some(x=documents).on(some(x=documents, y=documents))
