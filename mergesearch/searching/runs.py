"""The public verbs: search a space, or make a soup of its parents."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergesearch.errors import InputError
from mergesearch.runs import Record, Row, SuiteEntry, TaskEntry, hold
from mergesearch.runtime import choose_device
from mergesearch.searching import greedy_soup
from mergesearch.searching.baselines import soup_of
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.finalists import confirm, judge_beside, judge_in_full, references
from mergesearch.searching.goals import directions
from mergesearch.searching.loop import Search
from mergesearch.searching.observer import Observer, Silent
from mergesearch.searching.setup import SearchSetup, prepare
from mergesearch.searching.study import RECIPE, best_before, enqueue, finished, open_study
from mergesearch.space import SearchSpace

if TYPE_CHECKING:
    import optuna

    from mergesearch.evaluation import Evaluator
    from mergesearch.tasks import BuiltTask


@dataclass(frozen=True)
class Outcome:
    """What a search or a soup came to."""

    folder: Path
    #: Scored on the whole search split.
    best: Candidate


def search(
    space: SearchSpace,
    out: Path,
    *,
    storage: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    memory_budget: int | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Search a space, or go on with a search that was interrupted.

    Where the suite's search tasks, limits or weights have changed since, a new search begins with
    the best trials of the last one, and only documents that are new are scored.

    Args:
        space: what to search; its `search.trials` is the budget, trials of earlier calls included.
        out: the run's folder.
        storage: a database URL for Optuna instead of a journal file in the folder.
        device: "auto", "cpu", "cuda", "mps".
        batch_size: rows a forward pass; None lets their tokens decide.
        memory_budget: bytes that merging may bring the process to; None is 80 % of what there is.
            What scoring a batch takes comes on top.
        observer: is told what goes on.

    Raises:
        InputError: something in the space is wrong, or the folder is another run's or in use.
        MergesearchError: every candidate failed.
    """
    observer = observer or Silent()
    with _open(space, out, device, batch_size, memory_budget, observer) as (bench, judge):
        name = study_name(bench, out, storage)
        study = open_study(out, name, storage, directions(space.search.objectives))
        _check_recorded(study, judge.record, out)
        if not finished(study) and (best := best_before(out, name, storage)):
            observer.stage(
                f"the suite is not that of the trials before: a new search begins with the "
                f"{len(best)} best of them; what is known of each document is kept"
            )
            enqueue(study, best)
        run = Search(study, space, judge, bench.shape, observer)
        run.run()
        return Outcome(out, confirm(run.history, space, judge, observer))


