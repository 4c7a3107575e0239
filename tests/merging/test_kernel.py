"""The same bits whatever the threads, the blocks and where the parents are kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mergesearch
from mergesearch.errors import InputError
from mergesearch.merging import build, kernel, merge_into, merged_tensors, merging_bytes, plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from tests.merging import recipes
from tests.merging.conftest import Read

CPU = torch.device("cpu")


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def digest_of(recipe: Recipe, parents: Parents) -> str:
    return merge_into(build(plan_merge(recipe, parents), CPU), recipe, parents)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("name", recipes.BY_METHOD)
def test_threads_blocks_and_residences_change_no_bit(
    read: Read, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read(recipes.BY_METHOD[name].format(p="h-"))
    torch.set_num_threads(1)
    expected = digest_of(recipe, Parents(recipe.models))
    torch.set_num_threads(2)
    kept, streamed = Parents(recipe.models), Parents(recipe.models, keep=False)
    assert set(kept.residences.values()) == {"host"}
    assert set(streamed.residences.values()) == {"mapped"}
    assert digest_of(recipe, kept) == digest_of(recipe, streamed) == expected
    for entries in (1, 50, 1_000):
        monkeypatch.setattr(kernel, "BLOCK", entries)
        assert digest_of(recipe, Parents(recipe.models)) == expected
        assert digest_of(recipe, kept) == expected  # with what it remembers


@pytest.mark.parametrize("name", recipes.BY_METHOD)
def test_the_stream_is_what_the_live_model_holds(read: Read, name: str) -> None:
    recipe = read(recipes.BY_METHOD[name].format(p=""))
    parents = Parents(recipe.models)
    model = build(plan_merge(recipe, parents), CPU)
    merge_into(model, recipe, parents)
    streamed = dict(merged_tensors(recipe, parents))
    assert list(streamed) == [job.name for job in plan_merge(recipe, parents).jobs]
    for parameter_name, parameter in model.named_parameters():
        assert torch.equal(streamed[parameter_name], parameter)


def test_parents_are_named_as_they_were_opened_or_by_their_paths(
    models: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models.parent)
    parents = mergesearch.open_parents(
        base=models / "base",
        parents={"first": str(models / "one"), "second": f"{models.name}/two"},
        device="cpu",
    )
    by_name = mergesearch.read_recipe(
        recipes.TIES.format(p="").replace("one", "first").replace("two", "second")
    )
    by_path = mergesearch.read_recipe(recipes.TIES.format(p=f"{models.name}/"))
    absolute = read(recipes.TIES.format(p=""))
    found = {digest_of(recipe, parents) for recipe in (by_name, by_path, absolute)}
    assert found == {digest_of(absolute, Parents(absolute.models))}
    with pytest.raises(InputError, match="which is none of the parents"):
        digest_of(read(recipes.TIES.format(p="").replace("one", "three")), parents)


def test_a_model_of_another_shape_is_refused_and_left_as_it_was(read: Read) -> None:
    recipe = read(recipes.LINEAR.format(p=""))
    parents = Parents(recipe.models)
    model = build(plan_merge(recipe, parents), CPU)
    merge_into(model, recipe, parents)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layer = model.model.layers[1].mlp
    layer.up_proj.weight.data = torch.zeros(3, 16)
    with pytest.raises(
        InputError, match=r"config.json means, \[3, 16\] for .*up_proj\.weight, got \[24, 16\]"
    ):
        merge_into(model, read(recipes.LINEAR.format(p="").replace("0.5", "0.7")), parents)
    after = model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["model.layers.1.mlp.up_proj.weight"]


def test_methods_that_look_at_whole_tensors_reserve_memory_for_them(read: Read) -> None:
    def reserved(name: str) -> int:
        recipe = read(recipes.BY_METHOD[name].format(p=""))
        parents = Parents(recipe.models)
        return merging_bytes(plan_merge(recipe, parents), parents, streamed=True)

    assert reserved("arcee_fusion") > reserved("nearswap")
    assert reserved("tsv_m") > reserved("magmax") >= reserved("ties")
