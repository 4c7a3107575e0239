"""Groups of a space by the names that the models' files have."""

from pathlib import Path

import pytest
import torch
import transformers

from mergesearch import Parents
from mergesearch.parents import Parents as Opened
from mergesearch.recipe import ModelRef
from mergesearch.searching.shape import with_router
from mergesearch.space import Granularity
from tests import tiny


def mixture(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_local_experts=6,
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def opened(folder: Path) -> Opened:
    return Parents([ModelRef.model_validate(str(folder))])


def test_a_router_is_named_as_the_files_name_it(tmp_path: Path) -> None:
    granularity = Granularity(groups=("experts", "router"), smooth=True)
    found = with_router(granularity, opened(mixture(tmp_path / "mixture")))
    assert found.groups == ("experts", "block_sparse_moe.gate.weight")
    assert found.smooth


@pytest.mark.parametrize("groups", [("mlp",), ("mlp", "router")])
def test_other_groups_and_models_without_experts_stay(
    tmp_path: Path, groups: tuple[str, ...]
) -> None:
    granularity = Granularity(groups=groups)
    assert with_router(granularity, opened(tiny.llama(tmp_path / "one", 1))) == granularity
