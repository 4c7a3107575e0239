"""Configurations as their authors wrote them are the recipe that is written plainly."""

import logging
from pathlib import Path

import pytest

from mergesearch.errors import InputError
from mergesearch.recipe import CHAT_TEMPLATES, Recipe, read_recipe
from mergesearch.recipe.setting import leaves

PLAIN = """\
merge_method: ties
base_model: base
models:
- model: one
  parameters: {weight: 1.0, density: 0.5}
- model: two
  parameters: {weight: 0.5, density: 0.5}
parameters: {normalize: true}
"""
SLICES = """\
merge_method: task_arithmetic
base_model: base
slices:
- sources:
  - {model: one, layer_range: [0, 2], parameters: {weight: 0.8}}
- sources:
  - {model: one, layer_range: [2, 4], parameters: {weight: 0.3}}
"""


@pytest.mark.parametrize("on", ["1.0", "1", '"true"', "'True '", "{value: 1}", "[1.0, true]"])
def test_a_switch_is_a_switch_however_it_is_written(on: str) -> None:
    setting = read_recipe(PLAIN.replace("normalize: true", f"normalize: {on}")).parameters
    assert [value is True for value in leaves(setting["normalize"])] == [True] * (
        1 + (on[0] == "[")
    )


@pytest.mark.parametrize("off", ["0.0", "0", '"false"', "False"])
def test_a_switch_that_is_off_stays_off(off: str) -> None:
    text = PLAIN.replace("normalize: true", f"normalize: {off}")
    assert read_recipe(text).parameters["normalize"] is False


@pytest.mark.parametrize("wrong", ["2", "0.5", '"on the whole"'])
def test_a_switch_is_nothing_else(wrong: str) -> None:
    with pytest.raises(InputError, match="normalize must be true or false"):
        read_recipe(PLAIN.replace("normalize: true", f"normalize: {wrong}"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (PLAIN + "name: my-merge\n", "name"),
        (PLAIN + "allow_crimes: true\nrandom_seed: 7\n", "random_seed"),
        (PLAIN + "allow_negative_weights: true\n", "allow_negative_weights"),
        (PLAIN.replace("{normalize: true}", "{normalize: true, embed_slerp: true}"), "embed_slerp"),
        (PLAIN.replace("- model: one\n", "- model: one\n  layer_range: [0, 4]\n"), "layer_range"),
    ],
)
def test_what_mergekit_passes_over_is_passed_over_and_said(
    caplog: pytest.LogCaptureFixture, text: str, what: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_recipe(text, "my.yaml") == read_recipe(PLAIN)
    assert any(f"my.yaml: {what}" in line and "passed over" in line for line in caplog.messages)
    assert all("\n" not in line for line in caplog.messages)


HELD = PLAIN.replace("{weight: 0.5, density: 0.5}", "*half")
HOLDER = "x-common: &half {weight: 0.5, density: 0.5}\n"


@pytest.mark.parametrize(
    "text",
    [
        HOLDER + HELD,
        "defaults:\n  all: [&half {weight: 0.5, density: 0.5}]\n" + HELD,
        HOLDER + PLAIN.replace("{weight: 0.5, density: 0.5}", "{<<: *half, density: 0.5}"),
        "---\n" + HOLDER + HELD,
    ],
)
def test_a_key_that_holds_an_anchor_for_others_is_passed_over(text: str) -> None:
    assert read_recipe(text) == read_recipe(PLAIN)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (HOLDER + PLAIN, "x-common"),
        ("x-other: {weight: 1}\n" + HOLDER + HELD, "x-other"),
        (HOLDER + HELD + "x-user: *half\n", "x-user"),
        ("paramters: &half {weight: 0.5, density: 0.5}\n" + HELD, "paramters"),
    ],
)
def test_any_other_unknown_key_stays_an_error(text: str, key: str) -> None:
    with pytest.raises(InputError, match=f"unknown key '{key}'"):
        read_recipe(text)


def test_what_is_misspelt_is_not_passed_over() -> None:
    with pytest.raises(InputError, match="did you mean 'base_model'"):
        read_recipe(PLAIN.replace("base_model", "base_modle"))


def test_a_method_in_a_slice_is_the_recipes_own_or_said(caplog: pytest.LogCaptureFixture) -> None:
    """As mergekit-evolve writes it."""
    same = SLICES.replace("- sources", "- merge_method: task_arithmetic\n  sources")
    assert read_recipe(same) == read_recipe(SLICES)
    assert not caplog.messages
    assert read_recipe(same.replace("- merge_method: task_arithmetic", "- merge_method: ties", 1))
    assert "merge_method ties of a slice is passed over" in caplog.text


def test_a_mixture_of_experts_is_named_as_such() -> None:
    text = "base_model: base\ngate_mode: hidden\nexperts:\n- source_model: one\n"
    with pytest.raises(InputError, match=r"my\.yaml: a configuration of mergekit-moe"):
        read_recipe(text, "my.yaml")


def test_a_genome_of_mergekit_evolve_is_named_as_such() -> None:
    text = "{genome: {models: [a, b], merge_method: ties, base_model: base}, tasks: [{name: x}]}"
    with pytest.raises(
        InputError, match=r"my\.yaml: a configuration of mergekit-evolve, .*search`"
    ):
        read_recipe(text, "my.yaml")


@pytest.mark.parametrize("name", ["auto", *CHAT_TEMPLATES])
def test_chat_templates_have_names(name: str) -> None:
    assert read_recipe(f"{PLAIN}chat_template: {name}\n").chat_template == name
    with pytest.raises(InputError, match="chat_template must be auto, alpaca, chatml, "):
        read_recipe(f"{PLAIN}chat_template: {name}s\n")


def test_a_slice_may_be_empty_but_not_all_of_them(tmp_path: Path) -> None:
    text = SLICES + "- sources:\n  - {model: one, layer_range: [4, 4], parameters: {weight: 0.1}}\n"
    recipe = read_recipe(text)
    assert isinstance(recipe, Recipe)
    assert [part.sources[0].n_layers for part in recipe.slices] == [2, 2, 0]
    empty = SLICES.replace("[0, 2]", "[1, 1]").replace("[2, 4]", "[2, 2]")
    with pytest.raises(InputError, match="every layer_range is empty"):
        read_recipe(empty)
    with pytest.raises(InputError, match="0 <= first <= end, got \\[3, 2\\]"):
        read_recipe(SLICES.replace("[0, 2]", "[3, 2]"))
