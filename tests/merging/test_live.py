"""What is scored is what is exported: the live model, the checkpoint and their hash."""

import gc
import json
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from mergesearch import merge
from mergesearch.errors import CandidateError, InputError
from mergesearch.merging import (
    Digest,
    LiveModel,
    build,
    merge_into,
    merged_tensors,
    plan_merge,
)
from mergesearch.methods import METHODS
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe, write_recipe
from tests import tiny
from tests.merging import recipes
from tests.merging.conftest import Read

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 20, 31, 4], [1, 30, 8, 8, 2, 7]])


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    return model(input_ids=IDS).logits.clone()


def live(recipe: Recipe, parents: Parents | None = None) -> tuple[Any, Parents, str]:
    parents = parents or Parents(recipe.models)
    model = build(plan_merge(recipe, parents), CPU)
    return model, parents, merge_into(model, recipe, parents)


def test_every_method_has_a_recipe_here() -> None:
    # but for those that look at prompts: tests/calibration
    of_tensors = {name for name, row in METHODS.items() if not row.statistics}
    assert recipes.BY_METHOD.keys() == of_tensors


@pytest.mark.parametrize("name", recipes.BY_METHOD)
@pytest.mark.parametrize("prefix", ["", "u-"], ids=["tied", "untied"])
def test_the_live_model_is_the_checkpoint_of_its_recipe(
    read: Read, tmp_path: Path, name: str, prefix: str
) -> None:
    recipe = read(recipes.BY_METHOD[name].format(p=prefix))
    model, _, digest = live(recipe)
    assert merge(recipe, tmp_path / "out") == digest  # parents opened anew
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(logits(model), logits(exported))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_live_model_in_float32_holds_what_the_checkpoint_rounds_to(
    read: Read, tmp_path: Path, dtype: str
) -> None:
    recipe = read(f"dtype: {dtype}" + recipes.ARITHMETIC.format(p=""))
    model, _, digest = live(recipe)
    assert model.dtype == torch.float32
    assert merge(recipe, tmp_path / "out") == digest
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {getattr(torch, dtype)}
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(logits(model), logits(exported))
    default = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert default.dtype == getattr(torch, dtype)
    assert live(read(recipes.ARITHMETIC.format(p="")))[2] != digest


def test_bfloat16_parents_are_merged_in_float32_and_rounded_once(read: Read) -> None:
    recipe = read(recipes.ARITHMETIC.format(p="h-"))
    parents = Parents(recipe.models)
    merged = dict(merged_tensors(recipe, parents))
    base, one, two = recipe.models
    for name, tensor in merged.items():
        w0, w1, w2 = (parents.read(ref, name).double() for ref in (base, one, two))
        exact = w0 + 0.7 * (w1 - w0) - 0.4 * (w2 - w0)
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor, exact.bfloat16(), rtol=2**-7, atol=1e-6)
        agree = (tensor == exact.bfloat16()).float().mean()
        assert float(agree) > 0.98  # float32 and exact arithmetic rarely round apart


def test_out_dtype_goes_before_dtype_and_the_verb_before_both(read: Read, tmp_path: Path) -> None:
    text = "dtype: bfloat16\nout_dtype: float16" + recipes.LINEAR.format(p="")
    merge(read(text), tmp_path / "a")
    merge(read(text), tmp_path / "b", dtype="float32")
    for folder, dtype in (("a", torch.float16), ("b", torch.float32)):
        stored = load_file(tmp_path / folder / "model.safetensors")
        assert {tensor.dtype for tensor in stored.values()} == {dtype}


@pytest.mark.parametrize("name", recipes.BY_METHOD)
def test_no_candidate_leaves_a_trace_in_the_next(read: Read, name: str) -> None:
    first = read(recipes.BY_METHOD[name].format(p=""))
    second = read(recipes.TIES.format(p="").replace("0.6", "1.1"))
    parents = Parents([*read(recipes.TIES.format(p="")).models, *first.models])
    model, _, digest = live(first, parents)
    before = logits(model)
    addresses = [p.data_ptr() for p in model.parameters()]
    other = merge_into(model, second, parents)
    assert other != digest
    assert not torch.equal(logits(model), before)
    assert merge_into(model, first, parents) == digest
    assert torch.equal(logits(model), before)
    assert [p.data_ptr() for p in model.parameters()] == addresses