def soup(
    space: SearchSpace,
    out: Path,
    *,
    greedy: bool = True,
    device: str = "auto",
    batch_size: int | None = None,
    memory_budget: int | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Make the greedy or the uniform soup of a space's parents, and score it beside them.

    The run's folder may be that of a search over the same space: scores are then shared.

    Args:
        space: gives the parents and the suite.
        out: the run's folder.
        greedy: add one parent at a time and keep what does not hurt; else the mean of all.
        device: "auto", "cpu", "cuda", "mps".
        batch_size: rows a forward pass; None lets their tokens decide.
        memory_budget: bytes that merging may bring the process to; None is 80 % of what there is.
            What scoring a batch takes comes on top.
        observer: is told what goes on.

    Raises:
        InputError: something in the space is wrong, or the folder is another run's or in use.
    """
    observer = observer or Silent()
    with _open(space, out, device, batch_size, memory_budget, observer) as (_, judge):
        if greedy:
            observer.stage("ranking the parents on the search split")
            made = greedy_soup(
                judge,
                space.parents,
                recipe=partial(soup_of, space),
                on_step=lambda step: observer.stage(
                    f"{' + '.join(step.ingredients)}: {step.score:.4f}"
                    f" ({'kept' if step.kept else 'dropped'} {step.model})"
                ),
            )
            judge.record.set_soup(made.steps)
            label, recipe = "greedy soup", made.candidate.recipe
        else:
            label, recipe = "uniform soup", soup_of(space, list(space.parents.values()))
        row = Row(label, "soup", recipe.hash)
        judge_in_full(judge, recipe, row.label, observer)
        judge.record.add_row(row)
        others = {
            r: reference
            for r, reference in references(space, judge).items()
            if r.label != row.label
        }
        judge_beside(judge, others, observer)
        return Outcome(out, judge.score(recipe, full=True))


@contextmanager
def _open(
    space: SearchSpace,
    out: Path,
    device: str,
    batch_size: int | None,
    memory_budget: int | None,
    observer: Observer,
) -> Iterator[tuple[SearchSetup, CandidateEvaluator]]:
    """A space's bench and judge, with its run folder held; all that is wrong is said before."""
    place = choose_device(device)
    bench = prepare(space, device=place, batch_size=batch_size, memory_budget=memory_budget)
    with hold(out, identity(bench, out)):
        for note in (*bench.parents.alignment.notes, *bench.memory.lines()):
            observer.stage(note)
        record = Record(out)
        record.set_suite(suite_entry(bench.evaluator))
        yield bench, CandidateEvaluator(bench.parents, bench.evaluator, record, place)


def _check_recorded(study: "optuna.Study", record: Record, out: Path) -> None:
    """Refuse a study whose candidates the run folder does not know: a database outlives folders."""
    recipes = {trial.user_attrs.get(RECIPE) for trial in finished(study)} - {None}
    if missing := recipes - set(record.recipe_hashes):
        raise InputError(
            f"the study {study.study_name!r} has {len(missing)} candidates that {out} does not "
            f"know: it is that of another folder called {out.name}, or of one that is gone; take "
            "another name for the run folder"
        )


def study_name(bench: SearchSetup, out: Path, storage: str | None = None) -> str:
    """A name for the run's study: the space's hash and that of the objective.

    In a database, which runs may share, it begins with the folder's name; a journal moves with
    its folder, whatever that is called.
    """
    text = json.dumps(identity(bench, out), sort_keys=True)
    space = hashlib.sha256(text.encode()).hexdigest()[:12]
    run = "run" if storage is None else out.resolve().name
    return f"{run}-{space}-{suite_entry(bench.evaluator).objective}"


def identity(bench: SearchSetup, out: Path) -> dict[str, Any]:
    """What makes a run this run: the space but for its budget; the suite may change.

    Paths are relative to the run's folder, so that both can be moved together.
    """
    space = bench.space.model_dump(mode="json", exclude={"suite", "base", "parents"})
    for key in ("trials", "documents", "minutes", "patience"):
        space["search"].pop(key)
    space["base"] = bench.space.base and str(bench.space.base.relative(out))
    space["parents"] = {name: str(ref.relative(out)) for name, ref in bench.space.parents.items()}
    if isinstance(bench.space.suite, Path):
        space["suite"] = os.path.relpath(bench.space.suite, out.resolve())
    return {"space": space}


def suite_entry(evaluator: "Evaluator") -> SuiteEntry:
    """An evaluator's suite as a run's record keeps it."""
    splits = {"search": evaluator.tasks(), "search_full": evaluator.tasks(full=True)}
    if evaluator.suite.held_out:
        splits["held_out"] = evaluator.tasks("held_out")
    return SuiteEntry({name: tuple(map(_task_entry, split)) for name, split in splits.items()})


def _task_entry(task: "BuiltTask") -> TaskEntry:
    return TaskEntry(
        task=task.name,
        metric=task.metric,
        filter=task.filter,
        higher_is_better=task.higher_is_better,
        weight=task.weight,
        aggregation=task.aggregation,
        fingerprint=task.fingerprint,
        group=task.group,
        n_documents=task.n_documents,
        benchmark=task.benchmark,
    )
