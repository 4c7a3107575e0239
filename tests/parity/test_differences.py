"""Every row of the table of differences, shown on both sides."""

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mergesearch import merge
from mergesearch.errors import CandidateError, InputError
from mergesearch.recipe import read_recipe
from tests import tiny
from tests.parity.differences import DIFFERENCES
from tests.parity.families import changed, weights
from tests.parity.peer import needs_mergekit, run_mergekit

pytestmark = needs_mergekit

NORM = "model.norm.weight"


def recipe(method: str, base: str, models: Sequence[str], **parameters: Any) -> str:
    """A recipe as YAML, of which JSON is a part."""
    sources = [{"model": model} for model in models]
    data = {"merge_method": method, "models": sources, "parameters": parameters}
    return json.dumps({**data, "base_model": base} if base else data)


def opposed(method: str) -> str:
    """Two models whose weights sum to zero."""
    return f"""
merge_method: {method}
models:
  - {{model: plain/one, parameters: {{weight: 0.5}}}}
  - {{model: plain/two, parameters: {{weight: -0.5}}}}
"""


SUM_ZERO = {method: opposed(method) for method in ("linear", "multislerp")}
DENSITY_ZERO = {
    method: recipe(method, "plain/base", ["plain/one"], weight=1, density=0)
    for method in ("ties", "dare_linear", "dare_ties", "della", "della_linear", "breadcrumbs")
}
PROMOTED = {
    method: recipe(method, "half/base", ["half/one"]) for method in ("arcee_fusion", "ramplus_tl")
}
POISONED = recipe("task_arithmetic", "plain/base", ["nan"], weight=0.5)
NO_EPSILON = recipe("ramplus_tl", "plain/base", ["frozen-one", "frozen-two"], epsilon=0)
ONE_COLUMN = recipe("della_linear", "odd/base", ["odd/one"], weight=1, density=0.5)
FROZEN = recipe(
    "multislerp", "plain/base", ["frozen-one", "frozen-two", "frozen-three"], weight=0.4
)
UNEVEN = """
merge_method: ram
base_model: plain/base
slices:
  - sources: [{model: plain/base, layer_range: [0, 2]}, {model: plain/two, layer_range: [0, 2]}]
  - sources:
      - {model: plain/base, layer_range: [2, 4]}
      - {model: plain/one, layer_range: [2, 4]}
      - {model: plain/two, layer_range: [2, 4]}
"""
SAMPLED = recipe("arcee_fusion", "large/base", ["large/one"])
HALVES = recipe("task_arithmetic", "half/base", ["half/one"], weight=0.7)
MASKS = recipe("dare_linear", "plain/base", ["plain/one"], weight=1, density=0.5)
TIED = recipe("ties", "grid/base", ["grid/one"], weight=1, density=0.43)

TEXTS = {
    **{f"{name} of sum zero": text for name, text in SUM_ZERO.items()},
    **{f"{name} of density zero": text for name, text in DENSITY_ZERO.items()},
    **{f"{name} promoted": text for name, text in PROMOTED.items()},
    "poisoned": POISONED,
    "no epsilon": NO_EPSILON,
    "one column": ONE_COLUMN,
    "frozen": FROZEN,
    "uneven": UNEVEN,
    "sampled": SAMPLED,
    "halves": HALVES,
    "masks": MASKS,
    "masks again": MASKS,
    "tied": TIED,
}


