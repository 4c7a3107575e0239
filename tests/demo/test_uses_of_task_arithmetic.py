"""The three uses of task arithmetic (arXiv:2212.04089), on models that were really trained."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch import evaluate, load_suite
from mergesearch.demo.train import Example, expert_examples, train
from mergesearch.recipe import ModelRef, Recipe, Slice, Source

pytestmark = pytest.mark.slow


def accuracies(demo_family: Path, weights: Mapping[str, float]) -> dict[str, float]:
    """Held-out accuracy by skill of base + weighted task vectors of models, by name or path."""

    def ref(name: str) -> ModelRef:
        return ModelRef.model_validate(str(demo_family / "models" / name))

    sources = tuple(Source(model=ref(n), parameters={"weight": w}) for n, w in weights.items())
    recipe = Recipe(
        merge_method="task_arithmetic", base_model=ref("base"), slices=(Slice(sources=sources),)
    )
    suite = load_suite(demo_family / "suite.yaml")
    found = evaluate(recipe, suite, split="held_out", device="cpu", batch_size=64)
    return {task.task.removesuffix("_test"): task.value for task in found.scores.tasks}


def test_negation_forgets_a_skill_and_keeps_the_others(demo_family: Path) -> None:
    base = accuracies(demo_family, {"majority": 0})
    negated = accuracies(demo_family, {"majority": -1})
    assert negated["majority"] < base["majority"] - 0.05
    for other in ("halves", "successor"):
        assert negated[other] > base[other] - 0.1


def test_addition_gives_one_model_two_skills(demo_family: Path) -> None:
    base = accuracies(demo_family, {"majority": 0})
    added = accuracies(demo_family, {"majority": 0.8, "successor": 0.8})
    for skill in ("majority", "successor"):
        assert added[skill] > base[skill] + 0.1


def test_analogy_makes_the_fourth_model_of_two_pairs(demo_family: Path, tmp_path: Path) -> None:
    """successor : successor and majority = halves : halves and majority."""
    both = tmp_path / "successor-and-majority"
    tokenizer = AutoTokenizer.from_pretrained(demo_family / "models" / "base")

    def examples() -> Iterator[Example]:
        skills = ("successor", "majority")
        streams = [expert_examples(tokenizer, Random(f"analogy {s}"), skill=s) for s in skills]
        while True:
            yield from (next(stream) for stream in streams)

    model = AutoModelForCausalLM.from_pretrained(
        demo_family / "models" / "base", dtype=torch.float32
    )
    train(model, examples(), steps=120, batch=64, learning_rate=1e-3, progress=lambda _: None)
    model.save_pretrained(both)

    alone = accuracies(demo_family, {"halves": 1})
    analogy = accuracies(demo_family, {"halves": 1, str(both): 1, "successor": -1})
    assert analogy["majority"] > alone["majority"] + 0.1
    assert analogy["halves"] > alone["halves"] - 0.1
