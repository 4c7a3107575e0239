"""A model over two devices: merged where each tensor lies, and the same as on one."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mergesearch.merging import LiveModel, Spread
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from tests.accelerator import DEVICES, accelerator
from tests.merging import recipes
from tests.merging.conftest import Read

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 20, 31, 4], [1, 30, 8, 8, 2, 7]])
PLENTY = 10**10


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    with accelerator():
        yield


def spread(recipe: Recipe, **options: Any) -> tuple[LiveModel, Parents]:
    parents = Parents.of(
        recipe, device=DEVICES[0], others=DEVICES[1:], device_memory=PLENTY, **options
    )
    over = Spread.beside(parents, {})
    return LiveModel(parents, DEVICES[0], torch.float32, over), parents


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS.to(model.device)).logits.cpu()


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "streamed"])
@pytest.mark.parametrize("prefix", ["", "u-"], ids=["tied", "untied"])
@pytest.mark.parametrize("name", recipes.BY_METHOD)
def test_every_method_gives_the_model_that_it_gives_on_one_device(
    read: Read, name: str, prefix: str, keep: bool
) -> None:
    recipe = read(recipes.BY_METHOD[name].format(p=prefix))
    alone = LiveModel(Parents.of(recipe), CPU)
    live, _ = spread(recipe, keep=keep)
    assert live.become(recipe) == alone.become(recipe)
    where = {name: tensor.device for name, tensor in live.model.named_parameters()}
    assert set(where.values()) == set(DEVICES)
    assert torch.equal(logits(live.model), logits(alone.model))
