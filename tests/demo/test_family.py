"""The demo family: its texts, its splits, its files. Models are trained for a few steps only."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch.demo import FamilySize, build_family
from mergesearch.demo.llama import logits
from mergesearch.demo.skills import LETTERS, SKILLS, draw, exam, split_of
from mergesearch.demo.tokenizer import build_tokenizer
from mergesearch.errors import InputError

TINY = FamilySize(
    layers=2,
    hidden=16,
    base_steps=3,
    expert_steps=2,
    batch=4,
    dev_documents=12,
    test_documents=15,
)
TOKENIZER = build_tokenizer()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "family"
    build_family(out, size=TINY)
    return out


def files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@given(st.text())
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_a_character_is_a_token_and_no_special_token_is_added() -> None:
    assert len(TOKENIZER.encode("sort abc half:")) == len("sort abc half:")


@given(st.text(alphabet=st.characters(codec="ascii")), st.text())
def test_what_follows_a_prompt_leaves_its_tokens_alone(prompt: str, answer: str) -> None:
    together = TOKENIZER.encode(prompt + " " + answer)
    assert together == TOKENIZER.encode(prompt) + TOKENIZER.encode(" " + answer)


@pytest.mark.parametrize("skill", SKILLS)
def test_documents_are_well_formed_and_no_fixed_choice_is_right_often(skill: str) -> None:
    rng = Random(0)
    documents = [SKILLS[skill](rng) for _ in range(2000)]
    for document in documents:
        assert len(set(document["choices"])) == len(document["choices"])
        assert 0 <= document["label"] < len(document["choices"])
    labels = Counter(document["label"] for document in documents)
    assert max(labels.values()) < 0.6 * len(documents)


def test_the_right_answer_is_right() -> None:
    rng = Random(1)
    for _ in range(200):
        for skill in SKILLS:
            document = SKILLS[skill](rng)
            text = document["prompt"].split()[1]
            answer = document["choices"][document["label"]]
            if skill == "halves":
                second_half = sum(letter in LETTERS[13:] for letter in text)
                assert (answer == "second") == (second_half > len(text) / 2)
            elif skill == "majority":
                (leader, count), *others = Counter(text).most_common()
                assert answer == leader
                assert all(count > other for _, other in others)
            else:
                assert text[-1] + answer in LETTERS + "a"


@pytest.mark.parametrize("skill", SKILLS)
def test_splits_never_share_a_prompt(skill: str) -> None:
    rng = Random(2)
    train = {draw(skill, "train", rng)["prompt"] for _ in range(3000)}
    dev, test = (
        {document["prompt"] for document in exam(skill, split, 300, Random(3))}
        for split in ("dev", "test")
    )
    assert len(dev) == len(test) == 300
    assert not (train & dev or train & test or dev & test)


def test_prompts_tell_the_skills_apart() -> None:
    rng = Random(4)
    assert len({SKILLS[skill](rng)["prompt"].split()[0] for skill in SKILLS}) == len(SKILLS)


def test_same_seed_same_bytes_and_other_seed_others(family: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    build_family(tmp_path / "again", size=TINY)
    assert torch.equal(torch.random.get_rng_state(), before)  # global state is left alone
    assert files(tmp_path / "again") == files(family)
    build_family(tmp_path / "other", seed=1, size=TINY)
    weights = "models/base/model.safetensors"
    assert files(tmp_path / "other")[weights] != files(family)[weights]


def test_a_processor_with_other_kernels_trains_the_same_bytes(family: Path, tmp_path: Path) -> None:
    """Sums in another order, without wide registers or fused products: what old processors do."""
    code = f"""
