"""The public verbs; each imports what it needs when it runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mergesearch.errors import InputError, MergesearchError
from mergesearch.exporting import export, write_checkpoint, write_result
from mergesearch.recipe import DType, ModelRef, Recipe, Stage, copy_of, load_recipe, load_stages
from mergesearch.runtime import Runtime, RuntimeOptions

if TYPE_CHECKING:
    from mergesearch.diagnosis import Diagnosis
    from mergesearch.runs import LeaderboardRow
    from mergesearch.scores import Scores
    from mergesearch.searching import CandidateEvaluator, Observer, Outcome
    from mergesearch.space import SearchSpace
    from mergesearch.tasks import Suite
    from mergesearch.tasks.rows import ResultRow

__all__ = [
    "Evaluation",
    "compare",
    "evaluate",
    "export",
    "learn",
    "merge",
    "recipe_of",
    "search",
    "soup",
]


def merge(
    recipe: Recipe | Sequence[Stage] | Path,
    out: Path,
    *,
    dtype: DType | None = None,
    max_shard_bytes: int = 5 * 10**9,
    memory_budget: int | None = None,
    allow_mismatch: bool = False,
    say: Callable[[str], None] | None = None,
) -> str:
    """Merge a recipe into a checkpoint that plain transformers loads.

    Args:
        recipe: a recipe, or a mergekit YAML file, which may have several documents: stages, of
            which the last one's result is written; see `load_stages`.
        out: the folder to make; it must not exist, or be empty.
        dtype: of the result, in place of the recipe's.
        max_shard_bytes: the largest size of one weight file.
        memory_budget: bytes that the process may hold at its peak; None is 80 % of what there is.
        allow_mismatch: merge models whose weights are of different functions, as with another
            number of heads.
        say: is told, before anything is written, what becomes of tokens that not all models have,
            in what else they differ, and how much memory it takes.

    Returns:
        The hash of the tensors (XXH3, 128 bits).

    Raises:
        InputError: the recipe or a model is wrong, the folder is taken, or the device is full.
        CandidateError: a merged value is NaN or infinite.
    """
    if isinstance(recipe, Recipe):
        recipe = (Stage(None, recipe),)
    *first, last = load_stages(recipe) if isinstance(recipe, Path | str) else recipe
    if dtype is not None:
        last = Stage(last.name, last.recipe.model_copy(update={"out_dtype": dtype}))
    options: dict[str, Any] = {
        "max_shard_bytes": max_shard_bytes,
        "memory_budget": memory_budget,
        "allow_mismatch": allow_mismatch,
        "say": say,
    }
    if first:
        return write_result((*first, last), out, **options)
    return write_checkpoint(last.recipe, out, **options)


@dataclass(frozen=True)
class Evaluation:
    """One model's scores on a split."""

    scores: "Scores"
    #: The same in the format of lm-eval's result files.
    results: dict[str, Any]
    #: The same as a table, the groups that the suite names among the tasks.
    rows: "tuple[ResultRow, ...]"


def evaluate(
    model: Recipe | Path | str,
    suite: "Suite",
    *,
    split: str = "search",
    **runtime: Unpack[RuntimeOptions],
) -> Evaluation:
    """Score a checkpoint or a recipe on a suite; no checkpoint is written.

    Args:
        model: a recipe, a mergekit YAML file, a checkpoint's folder, or `model+adapter`.
        suite: the tasks.
        split: "search" or "held_out".
        runtime: fields of `Runtime`, such as device and memory_budget.

    Raises:
        InputError: the model or the suite is wrong.
        CandidateError: weights or scores are NaN or infinite.
    """
    from mergesearch.calibration import calibrated
    from mergesearch.evaluation import Evaluator
    from mergesearch.merging import (
        LiveModel,
        Spread,
        compute_dtype,
        merging_bytes,
        model_config,
        plan_merge,
    )
    from mergesearch.parents import Parents, tokenizer_of
    from mergesearch.tasks import results_json
    from mergesearch.tasks.results import Provenance
    from mergesearch.tasks.rows import rows_of

    recipe = model if isinstance(model, Recipe) else recipe_of(model)
    name = f"{recipe.merge_method}-{recipe.hash[:12]}" if model is recipe else str(model)
    where = Runtime.of(runtime)
    provenance, devices = Provenance(name, where.batch_size), where.devices()
    parents = Parents.of(
        recipe,
        keep=False,
        device=where.merge_device,
        others=devices[1:],
        memory_budget=where.memory_budget,
        device_memory=where.device_memory,
        allow_mismatch=where.allow_mismatch,
    )
    plan = plan_merge(recipe, parents)  # what is wrong with it is said before tasks are built
    tokenizer = tokenizer_of(parents)
    # to look at a benchmark is not to search on it
    suite = suite.model_copy(update={"allow_benchmarks": True})
    evaluator = Evaluator(suite, tokenizer, where)
    tasks = evaluator.tasks(split)
    dtype = where.torch_dtype or compute_dtype(plan, devices[0])
    spread = None
    if len(devices) > 1:
        scoring = evaluator.cost(model_config(plan), dtype, devices[0], split).n_bytes
        merging = merging_bytes(plan, parents, streamed=False)
        spread = Spread.beside(parents, {"merging": merging, "scoring": scoring})
    live = LiveModel(parents, devices[0], dtype, spread)
    with calibrated(recipe, parents):
        live.become(recipe)
    scores = evaluator.score(live.model, split)
    results = results_json(scores, tasks)
    rows = rows_of(results, scores, tasks)
    facts = provenance.json(evaluator.describe(live.model), tokenizer, tasks)
    return Evaluation(scores, results | facts, rows)


