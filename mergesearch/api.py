"""Merging and scoring one model: the verbs that need no run folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.exporting import write_checkpoint
from mergesearch.merging import build, fill, plan
from mergesearch.parents import Parents, tokenizer_of
from mergesearch.recipe import DType, ModelRef, Recipe, Slice, Source, load_recipe
from mergesearch.runtime import choose_device, merges_on
from mergesearch.scores import Scores
from mergesearch.tasks import Suite, results_json
from mergesearch.tasks.results import Occasion
from mergesearch.tasks.rows import ResultRow, rows_of


def merge(
    recipe: Recipe | Path,
    out: Path,
    *,
    dtype: DType | None = None,
    max_shard_bytes: int = 5 * 10**9,
    memory_budget: int | None = None,
    say: Callable[[str], None] | None = None,
) -> str:
    """Merge a recipe into a checkpoint that plain transformers loads.

    Args:
        recipe: a recipe, or a mergekit YAML file.
        out: the folder to make; it must not exist, or be empty.
        dtype: of the result, in place of the recipe's.
        max_shard_bytes: the largest size of one weight file.
        memory_budget: bytes that the process may hold at its peak; None is 80 % of what there is.
        say: is told, before the work begins, what becomes of tokens that not all models have, and
            how much memory it takes.

    Returns:
        The hash of the tensors (XXH3, 128 bits).

    Raises:
        InputError: the recipe or a model is wrong, the folder is taken, or the device is full.
        CandidateError: a merged value is NaN or infinite.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if dtype is not None:
        recipe = recipe.model_copy(update={"out_dtype": dtype})
    return write_checkpoint(
        recipe, out, max_shard_bytes=max_shard_bytes, memory_budget=memory_budget, say=say
    )


@dataclass(frozen=True)
class Evaluation:
    """One model's scores on a split."""

    scores: Scores
    #: The same in the format of lm-eval's result files.
    results: dict[str, Any]
    #: The same as a table, the groups that the suite names among the tasks.
    rows: tuple[ResultRow, ...]


def evaluate(
    model: Recipe | Path | str,
    suite: Suite,
    *,
    split: str = "search",
    device: str = "auto",
    batch_size: int | None = None,
    memory_budget: int | None = None,
) -> Evaluation:
    """Score a checkpoint or a recipe on a suite; no checkpoint is written.

    Args:
        model: a recipe, a mergekit YAML file, a checkpoint's folder, or `model+adapter`.
        suite: the tasks.
        split: "search" or "held_out".
        device: "auto", "cpu", "cuda", "mps".
        batch_size: rows a forward pass; None lets their tokens decide.
        memory_budget: bytes that merging may bring the process to; None is 80 % of what there is.

    Raises:
        InputError: the model or the suite is wrong.
        CandidateError: weights or scores are NaN or infinite.
    """
    recipe = model if isinstance(model, Recipe) else recipe_of(model)
    name = f"{recipe.merge_method}-{recipe.hash[:12]}" if model is recipe else str(model)
    occasion = Occasion(name, batch_size)
    place = choose_device(device)
    parents = Parents.of(recipe, keep=False, device=merges_on(place), memory_budget=memory_budget)
    work = plan(recipe, parents)
    tokenizer = tokenizer_of(parents)
    # to look at a benchmark is not to search on it
    suite = suite.model_copy(update={"allow_benchmarks": True})
    evaluator = Evaluator(suite, tokenizer, batch_size=batch_size)
    tasks = evaluator.tasks(split)
    live = build(work, place)
    fill(live, work, recipe, parents)
    scores = evaluator.score(live, split)
    results = results_json(scores, tasks)
    rows = rows_of(results, scores, tasks)
    return Evaluation(scores, results | occasion.json(live, tokenizer, tasks), rows)


def recipe_of(model: Path | str) -> Recipe:
    """A YAML file's recipe, or a copy of the one model that is named.

    Raises:
        InputError: there is no such file or model.
    """
    path = Path(model)
    if path.suffix in (".yaml", ".yml"):
        return load_recipe(path)
    value: Any = str(model)
    try:
        ref = ModelRef.model_validate(value).resolved(Path())
    except ValueError as error:
        raise InputError(f"not a model: {value!r}: {error}") from None
    return Recipe(merge_method="passthrough", slices=(Slice(sources=(Source(model=ref),)),))
