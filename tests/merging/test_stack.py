"""Stacks run on the parents' own tensors, and are what a checkpoint of their recipe holds."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
)

from mergesearch import merge
from mergesearch.errors import CandidateError, InputError, RecipeError
from mergesearch.evaluation import Evaluator
from mergesearch.exporting import write_checkpoint
from mergesearch.merging import (
    Digest,
    Stacks,
    merged_tensors,
    own_bytes,
    plan_merge,
    reserve_stacks,
    skeleton,
)
from mergesearch.parents import Parents, load_tokenizer
from mergesearch.recipe import ModelRef, Recipe, read_recipe
from mergesearch.runs import Record
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.tasks import load_suite
from mergesearch.workers import LocalWorker
from tests import tiny
from tests.merging import recipes

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 5, 9, 20, 31, 4], [1, 30, 8, 8, 2, 7]])
#: Layers of two models, some of them repeated; those of the second are scaled.
STACK = """
merge_method: passthrough
slices:
  - sources: [{{model: {one}, layer_range: [0, 3]}}]
  - sources:
      - model: {two}
        layer_range: [1, 4]
        parameters:
          scale:
            - {{filter: {attention}, value: {scale}}}
            - {{filter: {mlp}, value: {scale}}}
            - {{value: 1.0}}
  - sources: [{{model: {one}, layer_range: [2, 3]}}]
  - sources: [{{model: {one}, layer_range: [0, 4]}}]