def test_a_failed_candidate_leaves_no_trace_in_the_next(read: Read, models: Path) -> None:
    good = read(recipes.ARITHMETIC.format(p=""))
    model, parents, digest = live(good)
    before = logits(model)
    bad = read("dtype: float16" + recipes.ARITHMETIC.format(p="").replace("0.7", "1e30"))
    with pytest.raises(CandidateError, match=r"model\.embed_tokens\.weight has NaN or infinite"):
        merge_into(model, bad, parents)
    assert merge_into(model, good, parents) == digest
    assert torch.equal(logits(model), before)


def test_a_live_model_is_built_anew_for_another_shape_only(read: Read) -> None:
    linear, ties, deep = (
        read(text.format(p="")) for text in (recipes.LINEAR, recipes.TIES, recipes.STACK)
    )
    parents = Parents([*ties.models, *linear.models])
    expected = {recipe.hash: live(recipe, parents)[2] for recipe in (linear, ties, deep)}
    model = LiveModel(parents, CPU)
    assert model.digest is None
    assert model.become(linear) == model.digest == expected[linear.hash]
    first = weakref.ref(model.model)
    assert model.become(ties) == expected[ties.hash]
    assert id(first()) == id(model.model)
    assert model.plan.n_entries == sum(p.numel() for p in model.model.parameters())
    assert model.become(deep) == expected[deep.hash]
    gc.collect()
    assert first() is None
    assert model.model.config.num_hidden_layers == 6
    assert model.become(linear) == expected[linear.hash]


@pytest.mark.parametrize("keep", [True, False])
def test_a_stack_shares_the_tensors_of_parents_that_are_kept(read: Read, keep: bool) -> None:
    recipe = read(recipes.STACK.format(p=""))
    parents = Parents(recipe.models, keep=keep)
    model = LiveModel(parents, CPU)
    assert model.become(recipe) == live(recipe)[2]
    name = "model.layers.1.mlp.up_proj.weight"
    ours, theirs = model.model.get_parameter(name), parents.read(recipe.models[0], name)
    assert torch.equal(ours, theirs)
    assert (ours.data_ptr() == theirs.data_ptr()) == keep


def test_a_live_model_computes_in_the_dtype_that_it_is_told(read: Read) -> None:
    recipe = read(recipes.LINEAR.format(p=""))
    model = LiveModel(Parents(recipe.models), CPU, torch.bfloat16)
    assert model.become(recipe) == live(recipe)[2]
    assert model.model.dtype == torch.bfloat16


def test_a_live_model_holds_nothing_before_its_first_recipe_and_after_an_error(read: Read) -> None:
    good = read(recipes.ARITHMETIC.format(p=""))
    bad = read("dtype: float16" + recipes.ARITHMETIC.format(p="").replace("0.7", "1e30"))
    model = LiveModel(Parents(good.models), CPU)
    for _ in range(2):
        for ask in (lambda: model.model, lambda: model.plan):
            with pytest.raises(RuntimeError, match="holds no recipe; call become"):
                ask()
        with pytest.raises(CandidateError):
            model.become(bad)
        assert model.digest is None
    assert model.become(good) == model.digest == live(good)[2]


