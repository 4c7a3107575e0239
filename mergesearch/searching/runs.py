"""The run of a space: its folder, what makes it this run, and what it is scored on."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergesearch.errors import InputError
from mergesearch.runs import Record, SuiteEntry, TaskEntry, hold
from mergesearch.runtime import Runtime
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.observer import Observer
from mergesearch.searching.setup import SearchSetup, prepare
from mergesearch.searching.study import RECIPE, finished
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


@contextmanager
def open_run(
    space: SearchSpace,
    out: Path,
    runtime: Runtime,
    observer: Observer,
) -> Iterator[tuple[SearchSetup, CandidateEvaluator]]:
    """A space's bench and judge, with its run folder held; all that is wrong is said before."""
    bench = prepare(space, runtime)
    with hold(out, identity(bench, out)):
        for note in (*bench.parents.alignment.notes, *bench.memory.lines()):
            observer.stage(note)
        record = Record(out)
        record.set_suite(suite_entry(bench.evaluator))
        yield (
            bench,
            CandidateEvaluator(bench.parents, bench.evaluator, record, runtime.torch_device),
        )


def check_recorded(study: "optuna.Study", record: Record, out: Path) -> None:
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
    return TaskEntry(task.id, task.weight, task.n_documents, task.benchmark)