def compare(
    space: "SearchSpace",
    out: Path | None = None,
    *,
    observer: "Observer | None" = None,
    **runtime: Unpack[RuntimeOptions],
) -> "Diagnosis":
    """Compare a space's parents before a search, and say what follows for it.

    Args:
        space: gives the base, the parents and the suite.
        out: a run's folder, such as a later search's: the parents are scored as well, scores are
            shared, and the diagnosis is written into it. Without one only weights and settings are
            compared, and nothing is written.
        observer: is told what goes on.
        runtime: fields of `Runtime`, such as device and memory_budget.

    Raises:
        InputError: something in the space is wrong, or the folder is another run's or in use.
        CandidateError: a model's weights or scores are NaN or infinite.
    """
    from mergesearch.diagnosis import check_comparable, diagnose
    from mergesearch.searching import Silent, diagnose_run, open_run

    observer, where = observer or Silent(), Runtime.of(runtime)
    check_comparable(space, scored=out is not None)
    if out is None:
        return diagnose(space, where, observer.stage)
    with open_run(space, out, where, observer) as (setup, candidates):
        return diagnose_run(setup, candidates, where, observer)


def search(
    space: "SearchSpace",
    out: Path,
    *,
    storage: str | None = None,
    live: bool = False,
    observer: "Observer | None" = None,
    **runtime: Unpack[RuntimeOptions],
) -> "Outcome":
    """Search a space, or go on with a search that was interrupted.

    Where the suite's search tasks, limits or weights have changed since, a new search begins with
    the best trials of the last one, and only documents that are new are scored. At its end the
    folder has the parents' diagnosis, of what has been scored, and a page, `report.html`, of all
    that is known of the run.

    Args:
        space: what to search; its `search.trials` is the budget, trials of earlier calls included.
        out: the run's folder.
        storage: a database URL for Optuna instead of a journal file in the folder.
        live: write the run's page while it is searched as well; it loads itself again.
        observer: is told what goes on.
        runtime: fields of `Runtime`, such as device and memory_budget.

    Raises:
        InputError: something in the space is wrong, or the folder is another run's or in use.
        MergesearchError: every candidate failed.
    """
    from mergesearch.report.page import LivePage, write_page
    from mergesearch.searching import (
        Observers,
        Outcome,
        Silent,
        StatusFile,
        confirm,
        keep_contrasts,
        keep_diagnosis,
        open_run,
        open_search,
    )

    observer, where = observer or Silent(), Runtime.of(runtime)
    if live:
        observer = LivePage(out, observer)
    with (
        open_run(space, out, where, observer) as (setup, candidates),
        StatusFile(out) as status,
    ):
        told = Observers(observer, status)
        history = open_search(setup, candidates, told, storage).run()
        best = confirm(history, space, candidates, told)
        keep_contrasts(candidates, told)
        keep_diagnosis(setup, candidates, where, told)
        try:
            write_page([out])
        except MergesearchError as error:  # all that was found is on disk
            told.stage(f"no page: {error}")
    return Outcome(out, best)


