from pathlib import Path

import pytest

from mergesearch.space import SearchSpace
from tests.benchmarks import methods
from tests.benchmarks.methods import Row, markdown
from tests.benchmarks.searches import Family


@pytest.mark.parametrize("method", ["ties", "regmean", "slerp", "learned"])
def test_a_method_is_searched_alone_and_scored_at_its_defaults(
    family: Path, tmp_path: Path, method: str
) -> None:
    tiny = Family(
        "tiny",
        SearchSpace.load(family / "space.yaml"),
        n_evaluations=6,
        learned={"labels": {"documents": 2, "passes": 1}},
    )
    row = methods.measure(tiny, method, 3, tmp_path)
    assert (row.method, row.seed, row.failure) == (method, 3, "")
    assert 0 < row.n_documents <= 7 * 20 + 20
    assert row.held_out is not None and 0 <= row.held_out <= 1
    assert (row.default_held_out is not None) == (method in ("ties", "regmean"))


def test_the_best_method_stands_first_and_what_cannot_be_searched_is_named() -> None:
    rows = [
        Row("linear", 8, 100, 5, 0.6, 0.5, 0.4),
        Row("ties", 8, 100, 5, 0.8, 0.7, None),
        Row("core_ties", 8, 0, 0, None, None, None, "it needs adapters"),
    ]
    report = {"family": "tiny", "command": "made", "evaluations": 5}
    lines = markdown(report, rows).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[2] == "| ties | 100 | 0.700 | 0.700 | - |"
    assert table[3] == "| linear | 100 | 0.500 | 0.500 | 0.400 |"
    assert "core_ties: it needs adapters." in lines
