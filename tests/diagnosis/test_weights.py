from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mergesearch.diagnosis import Part, diagnose, together
from mergesearch.diagnosis.weights import compare_weights
from mergesearch.parents import Parents
from mergesearch.runtime import Runtime
from mergesearch.space import SearchSpace
from tests import tiny


def compared(folder: Path, said: list[str] | None = None) -> dict[tuple[int | None, str], Part]:
    space = SearchSpace.load(folder / "space.yaml")
    parents = Parents(space.models, base=space.base, keep=False)
    parts = compare_weights(space, parents, ([] if said is None else said).append)
    return {(part.layer, part.group): part for part in parts}


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "models" / name / "model.safetensors")


def test_parts_are_modules_of_layers_and_tensors_outside(family: Path) -> None:
    said: list[str] = []
    parts = compared(family, said)
    names = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
    assert set(parts) == {(None, "embed_tokens"), (None, "norm")} | {
        (layer, name) for layer in range(4) for name in names
    }
    assert said[-1].startswith("compared 100%")


def test_a_part_has_the_norms_and_angles_of_its_tensors_as_one_vector(family: Path) -> None:
    part = compared(family)[2, "mlp"]
    base, one, two = (weights(family, name) for name in ("base", "one", "two"))
    names = [name for name in base if ".2.mlp." in name]
    flat = [torch.cat([(of[n] - base[n]).double().flatten() for n in names]) for of in (one, two)]
    norms = [float(delta.norm()) for delta in flat]
    assert list(part.deltas.values()) == pytest.approx(norms, rel=1e-5)
    assert part.pair("two", "one").cosine == pytest.approx(
        float(flat[0] @ flat[1]) / norms[0] / norms[1], abs=1e-6
    )
    assert part.base == pytest.approx(float(sum(base[n].square().sum() for n in names)) ** 0.5)
    assert part.n_entries == len(flat[0])


def test_parts_together_are_the_part_of_all_their_tensors(family: Path) -> None:
    parts = compared(family)
    whole = together([parts[layer, "mlp"] for layer in range(4)])
    base, one, two = (weights(family, name) for name in ("base", "one", "two"))
    names = [name for name in base if ".mlp." in name]
    flat = [torch.cat([(of[n] - base[n]).double().flatten() for n in names]) for of in (one, two)]
    assert whole.pairs[0].cosine == pytest.approx(
        float(torch.cosine_similarity(flat[0], flat[1], dim=0)), abs=1e-6
    )
    assert whole.layer is None and whole.n_entries == len(flat[0])
    assert whole.pairs[0].shared == sum(parts[n, "mlp"].pairs[0].shared for n in range(4))


def test_groups_of_the_space_part_the_modules(family: Path) -> None:
    space = yaml.safe_load((family / "space.yaml").read_text())
    space["granularity"]["groups"] = ["down_proj", "self_attn"]
    (family / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    groups = {group for layer, group in compared(family) if layer == 0}
    assert {"down_proj", "self_attn", "mlp"} <= groups


def test_adapters_say_the_same_as_the_checkpoints_that_they_make(family: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = family / "models" / "base"
    spaces = {}
    for kind in ("adapters", "models"):
        refs = {}
        for seed, name in enumerate(("three", "four")):
            folder = tiny.adapter(family / "adapters" / name, base, seed)
            refs[name] = f"models/base+adapters/{name}"
            if kind == "models":
                model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
                merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
                merged.save_pretrained(family / "models" / name)
                tiny.tokenizer().save_pretrained(family / "models" / name)
                refs[name] = f"models/{name}"
        text = yaml.safe_load((family / "space.yaml").read_text()) | {"parents": refs}
        (family / "space.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
        spaces[kind] = compared(family)
    for key, cheap in spaces["adapters"].items():
        whole = spaces["models"][key]
        assert list(cheap.deltas.values()) == pytest.approx(list(whole.deltas.values()), rel=1e-4)
        if key[1] in ("self_attn", "mlp"):  # others stay as they are
            assert list(cheap.ranks.values()) == pytest.approx(list(whole.ranks.values()), rel=1e-3)
            assert cheap.pairs[0].overlap == pytest.approx(whole.pairs[0].overlap, rel=1e-3)
    part = spaces["adapters"][0, "self_attn"]
    assert all(rank is not None and 1 <= rank <= 4 for rank in part.ranks.values())
    norm = spaces["adapters"][None, "norm"]
    assert set(norm.deltas.values()) == {0.0} and norm.pairs[0].cosine is None


def test_a_parent_that_is_the_base_changes_nothing(family: Path) -> None:
    path = family / "models" / "two" / "model.safetensors"
    save_file(weights(family, "base"), path, metadata={"format": "pt"})
    for part in compared(family).values():
        assert part.deltas["two"] == 0.0 and part.deltas["one"] > 0
        assert part.pairs[0].cosine is None and part.ranks["two"] is None


def test_every_pair_of_three_is_there(family: Path) -> None:
    tiny.llama(family / "models" / "three", 9, base=family / "models" / "base")
    space = yaml.safe_load((family / "space.yaml").read_text())
    space["parents"]["three"] = "models/three"
    (family / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    part = compared(family)[0, "mlp"]
    found = [(pair.first, pair.second) for pair in part.pairs]
    assert found == list(combinations(("one", "two", "three"), 2))
    assert all(0 < (pair.overlap or 0) <= 1 for pair in part.pairs)


def test_relatives_by_chance_overlap_as_chance_says(family: Path) -> None:
    parts = compared(family)
    for layer in range(4):
        for group in ("self_attn", "mlp"):
            (pair,) = parts[layer, group].pairs
            assert pair.overlap is not None and pair.chance is not None
            assert pair.overlap == pytest.approx(pair.chance, rel=0.12)
    assert parts[None, "norm"].pairs[0].chance is None
    space = SearchSpace.load(family / "space.yaml")
    assert diagnose(space, Runtime(device="cpu"), lambda line: None).advice == ()


def test_few_parameters_are_counted_whole(family: Path) -> None:
    said: list[str] = []
    compared(family, said)
    assert said[-1] == "compared 100% of 8,336 parameters"