@pytest.fixture(scope="module")
def edge(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The families, and models that lie at the edge of what methods are for."""
    folder = tmp_path_factory.mktemp("edge")
    for family in ("plain", "odd", "half", "grid"):
        (folder / family).symlink_to(models / family)
    plain = models / "plain"
    norm = weights(plain / "base")[NORM]

    def with_norm(value: Tensor) -> Callable[[str, Tensor], Tensor]:
        return lambda name, tensor: value if name == NORM else tensor

    changed(plain / "one", folder / "nan", with_norm(norm * math.nan))
    for name in ("one", "two", "three"):
        changed(plain / name, folder / f"frozen-{name}", with_norm(norm))
    # embeddings of 2^20 entries
    large: dict[str, Any] = {"vocab_size": 2**17, "hidden_size": 8, "num_hidden_layers": 1}
    tiny.llama(folder / "large" / "base", 0, **large)
    tiny.llama(folder / "large" / "one", 1, base=folder / "large" / "base", **large)
    return folder


@pytest.fixture(scope="module")
def theirs(edge: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """What mergekit, given no seed, writes for each recipe, or the error that stopped it."""
    # not by `write_recipe`: some of them are no recipes here
    texts = [re.sub(r'(model"?: "?)', rf"\1{edge}/", text) for text in TEXTS.values()]
    folder = tmp_path_factory.mktemp("differences") / "out"
    return dict(zip(TEXTS, run_mergekit(texts, folder, ["--quiet"]), strict=True))


def wrote(theirs: dict[str, tuple[Path, str]], name: str) -> dict[str, Tensor]:
    folder, error = theirs[name]
    assert not error, error
    return weights(folder)


def ours(text: str, edge: Path, out: Path) -> dict[str, Tensor]:
    merge(read_recipe(text).resolved(edge), out)
    return weights(out)


@pytest.mark.parametrize("method", SUM_ZERO)
def test_weights_of_linear_or_multislerp_that_sum_to_zero(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path, method: str
) -> None:
    found = wrote(theirs, f"{method} of sum zero")
    assert all(not tensor.isfinite().any() for tensor in found.values())
    with pytest.raises(InputError, match="sum to zero"):
        ours(SUM_ZERO[method], edge, tmp_path / "out")


def test_nan_in_a_model(theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path) -> None:
    assert wrote(theirs, "poisoned")[NORM].isnan().all()
    with pytest.raises(CandidateError, match=NORM):
        ours(POISONED, edge, tmp_path / "out")


@pytest.mark.parametrize("method", DENSITY_ZERO)
def test_density_0(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path, method: str
) -> None:
    base = weights(edge / "plain" / "base")
    for name, tensor in wrote(theirs, f"{method} of density zero").items():
        assert torch.equal(tensor, base[name])
    with pytest.raises(InputError, match="density must be in"):
        ours(DENSITY_ZERO[method], edge, tmp_path / "out")


def test_epsilon_0_of_ramplus_tl(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path
) -> None:
    assert wrote(theirs, "no epsilon")[NORM].isnan().all()
    with pytest.raises(InputError, match="epsilon must be in"):
        ours(NO_EPSILON, edge, tmp_path / "out")


def test_della_on_a_matrix_of_one_column(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path
) -> None:
    """Of four matrices of nine entries, some are kept and some are not."""
    assert "p_in >= 0 && p_in <= 1" in theirs["one column"][1]
    base = weights(edge / "odd" / "base")
    found = ours(ONE_COLUMN, edge, tmp_path / "out")
    columns = [name for name, tensor in found.items() if tensor.shape == (9, 1)]
    kept = torch.cat([found[name] != base[name] for name in columns])
    assert len(columns) == 4
    assert 0 < int(kept.sum()) < 36


def test_multislerp_of_three_models_or_more_of_which_none_has_changed_a_tensor(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path
) -> None:
    assert "weighted sum of the input tensors is zero" in theirs["frozen"][1]
    found = ours(FROZEN, edge, tmp_path / "out")
    assert torch.equal(found[NORM], weights(edge / "plain" / "base")[NORM])


def test_slices_of_different_numbers_of_sources(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path
) -> None:
    one, both = weights(edge / "plain" / "one"), wrote(theirs, "uneven")
    torch.testing.assert_close(both[NORM], one[NORM])
    base, two = (weights(edge / "plain" / name)[NORM] for name in ("base", "two"))
    mean = base + (one[NORM] - base + two - base) / 2
    torch.testing.assert_close(ours(UNEVEN, edge, tmp_path / "out")[NORM], mean)


def test_arcee_fusion_on_tensors_of_more_than_a_million_entries(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path
) -> None:
    table = "model.embed_tokens.weight"
    base, one = (weights(edge / "large" / name)[table] for name in ("base", "one"))
    p, q = (torch.softmax(t, dim=-1) + 1e-8 for t in (one, base))
    importance = (one - base).abs() * (p * torch.log(p / q)).sum(dim=-1, keepdim=True)
    ranked = importance.flatten().sort().values
    q1, median, q3 = (ranked[int(q * (len(ranked) - 1))] for q in (0.25, 0.5, 0.75))
    chosen = int((importance >= median + 1.5 * (q3 - q1)).sum())
    assert int((ours(SAMPLED, edge, tmp_path / "out")[table] != base).sum()) == chosen
    sampled = int((wrote(theirs, "sampled")[table] != base).sum())
    assert sampled == pytest.approx(chosen, rel=0.05)  # the same by chance only


def test_bfloat16_models_without_dtype_float32(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path
) -> None:
    base, one = (weights(edge / "half" / name) for name in ("base", "one"))
    once, stepwise = ours(HALVES, edge, tmp_path / "out"), wrote(theirs, "halves")
    apart = n = 0
    for name, origin in base.items():
        exact = origin.double() + 0.7 * (one[name].double() - origin.double())
        nearest = exact.to(torch.bfloat16)
        assert int((once[name] != nearest).sum()) <= 0.001 * exact.numel(), name
        apart, n = apart + int((stepwise[name] != nearest).sum()), n + exact.numel()
    assert apart > 0.1 * n


@pytest.mark.parametrize("method", PROMOTED)
def test_arcee_fusion_and_ramplus_tl_of_bfloat16_models(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path, method: str
) -> None:
    found = wrote(theirs, f"{method} promoted")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    found = ours(PROMOTED[method], edge, tmp_path / "out")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}


def test_random_masks(theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path) -> None:
    first, second = wrote(theirs, "masks"), wrote(theirs, "masks again")
    assert not any(torch.equal(first[name], second[name]) for name in first)
    first, second = (ours(MASKS, edge, tmp_path / name) for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_equal_magnitudes_at_a_threshold(
    theirs: dict[str, tuple[Path, str]], edge: Path, tmp_path: Path
) -> None:
    base, one = (weights(edge / "grid" / name) for name in ("base", "one"))
    found, arbitrary = ours(TIED, edge, tmp_path / "out"), wrote(theirs, "tied")
    elsewhere = 0
    for name, origin in base.items():
        magnitude = (one[name] - origin).abs().flatten()
        kept = magnitude.sort(descending=True, stable=True).indices[: int(0.43 * len(magnitude))]
        expected = torch.zeros(len(magnitude), dtype=torch.bool)
        expected[kept] = True
        assert torch.equal((found[name] != origin).flatten(), expected), name
        elsewhere += not torch.equal((arbitrary[name] != origin).flatten(), expected)
    assert elsewhere


def test_every_difference_has_its_test() -> None:
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    named = {"".join(c if c.isalnum() else " " for c in row.lower()) for row in DIFFERENCES}
    assert {"_".join(row.split()) for row in named} <= tests
