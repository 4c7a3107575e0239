"""Gradients through the merge, beside finite differences of whole merges."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mergesearch.merging import LearnableModel, Plan, Routes, build, plan_merge
from mergesearch.merging.kernel import write
from mergesearch.merging.low_rank import LowRank, put_beside
from mergesearch.parents import Parents
from tests.merging.conftest import Read
from tests.tiny import adapter, gpt2

IDS = torch.tensor([[4, 5, 6, 7], [8, 9, 10, 11]])
DEVICE = torch.device("cpu")

TASK_ARITHMETIC = """
merge_method: task_arithmetic
base_model: base
models:
- {model: %s, parameters: {weight: [0.2, 0.9]}}
- {model: %s, parameters: {weight: 0.6}}
"""


def loss_of(model: Any) -> Tensor:
    logits = model(input_ids=IDS).logits.double()
    return -logits.log_softmax(-1)[..., 5].mean()


def learned_gradients(plan: Plan, parents: Parents) -> dict[str, dict[str, Tensor]]:
    with LearnableModel.over(build(plan, DEVICE), plan, parents) as learnable:
        learnable.become(plan)
        loss_of(learnable.model).backward()
        return {job: dict(of) for job, of in learnable.gradients().items()}


def difference(plan: Plan, parents: Parents, job: str, argument: str, i: int | None) -> float:
    """The slope along one number of one tensor, by two merges."""
    model, values, step = build(plan, DEVICE), [], 2e-2
    given = next(j for j in plan.jobs if j.name == job).arguments[argument]
    for sign in (1, -1):
        moved = list(given) if i is not None else given + sign * step
        if i is not None:
            moved[i] += sign * step
        changed = plan.with_arguments({job: {argument: moved}})
        write(changed, parents, {n: p.data for n, p in model.named_parameters()})
        with torch.no_grad():
            values.append(float(loss_of(model)))
    return (values[0] - values[1]) / (2 * step)


@pytest.fixture(scope="module")
def adapters(models: Path) -> Path:
    every: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"], "r": 3}
    adapter(models / "first", models / "base", 5, **every)
    adapter(models / "second", models / "base", 6, target_modules=["q_proj", "o_proj"])
    adapter(models / "dora", models / "base", 7, target_modules=["q_proj"], use_dora=True)
    adapter(models / "norm", models / "base", 8, modules_to_save=["norm", "o_proj"])
    gpt2(models / "gpt2", 9)
    for name, seed in {"third": 10, "fourth": 11}.items():
        targets = ["c_attn", "c_proj"]
        adapter(models / name, models / "gpt2", seed, target_modules=targets, fan_in_fan_out=True)
    return models


CASES = {
    "task arithmetic": TASK_ARITHMETIC % ("one", "two"),
    "adapters": TASK_ARITHMETIC % ("base+first", "base+second"),
    "adapters of GPT-2": (TASK_ARITHMETIC % ("gpt2+third", "gpt2+fourth")).replace(
        "base_model: base", "base_model: gpt2"
    ),
    "an adapter beside a checkpoint": TASK_ARITHMETIC % ("base+first", "one"),
    "adapters that are more than sums": TASK_ARITHMETIC % ("base+dora", "base+norm"),
    "linear": (TASK_ARITHMETIC % ("one", "two"))
    .replace("task_arithmetic", "linear")
    .replace("base_model: base", ""),
    "ties": TASK_ARITHMETIC % ("one", "two") + "parameters: {density: 0.6, normalize: false}",
    "slerp": "merge_method: slerp\nbase_model: one\nmodels: [{model: two}]\nparameters: {t: 0.3}",
    "tsv_m": "merge_method: tsv_m\nbase_model: base\nmodels: [{model: one}, {model: two}]\n"
    "parameters: {lambda: 0.7}",
}


@pytest.mark.parametrize("name", CASES)
def test_the_slope_is_that_of_two_merges(adapters: Path, read: Read, name: str) -> None:
    recipe = read(CASES[name])
    parents = Parents.of(recipe)
    plan = plan_merge(recipe, parents)
    found = learned_gradients(plan, parents)
    layers = [job for job in found if (".layers." in job or ".h." in job) and found[job]]
    checked = 0
    for job in layers[:: max(1, len(layers) // 2)]:
        for argument, gradient in found[job].items():
            if argument == "lambda_" and name != "tsv_m":
                continue
            for i in range(gradient.numel()) if gradient.dim() else [None]:
                slope = difference(plan, parents, job, argument, i)
                value = float(gradient if i is None else gradient[i])
                assert value == pytest.approx(slope, rel=0.05, abs=3e-5), (job, argument, i)
                checked += 1
    assert checked >= 2


@pytest.mark.parametrize(
    ("case", "modules"),
    [
        ("adapters", {"q_proj", "v_proj", "up_proj", "down_proj", "o_proj"}),
        ("adapters of GPT-2", {"c_attn", "c_proj"}),
    ],
)
def test_adapters_take_the_way_of_no_weight_gradients(
    adapters: Path, read: Read, case: str, modules: set[str]
) -> None:
    recipe = read(CASES[case])
    parents = Parents.of(recipe)
    plan = plan_merge(recipe, parents)
    routes = Routes.of(plan, parents)
    assert not routes.dense
    assert {name.split(".")[-2] for name in routes.low_rank} == modules
    with LearnableModel.over(build(plan, DEVICE), plan, parents) as learnable:
        assert not any(parameter.requires_grad for parameter in learnable.model.parameters())


def test_what_is_no_sum_takes_the_way_of_weights(adapters: Path, read: Read) -> None:
    recipe = read(CASES["adapters that are more than sums"])
    parents = Parents.of(recipe)
    routes = Routes.of(plan_merge(recipe, parents), parents)
    ways = {
        way: {name.split(".")[-2] for name in getattr(routes, way)} for way in ("low_rank", "dense")
    }
    assert ways["low_rank"] == {"v_proj", "down_proj"}
    norms = {"norm", "input_layernorm", "post_attention_layernorm"}
    assert ways["dense"] == {"q_proj", "o_proj", *norms}


def test_a_weight_that_is_taken_without_a_call_has_its_deltas() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    a, b, owners = torch.randn(3, 4), torch.randn(3, 3), torch.tensor([0, 0, 1])
    low_rank = LowRank(a, b, owners, is_transposed=False)
    own, coefficients = layer.weight, torch.tensor([0.5, -2.0], requires_grad=True)
    called_before = layer(x)
    undo = put_beside(layer, low_rank, coefficients)
    called, taken = layer(x), functional.linear(x, layer.weight, layer.bias)
    assert not torch.equal(called, called_before)
    torch.testing.assert_close(taken, called)
    torch.testing.assert_close(
        *(torch.autograd.grad(y.square().sum(), coefficients)[0] for y in (taken, called))
    )
    undo()
    assert layer.weight is own
    assert torch.equal(layer(x), called_before)


@pytest.mark.parametrize(
    "case", ["adapters", "adapters that are more than sums", "adapters of GPT-2"]
)
def test_both_ways_compute_the_merged_model(adapters: Path, read: Read, case: str) -> None:
    recipe = read(CASES[case])
    parents = Parents.of(recipe)
    plan = plan_merge(recipe, parents)
    merged = build(plan, DEVICE)
    write(plan, parents, {n: p.data for n, p in merged.named_parameters()})
    with LearnableModel.over(build(plan, DEVICE), plan, parents) as learnable:
        learnable.become(plan)
        with torch.no_grad():
            torch.testing.assert_close(
                learnable.model(input_ids=IDS).logits, merged(input_ids=IDS).logits
            )


def test_several_backward_passes_add_up(adapters: Path, read: Read) -> None:
    recipe = read(CASES["an adapter beside a checkpoint"])
    parents = Parents.of(recipe)
    plan = plan_merge(recipe, parents)
    with LearnableModel.over(build(plan, DEVICE), plan, parents) as learnable:
        learnable.become(plan)
        loss_of(learnable.model).backward()
        once = learnable.gradients()
        loss_of(learnable.model).backward()
        twice = learnable.gradients()
        learnable.become(plan)
        assert learnable.gradients() == {}
    for job, of in once.items():
        for argument, gradient in of.items():
            torch.testing.assert_close(twice[job][argument], 2 * gradient)


def test_no_two_weights_have_a_gradient_at_once(models: Path, read: Read) -> None:
    recipe = read(CASES["task arithmetic"])
    parents = Parents.of(recipe)
    plan = plan_merge(recipe, parents)
    with LearnableModel.over(build(plan, DEVICE), plan, parents) as learnable:
        most = 0

        def count(_: Tensor) -> None:
            nonlocal most
            parameters = learnable.model.parameters()
            most = max(most, sum(p.grad is not None for p in parameters))

        for parameter in learnable.model.parameters():
            parameter.register_post_accumulate_grad_hook(count)
        learnable.become(plan)
        loss_of(learnable.model).backward()
        assert most == 0  # each is let go of before anything else looks
        assert all(parameter.grad is None for parameter in learnable.model.parameters())


def test_a_streamed_parent_is_read_in_the_backward_pass(models: Path, read: Read) -> None:
    recipe = read(CASES["task arithmetic"])
    kept, streamed = Parents.of(recipe), Parents.of(recipe, keep=False)
    plan = plan_merge(recipe, kept)
    assert set(streamed.residences.values()) == {"mapped"}
    ours, theirs = (learned_gradients(plan, parents) for parents in (kept, streamed))
    for job, of in ours.items():
        for argument, gradient in of.items():
            assert torch.equal(gradient, theirs[job][argument])


def test_afterwards_the_model_is_as_any_other(adapters: Path, read: Read) -> None:
    recipe = read(CASES["an adapter beside a checkpoint"])
    parents = Parents.of(recipe)
    plan = plan_merge(recipe, parents)
    model = build(plan, DEVICE)
    with LearnableModel.over(model, plan, parents):
        pass
    assert not any(parameter.requires_grad for parameter in model.parameters())
    write(plan, parents, {n: p.data for n, p in model.named_parameters()})
    merged = build(plan, DEVICE)
    write(plan, parents, {n: p.data for n, p in merged.named_parameters()})
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, merged(input_ids=IDS).logits)
