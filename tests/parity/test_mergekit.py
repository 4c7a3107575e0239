"""mergekit 0.1.5 gives our tensors from the recipes that we write, for every method that draws
no random numbers; and it has no method or parameter that we have not."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mergesearch import merge
from mergesearch.methods import METHODS, REQUIRED
from mergesearch.recipe import Recipe, read_recipe
from tests.parity.families import weights
from tests.parity.peer import (
    ENVIRONMENT,
    EXECUTABLE,
    OPTIONS,
    Ran,
    needs_mergekit,
    registered_methods,
    run_both,
)
from tests.parity.recipes import (
    ADAPTERS,
    EXACT,
    HALF,
    HALF_OF_TIES,
    PROMOTED,
    RANDOM,
    TIED,
    TOKENIZER,
)

pytestmark = needs_mergekit

FLOAT32 = [
    *[(family, name) for family in ("plain", "odd", "thin", "small") for name in EXACT],
    ("plain", "adapters"),
    ("plain", "tokenizer"),
]
ROUNDED_ONCE = "dtype: float32\nout_dtype: bfloat16\n"
# The angles of short vectors, and the cosines of near-orthogonal ones, have few right digits in
# float32: what mergekit gives there is compared in its float64. Not so arcee_fusion, which both
# choose by a divergence in float32: for small changes that is its rounding, the same for both.
IN_FLOAT64 = "dtype: float64\nout_dtype: float32\n"

# The parameters that mergekit accepts and does not use, or that choose how it stores a mask.
IDLE = {"int8_mask", ("task_arithmetic", "density"), ("task_arithmetic", "rescale")}


@pytest.fixture(scope="session")
def ran(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Ran]:
    """Every recipe of this file, run by both."""
    texts = EXACT | {"adapters": ADAPTERS, "tokenizer": TOKENIZER}
    recipes: dict[tuple[str, ...], Recipe] = {
        (family, name): read_recipe(texts[name]).resolved(models / family)
        for family, name in FLOAT32
    }
    for name in (*HALF, *PROMOTED):
        for end in ("", ROUNDED_ONCE):
            recipes["half", name, end] = read_recipe(EXACT[name] + end).resolved(models / "half")
    for name, text in TIED.items():
        recipes["grid", name] = read_recipe(text).resolved(models / "grid")
    endings = {
        key: IN_FLOAT64
        for key, recipe in recipes.items()
        if key[0] in ("thin", "small") and recipe.merge_method != "arcee_fusion"
    }
    return run_both(recipes, tmp_path_factory.mktemp("parity") / "out", endings)


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """At most 1e-6 of the largest magnitude of each tensor apart."""
    for name, expected in theirs.items():
        largest = float(expected.abs().max())
        gap = float((ours[name].double() - expected.double()).abs().max())
        assert gap <= 1e-6 * largest, (name, tuple(expected.shape), gap / largest)


@pytest.mark.parametrize(("family", "name"), FLOAT32)
def test_mergekit_gives_our_tensors_from_our_recipe(
    ran: dict[tuple[str, ...], Ran], family: str, name: str
) -> None:
    assert_equal(*ran[family, name].tensors())


@pytest.mark.parametrize("name", EXACT)
def test_mergekit_gives_our_configuration_from_our_recipe(
    ran: dict[tuple[str, ...], Ran], name: str
) -> None:
    run = ran["plain", name]
    ours, theirs = (
        json.loads((folder / "config.json").read_text()) for folder in (run.merged(), run.theirs)
    )
    for key in ("num_hidden_layers", "tie_word_embeddings", "architectures", "vocab_size"):
        assert ours[key] == theirs[key], key


@pytest.mark.parametrize("name", [*HALF, *PROMOTED])
def test_bfloat16_models_merged_in_float32_are_equal(
    ran: dict[tuple[str, ...], Ran], name: str
) -> None:
    ours, theirs = ran["half", name, ROUNDED_ONCE].tensors()
    assert fraction_within(0, ours, theirs) >= HALF_OF_TIES.get(name, 0.999)


@pytest.mark.parametrize("name", HALF)
def test_mergekits_bfloat16_arithmetic_comes_near_ours_rounded_once(
    ran: dict[tuple[str, ...], Ran], name: str
) -> None:
    ours, theirs = ran["half", name, ""].tensors()
    assert fraction_within(1, ours, theirs) >= HALF[name]


def fraction_within(units: int, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The fraction of bfloat16 entries at most so many units in the last place apart."""
    gaps = [(_order(ours[name]) - _order(theirs[name])).abs().flatten() for name in theirs]
    return float((torch.cat(gaps) <= units).float().mean())


def _order(tensor: Tensor) -> Tensor:
    """Integers that count the bfloat16 numbers below each entry."""
    pattern = tensor.contiguous().view(torch.int16).int()
    return torch.where(pattern >= 0, pattern, -(pattern & 0x7FFF))


@pytest.mark.parametrize("name", [name for name in TIED if name != "sce"])
def test_where_magnitudes_are_equal_both_keep_as_many_of_the_same_size(
    ran: dict[tuple[str, ...], Ran], models: Path, name: str
) -> None:
    """Which of them is each one's own affair: here those of lower index."""
    base = weights(models / "grid" / "base")
    one = weights(models / "grid" / "one")
    ours, theirs = ran["grid", name].tensors()
    for tensor, origin in base.items():
        deltas = [(merged[tensor] - origin).flatten() for merged in (ours, theirs)]
        full = (one[tensor] - origin).flatten()
        torch.testing.assert_close(*[d.abs().sort().values for d in deltas], rtol=0, atol=0)
        for delta in deltas:
            assert ((delta == 0) | (delta == full)).all(), tensor
        assert len(full.abs().unique()) < len(full), tensor


def test_sce_selects_as_many_of_the_same_variance_where_variances_are_equal(
    ran: dict[tuple[str, ...], Ran], models: Path
) -> None:
    base, one, two = (weights(models / "grid" / name) for name in ("base", "one", "two"))
    ours, theirs = ran["grid", "sce"].tensors()
    for tensor, origin in base.items():
        spread = (one[tensor] - two[tensor]).abs()
        selected = [spread[m[tensor] != origin].sort().values for m in (ours, theirs)]
        torch.testing.assert_close(*selected, rtol=0, atol=0)
        assert 0 < len(selected[0]) < spread.numel(), tensor


def test_mergekit_yaml_runs_the_recipe_of_a_checkpoint(models: Path, tmp_path: Path) -> None:
    merge(read_recipe(EXACT["ties"]).resolved(models / "plain"), tmp_path / "ours")
    subprocess.run(
        [EXECUTABLE, "mergekit_config.yml", tmp_path / "theirs", *OPTIONS],
        env=ENVIRONMENT, cwd=tmp_path / "ours", check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert_equal(weights(tmp_path / "ours"), weights(tmp_path / "theirs"))


def test_every_method_and_parameter_of_mergekit_is_here_and_compared() -> None:
    theirs = registered_methods()
    assert theirs.keys() <= METHODS.keys()
    compared = {read_recipe(t).merge_method for t in [*EXACT.values(), *RANDOM.values()]}
    assert theirs.keys() <= compared
    for method, parameters in theirs.items():
        expected = {
            name: (p["per_model"], REQUIRED if p["required"] else p["default"])
            for name, p in parameters.items()
            if name not in IDLE and (method, name) not in IDLE
        }
        ours = {p.name: (p.per_model, p.default) for p in METHODS[method].parameters}
        assert ours == expected, method
