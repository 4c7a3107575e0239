"""Statistics beside those of transformers' own forward and backward passes."""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from mergesearch.calibration import Calibrator, calibrated, disk_bytes
from mergesearch.calibration.layers import Layers
from mergesearch.errors import CandidateError, InputError
from mergesearch.merging import LiveModel, digest_of, merged_tensors, plan_merge
from mergesearch.merging.threads import Workers
from mergesearch.methods import METHODS, apply
from mergesearch.parents import Parents, tokenizer_of
from mergesearch.recipe import ModelRef, Recipe, read_recipe
from mergesearch.runtime import torch_threads
from tests import tiny
from tests.calibration.conftest import ONE, TWO, OfMethod

CPU = torch.device("cpu")
MATRICES = [
    f"model.layers.{i}.{module}.weight"
    for i in range(4)
    for module in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    )
]  # fmt: skip


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tokens(text: str) -> Tensor:
    return torch.tensor([tiny.tokenizer()(text)["input_ids"]])


def inputs_of(model: Any, texts: list[str], kind: type[nn.Module] = nn.Linear) -> dict[str, Tensor]:
    """What each linear layer gets from texts in plain forward passes, (tokens, columns)."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    hooks = [
        module.register_forward_pre_hook(lambda _, args, n=name: seen[n].append(args[0][0]))
        for name, module in model.named_modules()
        if isinstance(module, kind)
    ]
    with torch.no_grad():
        for text in texts:
            model(tokens(text))
    for hook in hooks:
        hook.remove()
    return {f"{name}.weight": torch.cat(of) for name, of in seen.items()}


class Owner:
    """A calibrator with all that it needs, and what it said."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.parents = recipe, Parents.of(recipe)
        self.said: list[str] = []
        self.live = LiveModel(self.parents, CPU)
        self.calibrator = Calibrator(
            self.parents, tokenizer_of(self.parents), folder, self.said.append
        )
        self.computed = self.calibrator.prepare(recipe, self.live)

    def read(self, kind: str, model: str, name: str) -> Tensor | None:
        (ref,) = (ref for ref in self.recipe.models if str(ref).endswith(model))
        return self.parents.statistics.read(kind, ref, name)


