"""The three uses of task arithmetic (arXiv:2212.04089), on models that were really trained."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from mergesearch import evaluate, load_suite
from mergesearch.demo.llama import save_model
from mergesearch.demo.train import Example, expert_examples, train
from mergesearch.recipe import ModelRef, Recipe, Slice, Source

pytestmark = [pytest.mark.slow, pytest.mark.training]


def accuracies(folder: Path, weights: Mapping[str, float], scale: float = 1.0) -> dict[str, float]:
    """Held-out accuracy by skill of base + scale * weighted task vectors, by models' names."""

    def ref(name: str) -> ModelRef:
        return ModelRef.model_validate(str(folder / "models" / name))

    sources = tuple(Source(model=ref(n), parameters={"weight": w}) for n, w in weights.items())
    recipe = Recipe(
        merge_method="task_arithmetic",
        base_model=ref("base"),
        parameters={"lambda": scale},
        slices=(Slice(sources=sources),),
    )
    suite = load_suite(folder / "suite.yaml")
    found = evaluate(recipe, suite, split="held_out", device="cpu", batch_size=64)
    return {task.id.task.removesuffix("_test"): task.value for task in found.scores.tasks}


@pytest.fixture(scope="module")
def two_skills(demo_family: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model trained from the base on two skills at once."""
    tokenizer = AutoTokenizer.from_pretrained(demo_family / "models" / "base")

    def examples() -> Iterator[Example]:
        skills = ("successor", "majority")
        streams = [expert_examples(tokenizer, Random(f"both {s}"), skill=s) for s in skills]
        while True:
            yield from (next(stream) for stream in streams)

    base = demo_family / "models" / "base"
    config = AutoConfig.from_pretrained(base)
    weights = train(
        load_file(base / "model.safetensors"),
        config,
        examples(),
        steps=200,
        batch=64,
        learning_rate=1e-3,
        progress=lambda _: None,
    )
    folder = tmp_path_factory.mktemp("models") / "two-skills"
    save_model(weights, config, folder)
    return str(folder)


def test_negation_forgets_a_skill_and_keeps_the_other(demo_family: Path, two_skills: str) -> None:
    before = accuracies(demo_family, {two_skills: 1})
    after = accuracies(demo_family, {two_skills: 1, "majority": -1})
    assert after["majority"] < before["majority"] - 0.3
    assert after["successor"] > before["successor"] - 0.05


def test_addition_gives_one_model_two_skills(demo_family: Path) -> None:
    base = accuracies(demo_family, {"majority": 0})
    added = accuracies(demo_family, {"majority": 1, "successor": 1}, scale=0.8)
    for skill in ("majority", "successor"):
        assert added[skill] > base[skill] + 0.3


def test_analogy_makes_the_fourth_of_two_pairs(demo_family: Path, two_skills: str) -> None:
    """successor : successor and majority = halves : halves and majority, which none trained."""
    base = accuracies(demo_family, {"halves": 0})
    alone = accuracies(demo_family, {"halves": 1})
    # what the pair differs by has to stand up to an expert that is sure of itself
    analogy = accuracies(demo_family, {"halves": 0.8, two_skills: 1.5, "successor": -1.5})
    assert analogy["majority"] > alone["majority"] + 0.3
    assert analogy["halves"] > base["halves"] + 0.3