def soup(
    space: "SearchSpace",
    out: Path,
    *,
    greedy: bool = True,
    observer: "Observer | None" = None,
    **runtime: Unpack[RuntimeOptions],
) -> "Outcome":
    """Make the greedy or uniform soup of a space's parents; score it beside them.

    The run's folder may be that of a search over the same space: scores are then shared.

    Args:
        space: gives the parents and the suite.
        out: the run's folder.
        greedy: add one parent at a time and keep what does not hurt; else the mean of all.
        observer: is told what goes on.
        runtime: fields of `Runtime`, such as device and memory_budget.

    Raises:
        InputError: something in the space is wrong, or the folder is another run's or in use.
    """
    from mergesearch.runs import LeaderboardRow
    from mergesearch.searching import Silent, greedy_soup, open_run

    observer = observer or Silent()
    with open_run(space, out, Runtime.of(runtime), observer) as (_, candidates):
        if greedy:
            observer.stage("ranking the parents on the search split")
            made = greedy_soup(
                candidates,
                space.parents,
                recipe=space.soup,
                on_step=lambda step: observer.stage(
                    f"{' + '.join(step.ingredients)}: {step.score:.4f}"
                    f" ({'kept' if step.kept else 'dropped'} {step.model})"
                ),
            )
            candidates.record.set_soup(made.steps)
            label, recipe = "greedy soup", made.candidate.recipe
        else:
            label, recipe = "uniform soup", space.soup()
        row = LeaderboardRow(label, "soup", recipe.hash)
        return _beside_references(space, candidates, row, recipe, observer)


def learn(
    space: "SearchSpace",
    out: Path,
    *,
    prompts: Mapping[str, Path | str | Sequence[str]] | None = None,
    observer: "Observer | None" = None,
    **runtime: Unpack[RuntimeOptions],
) -> "Outcome":
    """Learn the coefficients of one merge by gradient; score it beside the parents.

    What is learned is what the space says under `learned`, or its defaults. The run's folder may be
    that of a search over the same space: passes and scores are then shared.

    Args:
        space: gives the models, and the suite whose documents are learned from.
        out: the run's folder.
        prompts: texts by parent, or files of them (a prompt a line, or JSONL), to learn from in
            place of the suite's documents: what each parent writes behind its own is imitated.
            Then a space needs no suite; without one nothing is scored.
        observer: is told what goes on.
        runtime: fields of `Runtime`, such as device and memory_budget.

    Raises:
        InputError: something in the space or in a file is wrong, or the folder is another run's or
            in use.
        CandidateError: not even one pass has a finite loss.
    """
    from mergesearch.runs import LeaderboardRow
    from mergesearch.scores import Scores
    from mergesearch.searching import Candidate, Outcome, Silent, open_learner, open_run
    from mergesearch.searching.setup import Learning
    from mergesearch.space import Learned

    observer = observer or Silent()
    learned = space.learned or Learned()
    try:
        space.check_learned(learned)
    except ValueError as error:
        raise InputError(str(error)) from None
    learning = Learning(learned=learned)
    if prompts is not None:
        learning["prompts"] = {name: _texts(given) for name, given in prompts.items()}
    with open_run(space, out, Runtime.of(runtime), observer, **learning) as (setup, candidates):
        recipe = open_learner(setup, candidates, observer).recipe(learned.end)
        row = LeaderboardRow("learned", "learned", recipe.hash)
        if not setup.suite.search:
            digest = candidates.merge(recipe)
            candidates.record.add_row(row)
            return Outcome(out, Candidate(recipe, digest, Scores(())))
        return _beside_references(space, candidates, row, recipe, observer)


def _beside_references(
    space: "SearchSpace",
    candidates: "CandidateEvaluator",
    row: "LeaderboardRow",
    recipe: Recipe,
    observer: "Observer",
) -> "Outcome":
    """Score what was made without a search in full, and beside it what it must beat."""
    from mergesearch.searching import Outcome, references, score_beside, score_in_full

    score_in_full(candidates, recipe, row.label, observer)
    candidates.record.add_row(row)
    others = {r: one for r, one in references(space, candidates).items() if r.label != row.label}
    score_beside(candidates, others, observer)
    return Outcome(candidates.record.folder, candidates.score(recipe, full=True))


def _texts(given: Path | str | Sequence[str]) -> tuple[str, ...]:
    """Give prompts as they are, or read a file of them."""
    if isinstance(given, Path | str):  # a text is a sequence of letters, which nobody means
        from mergesearch.tasks.prompt_files import read_prompts

        return read_prompts(Path(given))
    return tuple(given)


def recipe_of(model: Path | str) -> Recipe:
    """Read a YAML file's recipe, or make that of a copy of the named model.

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
    return copy_of(ref)
