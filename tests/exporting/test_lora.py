"""Merges as adapters: what peft makes of them, and the error that they state."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import EvalResult
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from mergesearch.errors import ExportMismatchError, InputError
from mergesearch.exporting import ExportOptions, Selected, export, extract_lora
from mergesearch.exporting.lora import write_lora
from mergesearch.exporting.low_rank import factors
from mergesearch.merging import merged_tensors
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef, Recipe, read_recipe
from tests import tiny

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def ref(path: Path | str) -> ModelRef:
    return ModelRef.model_validate(str(path)).resolved(Path())


def of_adapters(folder: Path, *weights: float) -> Recipe:
    """Task arithmetic of adapters of rank 4 of one base."""
    base = tiny.llama(folder / "base", 0, hidden_size=32, intermediate_size=48)
    models = []
    for seed, weight in enumerate(weights, start=1):
        adapter = tiny.adapter(folder / f"adapter-{seed}", base, seed, target_modules=ALL)
        models.append({"model": f"{base}+{adapter}", "parameters": {"weight": weight}})
    data = {"merge_method": "task_arithmetic", "base_model": str(base), "models": models}
    return read_recipe(json.dumps(data)).resolved(Path())


def merged(recipe: Recipe) -> dict[str, Tensor]:
    return dict(merged_tensors(recipe, Parents.of(recipe, keep=False)))


def by_peft(base: Path, adapter: Path) -> dict[str, Tensor]:
    """The tensors of a base with an adapter merged into it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    whole: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return dict(whole.state_dict())


def missed(expected: dict[str, Tensor], found: dict[str, Tensor], base: Path) -> float:
    """The norm of what an adapter misses beside that of all that changed."""
    start = load_file(base / "model.safetensors")
    rest = sum(float((expected[n] - found[n]).square().sum()) for n in expected)
    whole = sum(float((expected[n] - start[n]).square().sum()) for n in expected)
    return (rest / whole) ** 0.5


def test_a_merge_of_adapters_is_exact_at_the_sum_of_their_ranks(tmp_path: Path) -> None:
    recipe, base = of_adapters(tmp_path, 0.7, -0.4), tmp_path / "base"
    lines = write_lora(Selected(recipe, ExportOptions(rank=8)), tmp_path / "out")
    assert missed(merged(recipe), by_peft(base, tmp_path / "out"), base) < 1e-5
    assert lines[0].startswith("rank 8 on 28 matrices: the merged delta with a relative error of ")
    assert len(lines) == 1
    own = Recipe.model_validate(recipe.model_dump())
    adapted = ref(f"{base}+{tmp_path / 'out'}")
    ours = Parents((own.models[0], adapted), keep=False)
    name = "model.layers.1.mlp.down_proj.weight"
    torch.testing.assert_close(ours.read(adapted, name), merged(recipe)[name])


def test_scores_of_the_full_merge_are_no_metadata_of_an_approximation(tmp_path: Path) -> None:
    recipe = of_adapters(tmp_path, 1.0, 1.0)
    scored = Selected(
        recipe,
        scores="| model | 0.9 |",
        metadata={
            "model_name": "winner",
            "eval_results": [EvalResult("text-generation", "own", "own", "acc", 0.9)],
        },
        results={".eval_results/a.yaml": "- 0.9"},
    )
    for rank, is_exact in ((8, True), (3, False)):
        out = tmp_path / f"rank-{rank}"
        write_lora(replace(scored, options=ExportOptions(rank=rank)), out)
        card = (out / "README.md").read_text()
        assert ("model-index:" in card) is is_exact
        assert (out / ".eval_results/a.yaml").exists() is is_exact
        assert "| model | 0.9 |" in card
        assert ("\n## Scores\n" in card) is is_exact
        of_other = "Of the full merge, and not of this adapter (relative error 0."
        assert (of_other in card) is not is_exact


def test_the_error_that_is_stated_is_the_error(tmp_path: Path) -> None:
    recipe, base = of_adapters(tmp_path, 1.0, 1.0), tmp_path / "base"
    (line,) = write_lora(Selected(recipe, ExportOptions(rank=3)), tmp_path / "out")
    stated = float(line.split("relative error of ")[1].split()[0])
    error = missed(merged(recipe), by_peft(base, tmp_path / "out"), base)
    assert error > 0.1
    assert stated == pytest.approx(error, rel=0.06)  # two digits are shown
    card = (tmp_path / "out" / "README.md").read_text()
    assert line[1:] in card
    assert "library_name: peft" in card


