"""A model over two devices: merged where each tensor lies, and the same as on one."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mergesearch.engines import differentiable, engine_of
from mergesearch.errors import InputError
from mergesearch.merging import LiveModel, Spread, plan_merge, skeleton
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.requests import Generation, LogLikelihood, Request, RollingLogLikelihood
from tests import tiny
from tests.accelerator import DEVICES, accelerator
from tests.merging import recipes
from tests.merging.conftest import Read

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 20, 31, 4], [1, 30, 8, 8, 2, 7]])
PLENTY = 10**10
SCORED: list[Request] = [
    LogLikelihood("w1 w2 w3", " w4 w5"),
    LogLikelihood("w1 w2 w3", " w6"),
    LogLikelihood("w1 w2 w9 w8", " w6"),
]


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    with accelerator():
        yield


def parents_of(recipe: Recipe, **options: Any) -> Parents:
    options = {"device_memory": PLENTY, **options}
    return Parents.of(recipe, device=DEVICES[0], others=DEVICES[1:], **options)


def spread(recipe: Recipe, **options: Any) -> LiveModel:
    parents = parents_of(recipe, **options)
    return LiveModel(parents, DEVICES[0], torch.float32, Spread.beside(parents, {}))


def alone(recipe: Recipe) -> LiveModel:
    return LiveModel(Parents.of(recipe), CPU)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS.to(model.device)).logits.cpu()


@pytest.mark.parametrize("name", recipes.BY_METHOD)
def test_every_method_gives_the_model_that_it_gives_on_one_device(read: Read, name: str) -> None:
    recipe = read(recipes.BY_METHOD[name].format(p=""))
    live, plain = spread(recipe), alone(recipe)
    assert live.become(recipe) == plain.become(recipe)
    assert {p.device for p in live.model.parameters()} == set(DEVICES)
    assert torch.equal(logits(live.model), logits(plain.model))
    assert live.become(recipe) == plain.digest  # of what is remembered by now


@pytest.mark.parametrize("prefix", ["u-", "h-"], ids=["untied", "bfloat16"])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "streamed"])
def test_other_models_and_residences_give_the_same(read: Read, prefix: str, keep: bool) -> None:
    recipe = read(recipes.BY_METHOD["ties"].format(p=prefix))
    live = spread(recipe, keep=keep)
    assert live.become(recipe) == alone(recipe).become(recipe)


def test_each_layer_is_whole_on_one_device_and_what_is_tied_together(read: Read) -> None:
    recipe = read(recipes.BY_METHOD["linear"].format(p=""))
    live = spread(recipe)
    live.become(recipe)
    of_layer: dict[str, set[torch.device]] = {}
    for name, tensor in live.model.named_parameters():
        of_layer.setdefault(".".join(name.split(".")[:3]), set()).add(tensor.device)
    assert all(len(devices) == 1 for devices in of_layer.values())
    assert live.model.lm_head.weight is live.model.model.embed_tokens.weight


def test_requests_are_answered_as_on_one_device(read: Read) -> None:
    recipe = read(recipes.BY_METHOD["task_arithmetic"].format(p=""))
    asked = [
        *SCORED,
        RollingLogLikelihood("w1 w2 w7"),
        Generation("w1 w2", {"max_gen_toks": 4}),
        Generation("w1 w2 w3 w9", {"max_gen_toks": 4}),
    ]
    answers = []
    for live in (spread(recipe), alone(recipe)):
        live.become(recipe)
        engine = engine_of(tiny.tokenizer())
        engine.load(live.model)
        answers.append(engine.answer(asked))
    assert answers[0][:2] == answers[1][:2]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_one_device(read: Read, checkpointing: bool) -> None:
    recipe = read(recipes.BY_METHOD["task_arithmetic"].format(p=""))
    found = []
    for live in (spread(recipe), alone(recipe)):
        live.become(recipe)
        engine = differentiable(engine_of(tiny.tokenizer()))
        plan = plan_merge(recipe, live._parents)
        with live.learnable(plan) as learnable:
            engine.load(learnable.model)
            engine.loss(SCORED, checkpointing=checkpointing).sum().backward()
            found.append(learnable.gradients())
        assert live.become(recipe) == alone(recipe).become(recipe)  # forwards are as before
    ours, theirs = found
    for name, of in theirs.items():
        for argument, gradient in of.items():
            torch.testing.assert_close(ours[name][argument], gradient, rtol=1e-4, atol=1e-5)


def test_the_plan_has_a_line_for_each_device(read: Read) -> None:
    recipe = read(recipes.BY_METHOD["linear"].format(p=""))
    parents = parents_of(recipe)
    over = Spread.beside(parents, {"merging": 10})
    assert over is not None and over.rooms == (PLENTY - 10, PLENTY - 10)
    model = skeleton(plan_merge(recipe, parents), torch.device("meta"))
    sizes = over.n_bytes(model)
    weights = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    assert sum(sizes) == weights and min(sizes) > 0
    plan = parents.reserve({"merging": 10, "live model": sizes})
    assert {row.residence for row in plan.rows} == {"host", *map(str, DEVICES)}
    assert [plan.peak(str(device)) for device in DEVICES] == [10 + size for size in sizes]
    assert set(plan.residences) == {"host"}
    assert "on privateuseone:1" in plan.lines()[0]


def test_devices_that_are_too_small_are_refused_and_nothing_is_offloaded(read: Read) -> None:
    recipe = read(recipes.BY_METHOD["linear"].format(p=""))
    parents = parents_of(recipe)
    small = Spread(DEVICES, (10_000, 10_000))
    live = LiveModel(parents, DEVICES[0], torch.float32, small)
    with pytest.raises(InputError, match=r"nothing of it goes to host memory.*devices_per_worker"):
        live.become(recipe)
    with pytest.raises(InputError, match=r"merging 0\.02 GB.*devices_per_worker"):
        parents_of(recipe, device_memory=10**7).reserve({"merging": 2 * 10**7})


def test_operations_across_devices_fail_here_as_on_real_ones() -> None:
    one, other = (torch.ones(2, device=device) for device in DEVICES)
    for mixed in (other, torch.ones(2)):
        with pytest.raises(RuntimeError, match="of tensors on"):
            one + mixed
    assert (one + other.to(DEVICES[0])).cpu().tolist() == [2, 2]