def test_the_hash_is_the_same_in_another_process_with_other_threads(
    read: Read, tmp_path: Path
) -> None:
    recipe = read(recipes.DARE_TIES.format(p=""))
    _, _, digest = live(recipe)
    (tmp_path / "r.yaml").write_text(write_recipe(recipe, tmp_path))
    code = (
        "import sys, torch; from pathlib import Path;"
        "from mergesearch.exporting import write_checkpoint;"
        "from mergesearch.recipe import load_recipe;"
        "torch.set_num_threads(2); torch.manual_seed(9);"
        "print(write_checkpoint(load_recipe(Path(sys.argv[1])), Path(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "r.yaml", tmp_path / "out"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[-1] == digest


def test_the_seed_changes_random_methods_only(read: Read) -> None:
    for text, is_random in ((recipes.DARE_LINEAR, True), (recipes.TIES, False)):
        recipe = read(text.format(p=""))
        other = recipe.model_copy(update={"seed": 6})
        assert (live(recipe)[2] != live(other)[2]) == is_random


def test_the_hash_covers_names_dtypes_shapes_and_bits_but_not_the_order() -> None:
    def digest(*tensors: tuple[str, Tensor]) -> str:
        found = Digest()
        for name, tensor in tensors:
            found.add(name, tensor)
        return found.hexdigest()

    a, b = ("a", torch.arange(6.0)), ("b", torch.tensor(1.5))
    assert digest(a, b) == digest(b, a)
    assert digest(("a", torch.arange(6.0).reshape(2, 3).t().contiguous().t())) == digest(
        ("a", torch.arange(6.0).reshape(2, 3))
    )
    others = [
        digest(a),
        digest(b),
        digest(a, ("c", b[1])),
        digest(("a", a[1].reshape(2, 3)), b),
        digest(("a", a[1].to(torch.float16)), b),
        digest(("a", a[1].clone().index_fill_(0, torch.tensor([0]), -0.0)), b),
        digest(("a", torch.zeros(0))),
    ]
    assert len({digest(a, b), *others}) == len(others) + 1


@pytest.mark.parametrize("prefix", ["", "u-"], ids=["tied", "untied"])
def test_tied_embeddings_stay_tied_and_untied_ones_apart(
    read: Read, tmp_path: Path, prefix: str
) -> None:
    recipe = read(recipes.TIES.format(p=prefix))
    model, _, _ = live(recipe)
    merge(recipe, tmp_path / "out")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for found in (model, exported):
        head, embeddings = found.lm_head.weight, found.get_input_embeddings().weight
        assert (head is embeddings) == (prefix == "")
        assert torch.equal(head, embeddings) == (prefix == "")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert ("lm_head.weight" in stored) == (prefix == "u-")


def test_a_nan_parent_is_a_candidate_error_that_names_the_tensor(
    read: Read, models: Path, tmp_path: Path
) -> None:
    folder = tiny.llama(tmp_path / "nan", 1, base=models / "base")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.2.mlp.up_proj.weight"
    tensors[name][3, 4] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for method, text in recipes.BY_METHOD.items():
        if METHODS[method].needs_adapters:
            continue
        recipe = read(text.format(p="").replace("model: two", f"model: {folder}"))
        parents = Parents(recipe.models)
        model = build(plan_merge(recipe, parents), CPU)
        with pytest.raises(CandidateError, match=name):
            merge_into(model, recipe, parents)
        with pytest.raises(CandidateError, match=name):
            merge(recipe, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_candidate_of_another_depth_is_refused(read: Read) -> None:
    model, parents, _ = live(read(recipes.LINEAR.format(p="")))
    with pytest.raises(InputError, match=r"only the recipe has model\.layers\.4"):
        merge_into(model, read(recipes.STACK.format(p="")), parents)


def test_an_architecture_that_transformers_lacks_is_refused(
    read: Read, models: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(models / "one", odd)
    config = json.loads((odd / "config.json").read_text())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model_type": "no-such"}, "transformers cannot build this architecture"),
        ({"tie_word_embeddings": False}, r"only the model has lm_head\.weight"),
    ]
    for change, message in cases:
        (odd / "config.json").write_text(json.dumps({**config, **change}))
        recipe = read(f"{{merge_method: passthrough, models: [{{model: {odd}}}]}}")
        with pytest.raises(InputError, match=message):
            live(recipe)


def test_an_adapter_merges_like_the_model_that_peft_makes_of_it(read: Read, models: Path) -> None:
    from peft import PeftModel

    recipe = read("{merge_method: passthrough, models: [{model: base+lora}]}")
    model, _, _ = live(recipe)
    base = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, models / "lora").merge_and_unload()
    assert torch.equal(logits(model), logits(merged))
