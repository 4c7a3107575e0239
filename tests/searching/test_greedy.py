from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from mergesearch.errors import CandidateError
from mergesearch.merging import merged_tensors
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef, Recipe, soup_recipe
from mergesearch.runs import SoupStep
from mergesearch.searching import GreedySoup, greedy_soup
from mergesearch.searching.candidates import Candidate


class Total:
    """The one thing of scores that a soup looks at."""

    def __init__(self, total: float) -> None:
        self.total = total


class Table:
    """An evaluator that knows each mixture's score by heart; what it does not know has none."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self._scores = scores
        self.pool = None
        self.asked: list[str] = []

    def score(self, recipe: Recipe) -> Candidate:
        mixture = "".join(sorted(str(ref.model) for ref in recipe.models))
        assert recipe == soup_recipe([*recipe.models])
        self.asked.append(mixture)
        if mixture not in self._scores:
            raise CandidateError(f"{mixture} is NaN")
        return Candidate(recipe, mixture, cast(Any, Total(self._scores[mixture])))


def soup(
    scores: Mapping[str, float], names: str = "abc", order: Sequence[str] | None = None, **kw: Any
) -> GreedySoup:
    models = {name: ModelRef.model_validate(name) for name in names}
    return greedy_soup(cast(Any, Table(scores)), models, order, **kw)


def test_soups_of_one_vocabulary_name_every_model_and_mix_those_that_go_in() -> None:
    base, a, b = (ModelRef.model_validate(name) for name in ("base", "a", "b"))
    recipe = soup_recipe([b], "union", [base, a, b])
    assert (recipe.tokenizer_source, recipe.base_model) == ("union", base)
    assert recipe.models == (base, a, b)
    weights = [source.parameters["weight"] for source in recipe.slices[0].sources]
    assert weights == [0.0, 0.0, 1.0]
    assert soup_recipe([b], None, [base, a, b]) == soup_recipe([b])


def told(made: GreedySoup) -> list[tuple[str, float, bool]]:
    return [("".join(step.ingredients), step.score, step.kept) for step in made.steps]


def test_models_are_tried_from_the_best_and_kept_if_the_score_does_not_fall() -> None:
    made = soup({"a": 0.5, "b": 0.7, "c": 0.6, "bc": 0.69, "ab": 0.8})
    assert told(made) == [("b", 0.7, True), ("bc", 0.69, False), ("ba", 0.8, True)]
    assert made.ingredients == ("b", "a")
    assert made.candidate.digest == "ab"


def test_a_score_that_stays_the_same_keeps_the_model() -> None:
    made = soup({"a": 0.5, "b": 0.7, "c": 0.6, "bc": 0.7, "abc": 0.7})
    assert made.ingredients == ("b", "c", "a")
    assert made.candidate.digest == "abc"


def test_models_of_one_score_are_tried_in_the_order_they_are_given() -> None:
    scores = {"a": 0.5, "b": 0.7, "c": 0.7, "bc": 0.6, "ab": 0.6, "ac": 0.6}
    assert [step.model for step in soup(scores, "abc").steps] == ["b", "c", "a"]
    assert [step.model for step in soup(scores, "cba").steps] == ["c", "b", "a"]


def test_one_of_many_may_be_all_that_is_kept() -> None:
    made = soup({"a": 0.5, "b": 0.7, "c": 0.6, "bc": 0.1, "ab": 0.2})
    assert made.ingredients == ("b",)
    assert made.candidate.total == 0.7


def test_a_given_order_is_kept_to_and_nobody_is_ranked() -> None:
    table = Table({"a": 0.5, "ac": 0.4, "ab": 0.6})
    models = {name: ModelRef.model_validate(name) for name in "abc"}
    made = greedy_soup(cast(Any, table), models, ["a", "c", "b"])
    assert table.asked == ["a", "ac", "ab"]
    assert made.ingredients == ("a", "b")


def test_a_mixture_without_a_score_is_skipped() -> None:
    made = soup({"a": 0.5, "b": 0.7, "c": 0.6, "ab": 0.8})
    assert told(made) == [("b", 0.7, True), ("ba", 0.8, True)]


@pytest.mark.parametrize("order", [None, ["b", "c", "a"]])
def test_a_model_without_a_score_of_its_own_is_left_out(order: list[str] | None) -> None:
    made = soup({"a": 0.5, "c": 0.6, "ac": 0.7}, order=order)
    assert made.ingredients == ("c", "a")


@pytest.mark.parametrize("order", [None, ["b", "c", "a"]])
def test_no_soup_is_made_of_models_without_scores(order: list[str] | None) -> None:
    with pytest.raises(CandidateError, match="no model can be scored"):
        soup({}, order=order)


def test_each_step_is_told_when_it_is_done() -> None:
    observer: list[SoupStep] = []
    made = soup({"a": 0.5, "b": 0.7, "c": 0.6, "bc": 0.1, "ab": 0.8}, on_step=observer.append)
    assert tuple(observer) == made.steps


def test_a_uniform_soup_is_the_mean_of_the_tensors(family: Path) -> None:
    refs = [ModelRef.model_validate(str(family / "models" / n)) for n in ("one", "two", "base")]
    parents = Parents(refs)
    for name, tensor in merged_tensors(soup_recipe(refs), parents):
        mean = torch.stack([parents.read(ref, name) for ref in refs]).mean(0)
        torch.testing.assert_close(tensor, mean)