def close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_gram_matrices_are_those_of_plain_forward_passes(
    relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    owner = Owner(of_method("regmean"), tmp_path)
    for model, texts in (("one", ONE), ("two", TWO)):
        inputs = inputs_of(loaded(relatives / "models" / model), texts)
        for name in MATRICES:
            close(
                owner.read("gram", model, name), inputs[name].T @ inputs[name] / len(inputs[name])
            )
        assert owner.read("gram", model, "model.norm.weight") is None
        assert owner.read("gram", model, "model.embed_tokens.weight") is None


def test_inputs_that_layers_share_are_stored_once(of_method: OfMethod, tmp_path: Path) -> None:
    recipe = of_method("regmean")
    owner = Owner(recipe, tmp_path)
    files = sorted((tmp_path / owner.computed[0].key).glob("*.safetensors"))
    assert len(files) == 4
    with safe_open(files[0], framework="pt") as opened:
        assert len(opened.keys()) == 4  # of seven: q, k, v are one, and gate, up
    n_bytes = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert n_bytes <= disk_bytes(["gram"], plan_merge(recipe, owner.parents), 2)


def test_the_fisher_information_is_that_of_autograd_example_by_example(
    relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    owner = Owner(of_method("fisher"), tmp_path)
    model = loaded(relatives / "models" / "two")
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for text in TWO:
        ids = tokens(text)
        model.zero_grad()
        (model(ids, labels=ids).loss * (ids.shape[1] - 1)).backward()  # its mean over tokens
        for name, parameter in model.named_parameters():
            total[name] += parameter.grad**2 / len(TWO)
    for name, expected in total.items():
        found = owner.read("fisher", "two", name)
        assert found is not None
        # bfloat16 has eight digits of two
        torch.testing.assert_close(found.view_as(expected), expected, rtol=2**-8, atol=1e-12)
    n_bytes = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    assert n_bytes <= disk_bytes(["fisher"], plan_merge(owner.recipe, owner.parents), 2)


def test_only_the_tokens_of_a_continuation_are_labels(
    relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    (tmp_path / "one.jsonl").write_text('{"prompt": "w1 w2 w3", "continuation": " w4 w5"}\n')
    file = str(tmp_path / "one.jsonl")
    owner = Owner(of_method("fisher").with_files(lambda _: file), tmp_path)
    model, ids = loaded(relatives / "models" / "one"), tokens("w1 w2 w3 w4 w5")
    logprobs = model(ids).logits[0].log_softmax(-1)
    (-logprobs[2, ids[0, 3]] - logprobs[3, ids[0, 4]]).backward()
    name = "model.layers.2.mlp.up_proj.weight"
    found = owner.read("fisher", "one", name)
    assert found is not None
    torch.testing.assert_close(found, model.get_parameter(name).grad ** 2, rtol=2**-8, atol=1e-12)


def test_magnitudes_are_the_bases_from_all_prompts(
    relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    more = ", parameters: {weight: 1}, aim: {base: models/base, omega: 0.4}"
    owner = Owner(of_method("linear", more), tmp_path)
    assert [one.n_texts for one in owner.computed] == [len({*ONE, *TWO})]
    inputs = inputs_of(loaded(relatives / "models" / "base"), list(dict.fromkeys([*ONE, *TWO])))
    for name in MATRICES:
        close(owner.read("activation", "base", name), inputs[name].abs().mean(0))


def test_merged_gram_matrices_come_through_merged_layers(
    relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    recipe = of_method("regmean_pp")
    owner = Owner(recipe, tmp_path)
    merged = dict(merged_tensors(recipe, owner.parents))  # at equal weights and alpha's default
    for model, texts in (("one", ONE), ("two", TWO)):
        for layer in (0, 2):
            own = loaded(relatives / "models" / model)
            before = [n for n in merged if "layers" not in n or int(n.split(".")[2]) < layer]
            own.load_state_dict({n: merged[n] for n in before}, strict=False)
            inputs = inputs_of(own, texts)
            for name in MATRICES:
                if f"layers.{layer}." in name:
                    x = inputs[name]
                    found = owner.read("merged gram", model, name)
                    assert found is not None
                    torch.testing.assert_close(found, x.T @ x / len(x), rtol=1e-3, atol=1e-5)


def test_they_are_computed_once_for_a_model_and_its_prompts(
    relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    recipe = of_method("regmean")
    first, again = Owner(recipe, tmp_path), Owner(recipe, tmp_path)
    assert [line.split(":")[0] for line in first.said] == ["gram from 19 texts"]
    assert again.said == []
    assert again.computed == first.computed
    other = Owner(recipe.with_files(lambda _: str(relatives / "one.txt")), tmp_path)
    assert [line.split(":")[0] for line in other.said] == ["gram from 10 texts"]  # two's alone
    assert other.computed[0] == first.computed[0]


@pytest.mark.parametrize("setting", ["rms_norm_eps", "max_position_embeddings"])
def test_another_setting_of_a_model_makes_other_statistics(
    setting: str, relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    for name in ("base", "one", "two"):
        shutil.copytree(relatives / "models" / name, tmp_path / "models" / name)
    recipe = of_method("regmean").with_paths(
        lambda ref: ModelRef.model_validate(str(tmp_path / "models" / Path(str(ref)).name))
    )
    first = Owner(recipe, tmp_path / "kept").computed
    file = tmp_path / "models" / "one" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {setting: {"rms_norm_eps": 0.1}.get(setting, 3)}))
    after = Owner(recipe, tmp_path / "kept").computed
    assert (first[0].key != after[0].key, first[1].key == after[1].key) == (True, True)


@pytest.mark.parametrize("method", ["regmean", "regmean_pp", "fisher"])
def test_models_that_are_the_same_have_theirs_once(
    method: str, relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    shutil.copytree(relatives / "models" / "one", tmp_path / "same")
    same = ModelRef.model_validate(str(tmp_path / "same"))
    recipe = of_method(method).with_paths(lambda ref: same if "two" in str(ref) else ref)
    owner = Owner(recipe.with_files(lambda _: str(relatives / "one.txt")), tmp_path / "kept")
    assert len({one.key for one in owner.computed}) == 1
    name = "model.layers.1.mlp.up_proj.weight"
    merged = dict(merged_tensors(owner.recipe, owner.parents))
    assert torch.equal(merged[name], loaded(relatives / "models" / "one").get_parameter(name))


def test_what_a_model_computes_must_be_finite(
    relatives: Path, of_method: OfMethod, tmp_path: Path
) -> None:
    huge = loaded(relatives / "models" / "two")
    for projection in (huge.model.layers[2].mlp.gate_proj, huge.model.layers[2].mlp.up_proj):
        projection.weight.data.mul_(1e20)  # their product overflows
    huge.save_pretrained(tmp_path / "huge")
    tiny.tokenizer().save_pretrained(tmp_path / "huge")
    ref = ModelRef.model_validate(str(tmp_path / "huge"))
    for method in ("regmean", "regmean_pp", "fisher"):
        recipe = of_method(method).with_paths(lambda old: ref if "two" in str(old) else old)
        with pytest.raises(CandidateError, match=r"huge computes NaN or infinite values from its"):
            Owner(recipe, tmp_path / "kept")


@pytest.mark.parametrize("method", ["regmean", "regmean_pp", "fisher"])
def test_no_number_of_threads_changes_a_bit(method: str, of_method: OfMethod) -> None:
    recipe, digests = of_method(method), set()
    for n in (1, 3):
        with torch_threads(n):
            parents = Parents.of(recipe)
            with calibrated(recipe, parents):
                digests.add(digest_of(recipe, parents))
    assert len(digests) == 1


def test_a_damaged_file_is_named(of_method: OfMethod, tmp_path: Path) -> None:
    owner = Owner(of_method("regmean"), tmp_path)
    file = sorted((tmp_path / owner.computed[0].key).iterdir())[1]
    file.write_bytes(file.read_bytes()[:20])
    damaged = rf"{file.name} is gone or damaged; remove its folder"
    with pytest.raises(InputError, match=damaged):
        Owner(of_method("regmean"), tmp_path)
    file.unlink()  # as a copy that was broken off leaves a folder
    with pytest.raises(InputError, match=damaged):
        Owner(of_method("regmean"), tmp_path)


def test_without_statistics_a_merge_says_what_it_lacks(of_method: OfMethod) -> None:
    recipe = of_method("regmean")
    with pytest.raises(InputError, match=r"the merge looks at the gram of .*one, which is"):
        digest_of(recipe, Parents.of(recipe))


def refused(recipe: Recipe) -> str:
    parents = Parents.of(recipe)
    with pytest.raises(InputError) as caught, calibrated(recipe, parents):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_prompts_are_one_line(of_method: OfMethod, tmp_path: Path) -> None:
    recipe = of_method("regmean")
    without = recipe.model_copy(update={"calibration": None})
    assert refused(without).endswith("names none; add calibration: {MODEL: FILE}")
    assert recipe.calibration is not None
    one_only = recipe.model_copy(update={"calibration": recipe.calibration[:1]})
    assert "two has none; add calibration" in refused(one_only)
    for content, said in (
        (b"\n  \n", "holds no prompt"),
        (b"w1\0w2", "it is binary"),
        (b"\xff\xfe", "it is not UTF-8 text"),
    ):
        (tmp_path / "bad.txt").write_bytes(content)
        bad = recipe.with_files(lambda _: str(tmp_path / "bad.txt"))
        assert said in refused(bad)
    (tmp_path / "bad.txt").write_text("an unknown tongue\nand <s> more\n")
    assert "must know a token in the prompts, got none in all 2" in refused(bad)
    (tmp_path / "bad.jsonl").write_text(r'"w1 \ud800"')
    half = recipe.with_files(lambda _: str(tmp_path / "bad.jsonl"))
    assert "line 1: must be a JSON string" in refused(half)


def test_models_without_linear_layers_are_refused() -> None:
    model: Any = nn.Sequential(nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)]))
    with pytest.raises(InputError, match="linear layers in 2 decoder layers, and the class"):
        Layers(model, 2, Workers(1))


def test_layers_that_are_stored_columns_by_rows_are_merged_by_their_inputs(tmp_path: Path) -> None:
    """As GPT-2's are: W.T is to W.T what another model's W is to W."""
    base, one, two = (
        tiny.gpt2(tmp_path / name, seed) for seed, name in enumerate(("base", "one", "two"))
    )
    for name, texts in (("one", ONE), ("two", TWO)):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts))
    w0 = loaded(base).state_dict()
    models = [loaded(folder).state_dict() for folder in (one, two)]
    inputs = [inputs_of(loaded(f), of, Conv1D) for f, of in ((one, ONE), (two, TWO))]
    held = inputs_of(loaded(base), list(dict.fromkeys([*ONE, *TWO])), Conv1D)

    def merged(method: str, more: str) -> dict[str, Tensor]:
        recipe = read_recipe(
            f"{{merge_method: {method}, models: [{{model: one}}, {{model: two}}], "
            f"calibration: {{one: one.txt, two: two.txt}}{more}}}"
        ).resolved(tmp_path)
        parents = Parents.of(recipe)
        with calibrated(recipe, parents):
            return dict(merged_tensors(recipe, parents))

    name = "transformer.h.1.mlp.c_fc.weight"
    rows = [x[name] for x in inputs]
    shrunk = [x.T @ x / len(x) for x in rows]
    shrunk = [0.7 * g + 0.3 * g.diagonal().diag() for g in shrunk]
    whole = sum(g @ of[name] for g, of in zip(shrunk, models, strict=True))
    close(
        merged("regmean", ", parameters: {alpha: 0.7}")[name],
        torch.linalg.solve(shrunk[0] + shrunk[1], torch.as_tensor(whole)),
    )
    turned = [(of[name] - w0[name]).T for of in models]
    close(
        merged("wudi", ", base_model: base, parameters: {ridge: 0.5}")[name],
        w0[name] + apply(METHODS["wudi"], torch.zeros(64, 16), turned, ridge=0.5).T,
    )
    kept = held[name].abs().mean(0)
    left = 1 - kept / kept.max() * 0.6
    mean = (models[0][name] + models[1][name]) / 2
    close(
        merged("linear", ", parameters: {weight: 1}, aim: {base: base, omega: 0.4}")[name],
        w0[name] + (mean - w0[name]) * left[:, None],
    )
