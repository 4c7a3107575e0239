"""Every trial of the data-flow space is a stack within its bounds, and the same stack the same."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from mergesearch.config import parse
from mergesearch.errors import InputError
from mergesearch.merging import merged_tensors, own_bytes, plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef, Recipe, evaluate, read_recipe, write_recipe
from mergesearch.space.stacking import (
    Stacking,
    largest_stack,
    residual_filters,
    stack_starts,
    suggest_stack,
)
from tests import tiny

N_LAYERS = 6
FILTERS = ("o_proj", "down_proj")
PARENTS = {name: ModelRef.model_validate(f"org/{name}") for name in ("one", "two", "three")}
DOWN, UP = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"


def drawn(stacking: Stacking, seed: int) -> tuple[dict[str, Any], Recipe]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    return trial.params, suggest_stack(stacking, PARENTS, trial, N_LAYERS, FILTERS)


def proposed(stacking: Stacking, params: dict[str, Any]) -> Recipe:
    trial = optuna.trial.FixedTrial(params)
    recipe = suggest_stack(stacking, PARENTS, trial, N_LAYERS, FILTERS)
    assert trial.params == params  # nothing that is given is unused
    return recipe


def layers_of(recipe: Recipe) -> list[tuple[str, int, float]]:
    """Model, layer and scale of each layer of the result."""
    found = []
    for part in recipe.slices:
        (source,) = part.sources
        assert source.layer_range is not None
        setting = source.parameters.get("scale", 1.0)
        scale = evaluate(setting, DOWN, 0.0)
        assert isinstance(scale, float)
        assert evaluate(setting, UP, 0.0) == 1
        name = str(source.model).removeprefix("org/")
        found += [(name, layer, scale) for layer in range(*source.layer_range)]
    return found


@st.composite
def spaces(draw: st.DrawFn) -> Stacking:
    segments = draw(st.integers(1, 4))
    least = draw(st.integers(1, segments * N_LAYERS))
    return Stacking(
        depth=(least, draw(st.integers(least, segments * N_LAYERS))),
        segments=segments,
        scale=draw(st.sampled_from([None, (0.5, 1.5), (-1.0, 0.0)])),
        scale_per=draw(st.sampled_from(["segment", "layer"])),
    )


@given(spaces(), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_whatever_is_drawn_is_a_stack_within_the_bounds(stacking: Stacking, seed: int) -> None:
    stacking.check(N_LAYERS)
    _, recipe = drawn(stacking, seed)
    layers = layers_of(recipe)
    assert stacking.depth[0] <= len(layers) <= stacking.depth[1]
    assert all(0 <= layer < N_LAYERS for _, layer, _ in layers)
    low, high = stacking.scale or (1.0, 1.0)
    assert all(low <= scale <= high and round(scale, 4) == scale for *_, scale in layers)
    jumps = [b for a, b in itertools.pairwise(layers) if b[:2] != (a[0], a[1] + 1)]
    assert len(jumps) < stacking.segments
    # as few slices as can be
    changes = [b for a, b in itertools.pairwise(layers) if b != (a[0], a[1] + 1, a[2])]
    assert len(recipe.slices) == len(changes) + 1
    assert read_recipe(write_recipe(recipe)) == recipe


@given(spaces())
@settings(max_examples=100, deadline=None)
def test_what_is_tried_first_is_what_its_label_says(stacking: Stacking) -> None:
    for label, params in stack_starts(stacking, PARENTS, N_LAYERS):
        layers = layers_of(proposed(stacking, params))
        words = label.replace(",", "").split()
        if words[0] == "all":
            expected = [(words[-1], i, 1.0) for i in range(N_LAYERS)]
        else:
            below, above = int(words[1]), int(words[6])
            expected = [(words[4], i, 1.0) for i in range(below)]
            expected += [(words[8], i, 1.0) for i in range(N_LAYERS - above, N_LAYERS)]
        assert layers == expected
        assert stacking.depth[0] <= len(layers) <= stacking.depth[1]


def labels(**settings: Any) -> Iterator[str]:
    return (label for label, _ in stack_starts(Stacking(**settings), PARENTS, N_LAYERS))


def test_parents_and_overlapping_halves_are_tried_where_the_space_holds_them() -> None:
    pairs = [("one", "two"), ("two", "three"), ("three", "one")]
    assert list(labels(depth=(4, 12))) == [
        *(f"all layers of {name}" for name in PARENTS),
        *(f"first 5 layers of {name}, last 4 of {name}" for name in PARENTS),
        *(f"first 5 layers of {a}, last 4 of {b}" for a, b in pairs),
    ]
    # as deep as the parents, with one half of each
    assert list(labels(depth=6, segments=2)) == [
        *(f"all layers of {name}" for name in PARENTS),
        *(f"first 3 layers of {a}, last 3 of {b}" for a, b in pairs),
    ]
    assert list(labels(depth=(2, 5), segments=1)) == []
    assert next(labels(depth=(2, 5))) == "first 3 layers of one, last 2 of one"
    assert list(labels(depth=6, scale=(1.1, 2))) == []


def test_runs_that_go_on_from_each_other_are_one(tmp_path: Path) -> None:
    stacking = Stacking(depth=6, segments=2, scale=(0.5, 1.5))
    (_, whole), *_ = stack_starts(stacking, PARENTS, N_LAYERS)
    parts = {**whole, "stack.share.0": 0.5, "stack.first.0": 0, "stack.first.1": 3}
    one, same = proposed(stacking, whole), proposed(stacking, parts)
    assert one.hash == same.hash
    assert len(one.slices) == 1
    assert "parameters" not in write_recipe(one)
    # scales that are the same to four digits are one, others are not
    near = {**parts, "stack.scale.0": 1.00004, "stack.scale.1": 0.99996}
    assert proposed(stacking, near) == one
    apart = proposed(stacking, {**parts, "stack.scale.1": 0.9})
    assert [part.sources[0].layer_range for part in apart.slices] == [(0, 3), (3, 6)]


def test_a_segment_without_layers_changes_nothing() -> None:
    stacking = Stacking(depth=6, segments=3, scale=(0.5, 1.5))
    (_, whole), *_ = stack_starts(stacking, PARENTS, N_LAYERS)
    other = {**whole, "stack.parent.2": "three", "stack.first.2": 2, "stack.scale.2": 0.7}
    assert proposed(stacking, other) == proposed(stacking, whole)


def test_a_run_that_would_not_fit_begins_nearer_to_the_bottom() -> None:
    stacking = Stacking(depth=4, segments=1)
    recipe = proposed(stacking, {"stack.parent.0": "two", "stack.first.0": 5})
    assert layers_of(recipe) == [("two", i, 1.0) for i in range(2, 6)]


def test_each_layer_may_have_a_scale_of_its_own() -> None:
    stacking = Stacking(depth=(2, 3), segments=1, scale=(0.5, 1.5), scale_per="layer")
    params = {
        "stack.depth": 3,
        "stack.parent.0": "two",
        "stack.first.0": 1,
        "stack.scale.0": 1.0,
        "stack.scale.1": 0.75,
        "stack.scale.2": 0.75,
    }
    recipe = proposed(stacking, params)
    assert layers_of(recipe) == [("two", 1, 1.0), ("two", 2, 0.75), ("two", 3, 0.75)]
    assert [part.sources[0].layer_range for part in recipe.slices] == [(1, 2), (2, 4)]


def test_all_trials_have_the_same_parameters() -> None:
    """A sampler learns more from parameters that do not come and go."""
    for per in ("segment", "layer"):
        stacking = Stacking(depth=(2, 9), scale=(0, 2), scale_per=per)
        names = {frozenset(drawn(stacking, seed)[0]) for seed in range(20)}
        assert len(names) == 1


def test_one_parent_and_one_depth_are_not_asked_for() -> None:
    trial = optuna.create_study().ask()
    only = {"one": PARENTS["one"]}
    suggest_stack(Stacking(depth=9, segments=2), only, trial, N_LAYERS)
    assert list(trial.params) == ["stack.share.0", "stack.first.0", "stack.first.1"]


def test_no_candidate_is_larger_than_the_largest(tmp_path: Path) -> None:
    parents = {
        f"p{i}": ModelRef.model_validate(str(tiny.llama(tmp_path / str(i), i))) for i in (1, 2)
    }
    opened = Parents(parents.values())
    for scale in ((0.5, 1.5), (0.0, 1.0), None):
        stacking = Stacking(depth=(3, 7), segments=2, scale=scale)
        largest = plan_merge(largest_stack(stacking, parents, 4, FILTERS), opened)
        for seed in range(10):
            trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
            plan = plan_merge(suggest_stack(stacking, parents, trial, 4, FILTERS), opened)
            assert plan.n_entries <= largest.n_entries
            assert own_bytes(plan, torch.float32) <= own_bytes(largest, torch.float32)
        assert (own_bytes(largest, torch.float32) > 0) == (scale is not None)


def test_a_scale_multiplies_weight_and_bias_of_what_writes_to_the_stream(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    ref = ModelRef.model_validate(str(tmp_path / "gpt2"))
    parents = Parents([ref])
    filters = residual_filters(parents.specs(ref))
    assert filters == ("c_proj",)
    stacking = Stacking(depth=2, segments=1, scale=(2, 3))
    recipe = largest_stack(stacking, {"gpt2": ref}, 2, filters)
    written = set()
    for name, tensor in merged_tensors(recipe, parents):
        before = parents.read(ref, name)
        if torch.equal(tensor, before * 3) and before.any():
            written.add(name.removeprefix("transformer.h."))
        else:
            assert torch.equal(tensor, before) or name.endswith("c_proj.bias")
    weights = {f"{i}.{part}.c_proj.weight" for i in (0, 1) for part in ("attn", "mlp")}
    assert written == weights
    scales = {job.name: job.arguments["scale"] for job in plan_merge(recipe, parents).jobs}
    assert scales["transformer.h.1.mlp.c_proj.bias"] == [3.0]
    assert scales["transformer.h.1.attn.c_attn.bias"] == [1.0]


ARCHITECTURES = {
    "llama": (
        "self_attn.q_proj self_attn.o_proj mlp.up_proj mlp.down_proj post_attention_layernorm",
        ("o_proj", "down_proj"),
    ),
    "gpt_neox": (
        "attention.query_key_value attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h",
        ("attention.dense", "dense_4h_to_h"),
    ),
    "phi": ("self_attn.q_proj self_attn.dense mlp.fc1 mlp.fc2", ("attn.dense", "fc2")),
    "opt": ("self_attn.q_proj self_attn.out_proj fc1 fc2", ("out_proj", "fc2")),
    "starcoder2": ("self_attn.o_proj mlp.c_fc mlp.c_proj", ("o_proj", "c_proj", "down_proj")),
    "mixtral": (
        "self_attn.o_proj block_sparse_moe.experts.0.w1 block_sparse_moe.experts.0.w2",
        ("o_proj", ".w2."),
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_filters_match_the_output_projections_and_nothing_else(name: str) -> None:
    words, expected = ARCHITECTURES[name]
    names = [f"model.layers.0.{word}.weight" for word in words.split()]
    filters = residual_filters(names)
    assert set(filters) <= set(expected)
    matched = {n for n in names if any(f in n for f in filters)}
    assert len(matched) == 2


def test_an_architecture_whose_stream_a_scale_does_not_reach_is_refused() -> None:
    words = "o_proj mlp.down_proj post_feedforward_layernorm"
    with pytest.raises(InputError, match=r"normalize what a layer adds \(post_feedforward"):
        residual_filters([f"model.layers.0.{word}.weight" for word in words.split()])
    with pytest.raises(InputError, match=r"no tensor's name contains any of down_proj, c_proj"):
        residual_filters(["model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.x.weight"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no depth": ({}, "stacking: depth: is missing"),
    "depth backwards": ({"depth": [5, 4]}, r"1 <= least <= most, got \[5, 4\]"),
    "no layers": ({"depth": 0}, r"1 <= least <= most, got \[0, 0\]"),
    "a depth of three": ({"depth": [1, 2, 3]}, "depth"),
    "half a layer": ({"depth": 2.5}, "depth"),
    "no segments": ({"depth": 4, "segments": 0}, "segments"),
    "scale backwards": ({"depth": 4, "scale": [1, 1]}, r"low < high, got \[1.0, 1.0\]"),
    "an infinite scale": ({"depth": 4, "scale": [0, float("inf")]}, "scale"),
    "an unknown key": ({"depth": 4, "segment": 2}, "did you mean 'segments'"),
    "scale per block": ({"depth": 4, "scale_per": "block"}, "scale_per"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_settings_are_refused(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        parse(Stacking, data, "stacking")


def test_one_number_is_a_depth() -> None:
    assert Stacking(depth=4) == Stacking(depth=(4, 4))
    assert parse(Stacking, {"depth": [4, 6]}, "stacking").depth == (4, 6)
    again = parse(Stacking, Stacking(depth=4).model_dump(mode="json"), "stacking")
    assert again == Stacking(depth=4)


def test_a_depth_that_no_runs_reach_is_refused() -> None:
    Stacking(depth=12, segments=2).check(6)
    with pytest.raises(InputError, match=r"segments x layers of a parent, got 13 for 2 x 6"):
        Stacking(depth=(4, 13), segments=2).check(6)
