from typing import cast

import pytest

from mergesearch.objectives import OBJECTIVES, Measured, Objective, objective_of
from mergesearch.recipe import Recipe
from mergesearch.scores import Scores
from tests.searching.watch import scores

#: In the second task, lower is better.
SCORES = scores({"acc": [0.25, 0.75], "ppl": [20.0]}, weights={"acc": 3}, lower=["ppl"])


def measured(of: Scores = SCORES, n_parameters: int = 1_234_567) -> Measured:
    return Measured(cast(Recipe, None), of, n_parameters)


@pytest.mark.parametrize(
    ("name", "value", "reported", "shown"),
    [
        ("score", (3 * 0.5 - 20) / 4, (3 * 0.5 - 20) / 4, "-4.625"),
        ("size", 1_234_567, 1_234_567, "1.2 M"),
        ("acc", 0.5, 0.5, "0.500"),
        ("ppl", -20.0, 20.0, "20.000"),
    ],
)
def test_an_objective_is_measured_reported_and_shown(
    name: str, value: float, reported: float, shown: str
) -> None:
    objective = objective_of(name)
    assert objective.measure(measured()) == value
    assert objective.report(measured()) == reported
    assert objective.show(objective.report(measured())) == shown


@pytest.mark.parametrize("name", [*OBJECTIVES, "acc", "ppl"])
def test_what_documents_decide_is_the_total_of_their_part(name: str) -> None:
    objective = objective_of(name)
    assert objective.from_documents is (objective.part is not None)
    if objective.part:
        assert objective.measure(measured()) == objective.part(SCORES).total
    else:  # it is known of a model that has answered nothing
        assert objective.measure(measured(Scores(()))) == objective.measure(measured())


def test_the_size_is_better_the_smaller_and_all_else_the_higher() -> None:
    signs = {name: objective_of(name).sign for name in ("score", "size", "acc", "ppl")}
    assert signs == {"score": 1, "size": -1, "acc": 1, "ppl": 1}


def test_an_objective_of_our_own_needs_a_measure_alone() -> None:
    longest = Objective(lambda candidate: max(map(float, candidate.scores.tasks[0].doc_ids)))
    assert longest.measure(measured()) == longest.report(measured()) == 1
    assert (longest.direction, longest.from_documents, longest.show(1)) == (
        "maximize",
        False,
        "1.000",
    )
