"""The factors of adapters in a plan, and what takes adapters alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergesearch import merge
from mergesearch.errors import CandidateError, RecipeError
from mergesearch.merging import merged_tensors, plan_merge, task_vector_norms
from mergesearch.merging.factors import factors_of
from mergesearch.methods import METHODS, Factors, Inputs
from mergesearch.parents import Parents
from tests import tiny
from tests.merging.conftest import Read

TEXT = "{merge_method: %s, base_model: base, models: [{model: %s}, {model: %s}]}"
PLAIN, OTHER = "base+lora-a", "base+lora-b"


@pytest.fixture(scope="module")
def others(models: Path) -> Path:
    """Adapters of `base` that do more than add one product."""
    tiny.adapter(models / "dora", models / "base", 7, target_modules=["q_proj"], use_dora=True)
    tiny.adapter(models / "whole", models / "base", 8, modules_to_save=["norm", "o_proj"])
    return models


def test_factors_are_the_task_vectors_of_every_job(read: Read, models: Path) -> None:
    recipe = read(TEXT % ("tsv_m", PLAIN, OTHER))
    parents = Parents(recipe.models)
    changed = 0
    for job in plan_merge(recipe, parents).jobs:
        factors = factors_of(job, parents)
        assert factors is not None and job.base is not None
        base = parents.read(job.base.model, job.base.name).float()
        for source, part in zip(job.models, factors, strict=True):
            delta = parents.read(source.model, source.name) - base
            torch.testing.assert_close((part.b @ part.a).view(delta.shape), delta)
            changed += len(part.a) > 0
    assert changed == 2 * 3 * 4  # q_proj, v_proj and down_proj of four layers


@pytest.mark.parametrize("method", ["core_tsv_m", "core_iso_c", "core_ties"])
def test_layers_stored_columns_by_rows_have_factors_and_a_core_space(
    read: Read, models: Path, method: str
) -> None:
    """GPT-2's: their cores are those of the transposed task vectors."""
    tiny.gpt2(models / "gpt2", 0)
    for i, name in enumerate(("gpt2-a", "gpt2-b")):
        targets = ["c_attn", "c_fc"]
        tiny.adapter(models / name, models / "gpt2", i, target_modules=targets, fan_in_fan_out=True)
    recipe = read((TEXT % (method, "gpt2+gpt2-a", "gpt2+gpt2-b")).replace(": base,", ": gpt2,"))
    parents = Parents(recipe.models)
    merged = dict(merged_tensors(recipe, parents))
    jobs = {job.name: job for job in plan_merge(recipe, parents).jobs}
    changed = [name for name in jobs if "c_attn.weight" in name or "c_fc.weight" in name]
    assert len(changed) == 4
    for name in changed:
        job = jobs[name]
        factors = factors_of(job, parents)
        assert factors is not None and job.base is not None
        base = parents.read(job.base.model, name)
        for source, part in zip(job.models, factors, strict=True):
            torch.testing.assert_close(part.b @ part.a, parents.read(source.model, name) - base)
        turned = [Factors(part.a.T, part.b.T) for part in factors]
        inputs = Inputs.of(base.T, [base.T] * 2, name=name, find_factors=lambda of=turned: of)
        expected = torch.cat([v for _, v in inputs.values(METHODS[method].formula(inputs))])
        torch.testing.assert_close(merged[name], expected.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pair", [(PLAIN, "one"), ("base+dora", OTHER), (PLAIN, "u-base+u-lora-a")])
def test_what_is_no_plain_adapter_of_the_base_has_none(
    read: Read, others: Path, pair: tuple[str, str]
) -> None:
    recipe = read(TEXT % ("tsv_m", *pair))
    parents = Parents(recipe.models, allow_mismatch=True)
    jobs = {job.name: job for job in plan_merge(recipe, parents).jobs}
    assert factors_of(jobs["model.layers.0.self_attn.q_proj.weight"], parents) is None


@pytest.mark.parametrize("pair", [(PLAIN, OTHER), (PLAIN, "one")])
def test_norms_are_those_of_the_task_vectors(
    read: Read, models: Path, pair: tuple[str, str]
) -> None:
    recipe = read((TEXT % ("task_arithmetic", *pair))[:-1] + ", parameters: {weight: 1}}")
    parents = Parents(recipe.models)
    plan, squares = plan_merge(recipe, parents), torch.zeros(2)
    for job in plan.jobs:
        assert job.base is not None
        base = parents.read(job.base.model, job.base.name)
        for i, source in enumerate(job.models):
            squares[i] += (parents.read(source.model, source.name) - base).square().sum()
    found = torch.tensor(task_vector_norms(plan, parents))
    torch.testing.assert_close(found, squares.sqrt(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "iso_cts"])
def test_adapters_merge_as_the_full_checkpoints_that_peft_makes_of_them(
    read: Read, tmp_path: Path, method: str
) -> None:
    for i, name in enumerate((PLAIN, OTHER)):
        recipe = read("{merge_method: passthrough, models: [{model: " + name + "}]}")
        merge(recipe, tmp_path / f"{i}")
    dense = read(TEXT % (method, tmp_path / "0", tmp_path / "1"))
    found, expected = (
        dict(merged_tensors(recipe, Parents(recipe.models)))
        for recipe in (read(TEXT % (method, PLAIN, OTHER)), dense)
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def test_merging_by_factors_reads_no_matrix_of_an_adapter(
    read: Read, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read(TEXT % ("tsv_m", PLAIN, OTHER))
    parents, asked = Parents(recipe.models), []
    reading = parents.read

    def noted(ref: object, name: str) -> torch.Tensor:
        asked.append((ref, name))
        return reading(ref, name)  # type: ignore[arg-type]

    monkeypatch.setattr(parents, "read", noted)
    dict(merged_tensors(recipe, parents))
    base = recipe.base_model
    assert not [name for ref, name in asked if ref != base and "_proj" in name]
    assert [name for ref, name in asked if ref != base and "norm" in name]


@pytest.mark.parametrize(
    ("pair", "rule"),
    [
        ((PLAIN, "one"), r"base\+adapter\), but \S+one is none; take the method without core_"),
        (("base+dora", PLAIN), r"but \S+dora changes model\.layers\.0\.self_attn\.q_proj\.weight"),
        ((PLAIN, "base+whole"), r"whole changes model\.layers\.0\.self_attn\.o_proj\.weight other"),
    ],
)
def test_a_method_in_core_space_refuses_other_models_before_anything_is_merged(
    read: Read, others: Path, pair: tuple[str, str], rule: str
) -> None:
    recipe = read(TEXT % ("core_ties", *pair))
    with pytest.raises(RecipeError, match=rule) as error:
        plan_merge(recipe, Parents(recipe.models))
    assert "\n" not in str(error.value)


def test_a_factor_that_is_not_finite_is_a_candidate_error(
    read: Read, models: Path, tmp_path: Path
) -> None:
    tiny.adapter(tmp_path / "bad", models / "base", 3)
    file = tmp_path / "bad" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "layers.1" in name and "q_proj.lora_B" in name)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    recipe = read(TEXT % ("core_tsv_m", PLAIN, f"base+{tmp_path / 'bad'}"))
    with pytest.raises(CandidateError, match=r"layers\.1\.self_attn\.q_proj\.weight have NaN"):
        merge(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