from pathlib import Path
import torch
from mergesearch.demo import FamilySize, build_family
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
build_family(Path("family"), size={TINY!r})
"""
    others = {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    }
    environment = {**os.environ, **others}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert files(tmp_path / "family") == files(family)


def test_the_forward_pass_is_that_of_transformers(family: Path) -> None:
    folder = family / "models" / "halves"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.randint(len(TOKENIZER), (3, 17), generator=torch.Generator().manual_seed(0))
    weights = {name: w.double() for name, w in load_file(folder / "model.safetensors").items()}
    with torch.no_grad():
        theirs = model(input_ids=tokens).logits
    ours = logits(weights, model.config, tokens)
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-5)


def test_weights_lie_on_a_grid_that_float32_holds(family: Path) -> None:
    for skill in ("base", *SKILLS):
        weights = load_file(family / "models" / skill / "model.safetensors")
        for weight in weights.values():
            assert torch.equal(weight * 2**20, (weight * 2**20).round())


def test_models_are_ordinary_folders_that_start_from_one_base(family: Path) -> None:
    base = load_file(family / "models" / "base" / "model.safetensors")
    assert "lm_head.weight" not in base
    for skill in SKILLS:
        folder = family / "models" / skill
        assert (folder / "generation_config.json").is_file()
        expert = load_file(folder / "model.safetensors")
        assert {name: tensor.shape for name, tensor in expert.items()} == {
            name: tensor.shape for name, tensor in base.items()
        }
        assert any(not torch.equal(expert[name], base[name]) for name in base)
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.dtype == torch.float32
        assert torch.equal(model.lm_head.weight, expert["model.embed_tokens.weight"])
        assert tokenizer.encode("a b: ü") == TOKENIZER.encode("a b: ü")
        assert tokenizer.decode(tokenizer.encode("a b: ü")) == "a b: ü"
        assert model.config.eos_token_id == tokenizer.eos_token_id


def test_tasks_suite_and_space_name_each_other(family: Path) -> None:
    suite = yaml.safe_load((family / "suite.yaml").read_text())
    space = yaml.safe_load((family / "space.yaml").read_text())
    assert list(space["parents"]) == list(SKILLS)
    for folder in [space["base"], *space["parents"].values()]:
        assert (family / folder / "config.json").is_file()
    assert (family / space["suite"]).is_file()
    sizes = {"search": TINY.dev_documents, "held_out": TINY.test_documents}
    for part, n_documents in sizes.items():
        assert len(suite[part]) == len(SKILLS)
        for row in suite[part]:
            path = family / suite["include_path"] / f"{row['task']}.yaml"
            task = yaml.safe_load(path.read_text())
            data = path.parent / task["dataset_kwargs"]["data_files"]["test"]
            documents = [json.loads(line) for line in data.read_text().splitlines()]
            assert task["task"] == row["task"]
            assert len(documents) == n_documents
            split = "dev" if part == "search" else "test"
            assert {split_of(document) for document in documents} == {split}


def test_editors_find_the_schemas_of_suite_and_space(family: Path) -> None:
    for name in ("suite", "space"):
        text = (family / f"{name}.yaml").read_text()
        assert text.startswith(f"# yaml-language-server: $schema=schemas/{name}.json\n")
        schema = json.loads((family / "schemas" / f"{name}.json").read_text())
        Draft202012Validator(schema).validate(yaml.safe_load(text))


def test_a_finished_family_is_kept(family: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in family.rglob("*")}
    build_family(family, size=TINY)
    assert {path: path.stat().st_mtime_ns for path in family.rglob("*")} == before


def test_another_familys_folder_is_refused(family: Path) -> None:
    with pytest.raises(InputError, match="seed=7"):
        build_family(family, seed=7, size=TINY)


def test_an_interrupted_build_leaves_nothing_and_starts_over(family: Path, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(message: str) -> None:
        if message.startswith("majority"):
            raise Interrupted

    out = tmp_path / "family"
    with pytest.raises(Interrupted):
        build_family(out, size=TINY, progress=interrupt)
    assert not out.exists()
    build_family(out, size=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["family"]
    assert files(out) == files(family)
