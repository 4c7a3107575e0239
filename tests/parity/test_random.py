"""Methods that draw random numbers drop and rescale by the same law as mergekit's.

Statistics over the 63,808 entries of a model. A bound is five standard deviations of what is
counted, so that one in a million correct draws is beyond it; which entries are dropped is fixed
by seeds on both sides.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mergesearch.recipe import read_recipe
from tests.parity.families import weights
from tests.parity.peer import Ran, needs_mergekit, run_both
from tests.parity.recipes import DENSITY, EPSILON, RANDOM, RANDOM_OF_TWO

pytestmark = needs_mergekit

SIDES = pytest.mark.parametrize("side", ["ours", "theirs"])
BOUND = 5
# What rounding of W0 + delta cannot hide.
VISIBLE = 1e-3


@pytest.fixture(scope="module")
def ran(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Ran]:
    texts = {1: RANDOM, 2: RANDOM_OF_TWO}
    recipes = {
        (n, name): read_recipe(text).resolved(models / "wide")
        for n in texts
        for name, text in texts[n].items()
    }
    return run_both(recipes, tmp_path_factory.mktemp("random") / "out")


def merged(run: Ran, side: str) -> dict[str, Tensor]:
    ours, theirs = run.tensors()
    return ours if side == "ours" else theirs


@pytest.fixture(scope="module")
def base(models: Path) -> dict[str, Tensor]:
    return weights(models / "wide" / "base")


def changes(models: Path, name: str) -> dict[str, Tensor]:
    base = weights(models / "wide" / "base")
    return {k: t - base[k] for k, t in weights(models / "wide" / name).items()}


def chance(method: str, change: Tensor) -> Tensor:
    """The probability that each entry is kept; for DELLA it rises with the entry's rank."""
    if method.startswith("dare"):
        return torch.full_like(change, DENSITY)
    return DENSITY - EPSILON + 2 * EPSILON * rank(change)


def rank(change: Tensor) -> Tensor:
    """The place of each entry among the magnitudes of its row, from 0 to 1."""
    return change.abs().argsort(-1).argsort(-1) / (change.shape[-1] - 1)


@SIDES
@pytest.mark.parametrize("method", RANDOM)
def test_each_quarter_of_the_magnitudes_is_kept_with_its_probability(
    ran: dict[tuple[int, str], Ran], models: Path, base: dict[str, Tensor], method: str, side: str
) -> None:
    kept, p, quarter = [], [], []
    for name, value in merged(ran[1, method], side).items():
        change = changes(models, "one")[name]
        seen = change.abs() > VISIBLE
        kept.append((value != base[name])[seen])
        p.append(chance(method, change)[seen])
        quarter.append((rank(change)[seen] * 4).long().clamp(max=3))
    fractions = []
    for q in range(4):
        chosen = torch.cat(quarter) == q
        here, expected = torch.cat(kept)[chosen], torch.cat(p)[chosen]
        deviation = math.sqrt(float((expected * (1 - expected)).sum()))
        assert abs(float(here.sum() - expected.sum())) <= BOUND * deviation, q
        fractions.append(float(here.float().mean()))
    if method.startswith("della"):
        assert fractions == sorted(fractions)
        assert fractions[3] - fractions[0] > EPSILON


@SIDES
@pytest.mark.parametrize("method", RANDOM)
def test_what_is_kept_has_the_l1_norm_of_the_whole_change_and_its_proportions(
    ran: dict[tuple[int, str], Ran], models: Path, base: dict[str, Tensor], method: str, side: str
) -> None:
    for name, value in merged(ran[1, method], side).items():
        change, left = changes(models, "one")[name], value - base[name]
        assert float(left.abs().sum()) == pytest.approx(float(change.abs().sum()), rel=1e-4)
        factor = (left / change)[(left != 0) & (change.abs() > VISIBLE)]
        torch.testing.assert_close(factor, factor.mean().expand_as(factor), rtol=2e-3, atol=0)


@SIDES
@pytest.mark.parametrize("method", RANDOM)
def test_the_mean_change_stays_where_it_was(
    ran: dict[tuple[int, str], Ran], models: Path, base: dict[str, Tensor], method: str, side: str
) -> None:
    """Of a change x kept with probability p and then scaled by s, the variance is x² s² p (1-p)."""
    drift = variance = 0.0
    for name, value in merged(ran[1, method], side).items():
        change, left = changes(models, "one")[name], value - base[name]
        p = chance(method, change)
        s = float(change.abs().sum() / (change.abs() * p).sum())
        drift += float((left - change * p * s).sum())
        variance += float((change**2 * s**2 * p * (1 - p)).sum())
    assert abs(drift) <= BOUND * math.sqrt(variance)


@SIDES
@pytest.mark.parametrize("method", RANDOM_OF_TWO)
def test_each_model_is_dropped_from_by_itself(
    ran: dict[tuple[int, str], Ran], models: Path, base: dict[str, Tensor], method: str, side: str
) -> None:
    """An entry stays the base's where both models' changes are dropped."""
    unchanged = expected = variance = 0.0
    for name, value in merged(ran[2, method], side).items():
        one, two = changes(models, "one")[name], changes(models, "two")[name]
        seen = torch.minimum(one.abs(), two.abs()) > VISIBLE
        p = ((1 - chance(method, one)) * (1 - chance(method, two)))[seen]
        unchanged += float((value == base[name])[seen].sum())
        expected += float(p.sum())
        variance += float((p * (1 - p)).sum())
    assert abs(unchanged - expected) <= BOUND * math.sqrt(variance)