"""
#: The layers of `one` and `two` that it takes.
ORIGIN = [
    *[("one", i) for i in range(3)],
    *[("two", i) for i in range(1, 4)],
    ("one", 2),
    *[("one", i) for i in range(4)],
]


def stack(
    folder: Path, scale: float = 1.0, *, one: str = "one", two: str = "two", dtype: str = ""
) -> Recipe:
    names = {"attention": "o_proj", "mlp": "down_proj"}
    text = STACK.format(one=one, two=two, scale=scale, **names)
    return read_recipe(f"{dtype}\n{text}").resolved(folder)


def stacked_model(
    recipe: Recipe, parents: Parents | None = None, dtype: torch.dtype | None = None
) -> tuple[Any, Parents, str]:
    parents = parents or Parents(recipe.models)
    plan = plan_merge(recipe, parents)
    model = skeleton(plan, CPU, dtype)
    return model, parents, Stacks(parents, CPU).stack_into(model, plan)


@torch.no_grad()
def logits(model: torch.nn.Module) -> Tensor:
    return model(input_ids=IDS).logits.clone()


def digest_of(recipe: Recipe, parents: Parents) -> str:
    whole = Digest()
    for name, tensor in merged_tensors(recipe, parents):
        whole.add(name, tensor)
    return whole.hexdigest()


def stored(parents: Parents) -> dict[tuple[ModelRef, str], Tensor]:
    return {
        (ref, name): parents.read(ref, name).clone()
        for ref in parents.models
        for name in parents.specs(ref)
    }


def unchanged(parents: Parents, before: dict[tuple[ModelRef, str], Tensor]) -> bool:
    return all(torch.equal(parents.read(*key), tensor) for key, tensor in before.items())


def gpt2(folder: Path, seed: int) -> Path:
    config = GPT2Config(
        vocab_size=32, n_embd=16, n_layer=4, n_head=4, n_positions=64, initializer_range=0.3
    )
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        if name.endswith("c_proj.bias"):  # zero at first
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


def gemma3(folder: Path, seed: int) -> Path:
    full, sliding = "full_attention", "sliding_attention"
    config = Gemma3TextConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=4, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=3, initializer_range=0.3,
        max_position_embeddings=64, layer_types=[sliding, sliding, sliding, full],
    )  # fmt: skip
    torch.manual_seed(seed)
    Gemma3ForCausalLM(config).save_pretrained(folder)
    return folder


#: Each family's maker, and the names of what writes to the residual stream.
FAMILIES = {
    "llama": (tiny.llama, "o_proj", "down_proj"),
    "gpt2": (gpt2, "attn.c_proj", "mlp.c_proj"),
    "gemma3": (gemma3, "o_proj", "down_proj"),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_a_stack_is_the_checkpoint_of_its_recipe(tmp_path: Path, family: str, scale: float) -> None:
    make, attention, mlp = FAMILIES[family]
    for seed, name in enumerate(("one", "two")):
        make(tmp_path / name, seed)
    text = STACK.format(one="one", two="two", attention=attention, mlp=mlp, scale=scale)
    recipe = read_recipe(text).resolved(tmp_path)
    model, _, digest = stacked_model(recipe)
    assert merge(recipe, tmp_path / "out") == digest  # parents opened anew
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert exported.config.num_hidden_layers == len(ORIGIN)
    assert torch.equal(logits(model), logits(exported))
    written = [
        found.generate(IDS, max_new_tokens=8, min_new_tokens=8, do_sample=False, pad_token_id=3)
        for found in (model, exported)
    ]
    assert torch.equal(*written)  # each occurrence of a layer has a cache of its own
    for name, tensor in exported.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    if family == "gpt2" and scale != 1:
        two = load_file(tmp_path / "two" / "model.safetensors")
        bias = model.get_parameter("transformer.h.3.attn.c_proj.bias")
        assert torch.equal(bias, two["transformer.h.1.attn.c_proj.bias"] * scale)


def test_gemmas_windows_follow_their_layers(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        gemma3(tmp_path / name, seed)
    model, _, _ = stacked_model(stack(tmp_path))
    for layer, (_, index) in zip(model.model.layers, ORIGIN, strict=True):
        expected = "full_attention" if index == 3 else "sliding_attention"
        assert layer.self_attn.is_sliding == (expected == "sliding_attention")
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(len(ORIGIN)))


@pytest.mark.parametrize("prefix", ["", "u-"], ids=["tied", "untied"])
def test_nothing_is_copied_but_what_is_scaled(models: Path, prefix: str) -> None:
    recipe = stack(models, 0.5, one=f"{prefix}one", two=f"{prefix}two")
    model, parents, _ = stacked_model(recipe)
    refs = dict(zip(("one", "two"), recipe.models, strict=True))
    for layer, (parent, index) in enumerate(ORIGIN):
        for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj", "input_layernorm"):
            ours = model.get_parameter(f"model.layers.{layer}.{name}.weight")
            theirs = parents.read(refs[parent], f"model.layers.{index}.{name}.weight")
            scaled = parent == "two" and name in ("self_attn.o_proj", "mlp.down_proj")
            assert (ours.data_ptr() == theirs.data_ptr()) != scaled
            assert torch.equal(ours, theirs * 0.5 if scaled else theirs)
    embedding = parents.read(refs["one"], "model.embed_tokens.weight")
    assert model.get_input_embeddings().weight.data_ptr() == embedding.data_ptr()
    head = parents.read(refs["one"], "lm_head.weight") if prefix else embedding
    assert model.lm_head.weight.data_ptr() == head.data_ptr()
    plan = plan_merge(recipe, parents)
    own = [p for n, p in model.named_parameters() if n in _scaled(recipe, parents)]
    assert own_bytes(plan, torch.float32) == sum(p.nbytes for p in own) > 0


def _scaled(recipe: Recipe, parents: Parents) -> set[str]:
    jobs = plan_merge(recipe, parents).jobs
    return {job.name for job in jobs if job.arguments["scale"] == [0.5]}


@pytest.mark.parametrize("dtype", ["", "dtype: float16", "dtype: float32"])
def test_what_is_converted_is_converted_once_for_all_stacks(
    models: Path, tmp_path: Path, dtype: str
) -> None:
    recipe = stack(models, 0.5, one="h-one", two="h-two", dtype=dtype)
    parents = Parents(recipe.models)
    plan, stacks = plan_merge(recipe, parents), Stacks(parents, CPU)
    first, second = (skeleton(plan, CPU) for _ in range(2))
    digests = {stacks.stack_into(first, plan), stacks.stack_into(second, plan)}
    assert digests == {merge(recipe, tmp_path / "out")}
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.equal(logits(first), logits(exported))
    for name, ours in first.named_parameters():
        assert ours.dtype == torch.float32
        shared = name not in _scaled(recipe, parents)
        assert (second.get_parameter(name).data_ptr() == ours.data_ptr()) == shared
    for name in ("mlp.up_proj", "mlp.down_proj"):  # layer 2 of the one model occurs three times
        again = [first.get_parameter(f"model.layers.{i}.{name}.weight") for i in (2, 6, 9)]
        assert len({tensor.data_ptr() for tensor in again}) == 1


def test_a_model_in_its_parents_bfloat16_copies_nothing(models: Path) -> None:
    recipe = stack(models, one="h-one", two="h-two")
    model, parents, digest = stacked_model(recipe, dtype=torch.bfloat16)
    addresses = {
        parents.read(ref, name).data_ptr() for ref in parents.models for name in parents.specs(ref)
    }
    assert {p.data_ptr() for p in model.parameters()} <= addresses
    assert digest == digest_of(recipe, parents)


def test_an_adapters_sums_are_added_once_and_share_the_rest_with_their_base(models: Path) -> None:
    recipe = stack(models, one="base", two="base+lora")
    model, parents, digest = stacked_model(recipe)
    layers = [model.get_submodule(f"model.layers.{i}.mlp") for i in (1, 3)]  # layer 1 of both
    assert layers[0].up_proj.weight.data_ptr() == layers[1].up_proj.weight.data_ptr()
    assert layers[0].down_proj.weight.data_ptr() != layers[1].down_proj.weight.data_ptr()
    for name, tensor in merged_tensors(recipe, parents):
        assert torch.equal(model.get_parameter(name), tensor)
    assert digest == digest_of(recipe, parents)


def test_memory_does_not_grow_from_stack_to_stack(models: Path) -> None:
    stacked = [stack(models, scale, one="h-one", two="h-two") for scale in (0.5, 1.0, -2.0)]
    parents = Parents(stacked[0].models)
    plan, stacks = [plan_merge(recipe, parents) for recipe in stacked], Stacks(parents, CPU)
    model = skeleton(plan[0], CPU)
    held = {}
    for i in range(24):
        stacks.stack_into(model, plan[i % 3])
        if i in (3, 4, 21, 22):
            held[i] = _held()
    assert (held[21], held[22]) == (held[3], held[4])
    assert held[3] - held[4] == own_bytes(plan[0], torch.float32) > 0


def _held() -> int:
    """Bytes of all tensors alive."""
    gc.collect()
    storages = {
        storage.data_ptr(): storage.nbytes()
        for found in gc.get_objects()
        if type(found) in (Tensor, torch.nn.Parameter) and found.device == CPU
        for storage in [found.untyped_storage()]
    }
    return sum(storages.values())


def test_a_stack_leaves_its_parents_as_they_are(models: Path) -> None:
    recipe = stack(models, 0.5)
    parents = Parents(recipe.models)
    before = stored(parents)
    model, _, digest = stacked_model(recipe, parents)
    expected = logits(model)
    plan, stacks = plan_merge(recipe, parents), Stacks(parents, CPU)
    other = plan_merge(stack(models, -3.0), parents)
    assert stacks.stack_into(model, other) != digest
    assert stacks.stack_into(model, plan) == digest
    assert torch.equal(logits(model), expected)
    assert unchanged(parents, before)


def test_a_streamed_parents_tensors_stay_valid(models: Path, tmp_path: Path) -> None:
    recipe = stack(models, 0.5)
    model, _, digest = stacked_model(recipe, Parents(recipe.models, keep=False))
    kept, _, same = stacked_model(recipe)
    assert digest == same
    assert torch.equal(logits(model), logits(kept))


def test_what_cannot_be_stacked_is_refused(models: Path, tmp_path: Path) -> None:
    tiny.llama(tmp_path / "wide", 5, intermediate_size=32)
    recipe = stack(models, two=str(tmp_path / "wide"))
    with pytest.raises(
        RecipeError, match=r"first model's config.json means, .* for model\.layers\.3\.mlp"
    ):
        stacked_model(recipe)
    recipe = stack(models)
    parents = Parents(recipe.models)
    shallow = read_recipe("{merge_method: passthrough, models: [{model: one}]}").resolved(models)
    with pytest.raises(InputError, match=r"only the recipe has model\.layers\.\d"):
        Stacks(parents, CPU).stack_into(
            skeleton(plan_merge(shallow, parents), CPU), plan_merge(recipe, parents)
        )


@pytest.mark.parametrize("run", ["one", "two"], ids=["as it is", "scaled"])
def test_a_nan_is_a_candidate_error_that_names_the_tensor(
    models: Path, tmp_path: Path, run: str
) -> None:
    tiny.llama(tmp_path / "nan", 1)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors = load_file(tmp_path / "nan" / "model.safetensors")
    tensors[name][3, 4] = float("nan")
    save_file(tensors, tmp_path / "nan" / "model.safetensors", metadata={"format": "pt"})
    names = {"one": "base", "two": "base", run: str(tmp_path / "nan")}
    with pytest.raises(CandidateError, match=f"nan: {name} has NaN"):
        stacked_model(stack(models, 0.5, **names))


def test_the_plan_holds_what_stacks_keep_beside_the_parents(models: Path) -> None:
    recipe = stack(models, one="h-one", two="h-two")
    parents = Parents(recipe.models)

    def kept(dtype: torch.dtype, **options: Any) -> int:
        parents = Parents(recipe.models, **options)
        memory = reserve_stacks(parents, recipe.models, {"live model": 5}, dtype, CPU)
        assert sum(row.n_bytes for row in memory.rows if row.what == "live model") == 5
        return sum(row.n_bytes for row in memory.rows if row.what == "tensors of stacks")

    n_entries = sum(
        spec.n_bytes // 2 for ref in parents.models for spec in parents.specs(ref).values()
    )
    assert kept(torch.float32) == 4 * n_entries
    assert kept(torch.bfloat16) == 0  # the parents' own
    assert kept(torch.bfloat16, keep=False) == 2 * n_entries
    plan, stacks = plan_merge(recipe, parents), Stacks(parents, CPU)
    before = _held()
    model = skeleton(plan, CPU, torch.float32)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    stacks.stack_into(model, plan)
    unused = sum(  # of `two`: its first layer and what is outside the layers
        2 * spec.n_bytes
        for name, spec in parents.specs(recipe.models[1]).items()
        if "layers" not in name or "layers.0." in name
    )
    assert _held() - before - buffers == 4 * n_entries - unused


def test_adapters_of_one_base_hold_its_tensors_once(models: Path) -> None:
    refs = [ModelRef.model_validate(name).resolved(models) for name in ("base", "base+lora")]
    parents = Parents(refs)
    memory = reserve_stacks(parents, refs, {}, torch.float64, CPU)
    (row,) = (row for row in memory.rows if row.what == "tensors of stacks")
    specs = parents.specs(refs[0])
    whole = sum(2 * spec.n_bytes for spec in specs.values())
    sums = sum(
        2 * spec.n_bytes
        for name, spec in specs.items()
        if any(part in name for part in ("q_proj", "v_proj", "down_proj"))
    )
    assert row.n_bytes == whole + sums


def evaluator_of(family: Path, folder: Path) -> CandidateEvaluator:
    folder.mkdir()
    refs = [ModelRef.model_validate(str(family / "models" / n)) for n in ("base", "one", "two")]
    evaluator = Evaluator(
        load_suite(family / "suite.yaml"), load_tokenizer(family / "models" / "base")
    )
    parents = Parents(refs)
    return CandidateEvaluator(
        parents, evaluator, Record(folder), LocalWorker(parents, evaluator, CPU)
    )


def test_a_candidate_evaluator_goes_from_stacks_to_merges_and_back(
    family: Path, tmp_path: Path
) -> None:
    candidates = evaluator_of(family, tmp_path / "run")
    before = stored(candidates.parents)

    def read(text: str) -> Recipe:
        return read_recipe(text).resolved(family / "models")

    whole = read("{merge_method: passthrough, models: [{model: one}]}")
    linear = [
        read(
            f"{{merge_method: linear, models: [{{model: {a}}}, {{model: {b}}}],"
            " parameters: {weight: 1}}"
        )
        for a, b in (("one", "two"), ("one", "base"))
    ]
    stacks = [stack(family / "models", scale) for scale in (0.5, 1.0)]
    for i, recipe in enumerate([whole, linear[0], stacks[0], stacks[1], linear[1]]):
        found = candidates.score(recipe, full=True)
        alone = evaluator_of(family, tmp_path / str(i)).score(recipe, full=True)
        assert (found.digest, found.total) == (alone.digest, alone.total)
        write_checkpoint(recipe, tmp_path / f"out-{i}", expected_digest=found.digest)
    assert unchanged(candidates.parents, before)


def test_a_candidate_evaluator_frees_what_a_stack_alone_had(family: Path, tmp_path: Path) -> None:
    candidates = evaluator_of(family, tmp_path / "run")
    scaled = stack(family / "models", 0.5)
    candidates.score(scaled)
    assert isinstance(candidates.worker, LocalWorker)
    weights = [weakref.ref(p) for p in candidates.worker._live.model.parameters()]
    candidates.score(read_recipe(recipes.LINEAR.format(p="")).resolved(family / "models"))
    gc.collect()
    assert not any(weight() for weight in weights)
