"""mergekit builds the same model from a recipe of learned coefficients."""

from pathlib import Path

import pytest
import torch

from mergesearch.learning import Coefficients
from mergesearch.merging import Routes, plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef, Recipe
from mergesearch.space import Granularity, Learned
from tests.parity.peer import Ran, needs_mergekit, run_both
from tests.parity.test_mergekit import assert_equal

pytestmark = needs_mergekit

SETTINGS = {
    "by module": Learned(),
    "by layer": Learned(granularity="layer"),
    "by block and group": Learned(granularity="block"),
    "of ties": Learned(of="ties", parameters={"density": 0.6}),
    "of linear, without a base": Learned(of="linear"),
}


def learned_recipe(models: Path, learned: Learned) -> Recipe:
    """Random coefficients, as they are written after learning."""
    base, *others = (
        ModelRef.model_validate(name).resolved(models / "plain") for name in ("base", "one", "two")
    )
    named = {f"parent-{i}": ref for i, ref in enumerate(others)}
    template = learned.template(base, named, None, 0)
    parents = Parents([base, *others])
    plan = plan_merge(template, parents)
    blocks = Granularity(blocks=2, groups=("self_attn",))
    coefficients = Coefficients(template, plan, Routes.of(plan, parents), learned, blocks)
    generator = torch.Generator().manual_seed(len(coefficients))
    drawn = torch.rand(len(coefficients), generator=generator, dtype=torch.float64)
    return coefficients.recipe(0.2 + 1.2 * drawn)


@pytest.fixture(scope="module")
def ran(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Each recipe, run by both."""
    recipes = {name: learned_recipe(models, learned) for name, learned in SETTINGS.items()}
    return run_both(recipes, tmp_path_factory.mktemp("learned") / "out")


@pytest.mark.parametrize("name", SETTINGS)
def test_mergekit_gives_our_tensors(ran: dict[str, Ran], name: str) -> None:
    assert not ran[name].error
    assert_equal(*ran[name].tensors())