def test_norms_are_stored_whole_and_tied_embeddings_are_left_out_with_their_share(
    tmp_path: Path,
) -> None:
    base = tiny.llama(tmp_path / "base", 0)
    model = tiny.llama(tmp_path / "model", 1, base=base)
    lines = extract_lora(ref(model), ref(base), tmp_path / "out", rank=16)
    found, expected = by_peft(base, tmp_path / "out"), load_file(model / "model.safetensors")
    left = {"model.embed_tokens.weight"}
    for name in expected.keys() - left:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)
    assert lines[1] == "9 modules stored whole, e.g. model.layers.0.input_layernorm"
    start = load_file(base / "model.safetensors")
    squares = {n: float((expected[n] - start[n]).square().sum()) for n in expected}
    share = squares["model.embed_tokens.weight"] / sum(squares.values())
    assert lines[2].endswith(
        f"of model.embed_tokens.weight, {share:.1%} of the squared norm of all changes"
    )


def test_untied_embeddings_and_heads_are_expressed(tmp_path: Path) -> None:
    base = tiny.llama(tmp_path / "base", 0, tie_word_embeddings=False)
    model = tiny.llama(tmp_path / "model", 1, base=base, tie_word_embeddings=False)
    extract_lora(ref(model), ref(base), tmp_path / "out", rank=16)
    assert (
        missed(load_file(model / "model.safetensors"), by_peft(base, tmp_path / "out"), base) < 1e-5
    )


def test_embeddings_are_expressed_whatever_the_untied_head_is_called(tmp_path: Path) -> None:
    config = GPTNeoXConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    folders = tmp_path / "base", tmp_path / "model"
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        GPTNeoXForCausalLM(config).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
    base, model = folders
    extract_lora(ref(model), ref(base), tmp_path / "out", rank=16)
    found, expected = by_peft(base, tmp_path / "out"), load_file(model / "model.safetensors")
    for name, stored in (
        ("gpt_neox.embed_in.weight", "gpt_neox.embed_in.weight"),
        ("lm_head.weight", "embed_out.weight"),
    ):
        torch.testing.assert_close(found[name], expected[stored], atol=1e-5, rtol=1e-4)


def test_matrices_of_columns_by_rows_are_transposed(tmp_path: Path) -> None:
    base, model = tiny.gpt2(tmp_path / "base", 0), tiny.gpt2(tmp_path / "model", 1)
    extract_lora(ref(model), ref(base), tmp_path / "out", rank=48)
    found = by_peft(base, tmp_path / "out")
    for name, tensor in load_file(model / "model.safetensors").items():
        if name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight")):
            torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_randomized_svd_is_next_to_the_best_and_exact_at_a_low_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(400, 20, generator=generator) @ torch.randn(20, 300, generator=generator)
    b, a = factors(wide, 20)
    assert float((b @ a - wide).norm() / wide.norm()) < 1e-5
    noisy = wide + 0.3 * torch.randn(400, 300, generator=generator)
    b, a = factors(noisy, 8)
    best = float(torch.linalg.svdvals(noisy)[8:].norm())
    assert best <= float((b @ a - noisy).norm()) * (1 + 1e-5) <= best * 1.001
    again, _ = factors(noisy, 8)
    assert torch.equal(b, again)


@pytest.mark.parametrize(
    ("base", "says"),
    [
        (None, "an adapter needs a base that is a full checkpoint, got none: neither the recipe"),
        ("one", "there is nothing that an adapter could hold"),
        ("other", r"must have the tensors of its base, .*other: model.layers.0.mlp.down_proj"),
    ],
)
def test_what_no_adapter_can_be_is_one_line_and_leaves_nothing(
    tmp_path: Path, base: str | None, says: str
) -> None:
    tiny.llama(tmp_path / "one", 0)
    tiny.llama(tmp_path / "other", 0, intermediate_size=32)
    model = {"model": str(tmp_path / "one"), "parameters": {"weight": 1}}
    recipe = read_recipe(json.dumps({"merge_method": "linear", "models": [model]}))
    of = None if base is None else ref(tmp_path / base)
    selected = Selected(recipe, base=of, allow_mismatch=True)
    with pytest.raises(InputError, match=says):
        write_lora(selected, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_exports_its_winner_as_an_adapter_of_the_spaces_base(searched: Path) -> None:
    said: list[str] = []
    (folder,) = export(searched / "run", form="lora", rank=4, say=said.append)
    assert folder == searched / "run" / "export" / "top-1-lora"
    assert said[0].startswith(f"{folder}: rank 4 on 28 matrices")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(searched / "models" / "base")
    assert config["target_modules"] == sorted(config["target_modules"])
    assert "## Scores" in (folder / "README.md").read_text()


def test_a_model_that_is_not_the_scored_one_is_refused(tmp_path: Path) -> None:
    recipe = of_adapters(tmp_path, 0.5)
    with pytest.raises(ExportMismatchError, match="has a parent changed since"):
        write_lora(Selected(recipe, digest="0" * 32), tmp_path / "out")
    assert not (tmp_path / "out").exists()
