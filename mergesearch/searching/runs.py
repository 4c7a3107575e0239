"""The run of a space: its folder, identity and suite, and the search in it."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mergesearch.calibration import PROMPTS_FOLDER
from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.merging import digest_of, generation_hash
from mergesearch.parents import Parents, default_budget
from mergesearch.parents.usage import process_bytes
from mergesearch.recipe import ModelRef
from mergesearch.runs import Process, Record, SuiteEntry, TaskEntry, hold
from mergesearch.runs.told import RECIPE
from mergesearch.runtime import Runtime
from mergesearch.searching.calibrating import identity_of
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.goals import directions, goals_of
from mergesearch.searching.learner import Learner
from mergesearch.searching.loop import Search
from mergesearch.searching.observer import Observer, Silent
from mergesearch.searching.setup import (
    Learning,
    SearchSetup,
    Shared,
    prepare,
    start_worker,
    worker_of,
)
from mergesearch.searching.study import best_before, enqueue, finished, open_study
from mergesearch.space import SearchSpace
from mergesearch.workers import AnyWorker, Pool, Worker

if TYPE_CHECKING:
    import optuna

    from mergesearch.evaluation import Evaluator
    from mergesearch.tasks import BuiltTask


@dataclass(frozen=True)
class Outcome:
    """The end of a search or a soup: its folder, and the best model.

    >>> from pathlib import Path
    >>> from mergesearch import SearchSpace, soup
    >>> outcome = soup(SearchSpace.load(Path("space.yaml")), Path("run"), greedy=False)
    >>> outcome.best.recipe.merge_method
    'linear'
    """

    #: Of the run.
    folder: Path
    #: Scored on the whole search split.
    best: Candidate


@contextmanager
def open_run(
    space: SearchSpace,
    out: Path,
    runtime: Runtime = Runtime(),  # noqa: B008  frozen
    observer: Observer | None = None,
    **learning: Unpack[Learning],
) -> Iterator[tuple[SearchSetup, CandidateEvaluator]]:
    """Hold a space's run folder, with its models and tasks open, until the block ends.

    >>> from pathlib import Path
    >>> from mergesearch import SearchSpace
    >>> from mergesearch.searching import open_run, open_search
    >>> space = SearchSpace.load(Path("space.yaml"))
    >>> with open_run(space, Path("searched")) as (setup, candidates):
    ...     history = open_search(setup, candidates).run()
    >>> [trial.method for trial in history.trials][:2]
    ['linear (uniform soup)', 'task_arithmetic (task arithmetic at 0.3)']

    Args:
        space: what is searched.
        out: the folder; made where it is missing.
        runtime: where and how models are merged and run.
        observer: is told of tokens, differences, memory, and what is learned from.
        learning: what is learned, if not what the space says; see `prepare`.

    Yields:
        What a search needs, and what scores candidates.

    Raises:
        InputError: something in the space is wrong, or the folder is another run's or in use.
    """
    observer = observer or Silent()
    setup = prepare(space, _as_planned(runtime), **learning)
    with hold(out, identity(setup, out)), quiet():  # at once, since each block would
        lines = setup.curriculum.lines() if setup.curriculum else ()
        if setup.calibration is not None:
            lines = (*lines, *setup.calibration.lines())
        for note in (*setup.parents.notes, *_plan(setup, runtime), *lines):
            observer.stage(note)
        record = Record(out)
        generation, weights = _unchanged(setup.parents, record)
        record.set_suite(suite_entry(setup.evaluator))
        differences = tuple(map(str, setup.parents.differences))
        allow_mismatch = runtime.allow_mismatch
        record.set_parents(differences, generation, weights, allow_mismatch=allow_mismatch)
        record.add_process(Process.of(runtime.torch_device))
        with _workers(setup, out, runtime, observer) as (worker, pool):
            yield setup, CandidateEvaluator(setup.parents, setup.evaluator, record, worker, pool)


def _as_planned(runtime: Runtime) -> Runtime:
    """Give the driver the budget that each worker of its host will have."""
    if runtime.workers is None or runtime.ray is not None or runtime.memory_budget is not None:
        return runtime
    return runtime.model_copy(update={"memory_budget": default_budget(runtime.workers)})


def _plan(setup: SearchSetup, runtime: Runtime) -> list[str]:
    """Lay out what each process of a run holds."""
    if not runtime.has_workers:
        return setup.memory.lines()
    here = runtime.ray is None
    of = (
        f" of each of {runtime.workers} workers" if here else " of a worker with this host's memory"
    )
    driver = f"  beside them the driver holds {process_bytes() / 1e9:.2f} GB of this host"
    return [*setup.memory.lines(of), driver]


@contextmanager
def _workers(
    setup: SearchSetup, out: Path, runtime: Runtime, observer: Observer
) -> Iterator[tuple[Worker, Pool | None]]:
    """Start what merges and scores: in this process, or in others."""
    statistics = out.resolve() / PROMPTS_FOLDER
    if not runtime.has_workers:
        yield worker_of(setup, runtime, statistics, observer.stage), None
        return
    from mergesearch.workers.ray import RayPool  # an extra, and slow to import

    space = setup.space
    shared = Shared(
        setup.suite, setup.evaluator.built, setup.curriculum, setup.calibration, statistics
    )
    named = space.parents if space.base is None else {"base": space.base, **space.parents}
    pool = RayPool(
        partial(start_worker, space, runtime, shared),
        runtime.workers,
        address=runtime.ray,
        accelerated=runtime.device != "cpu",
        n_devices=runtime.devices_per_worker,
        models={name: space.soup([ref]) for name, ref in named.items()},
        digest_of=partial(digest_of, parents=setup.parents),
        statistics=statistics,
        say=observer.stage,
    )
    with pool:
        yield AnyWorker(pool), pool


def _unchanged(parents: Parents, record: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hash what each model generates with, and a sample of its weights.

    Raises:
        InputError: one has changed since the run began, whose scores and learned coefficients would
            be of both.
    """
    checkpoints = [parents.checkpoint(ref) for ref in parents.models]
    generation = tuple(map(generation_hash, checkpoints))
    weights = tuple(checkpoint.sample() for checkpoint in checkpoints)
    for say, known, now in (
        ("the generation_config.json of {} has", record.generation, generation),
        ("the weights of {} have", record.weights, weights),
    ):
        for ref, before, after in zip(parents.models, known, now, strict=False):
            if before != after:
                raise InputError(
                    f"{say.format(ref)} changed since {record.folder} was made; set that back, or "
                    "give --out another name"
                )
    return generation, weights


def open_search(
    setup: SearchSetup,
    candidates: CandidateEvaluator,
    observer: Observer | None = None,
    storage: str | None = None,
) -> Search:
    """Open a run's search, new or to go on; parents that constraints name are scored.

    Where the suite's search tasks, limits or weights have changed since, a new search begins with
    the best trials of the last one.

    Args:
        setup: as `open_run` gives it.
        candidates: likewise.
        observer: is told what goes on.
        storage: a database URL for Optuna instead of a journal file in the folder.

    Raises:
        InputError: the database cannot be opened, or is another folder's.
    """
    observer = observer or Silent()
    space, out = setup.space, candidates.record.folder
    name = study_name(setup, out, storage)
    study = open_study(out, name, storage, directions(space.search.objectives))
    check_recorded(study, candidates.record, out)
    if not finished(study) and (best := best_before(out, name, storage)):
        observer.stage(
            f"the suite is not that of the trials before: a new search begins with the "
            f"{len(best)} best of them; what is known of each document is kept"
        )
        enqueue(study, best)
    goals = goals_of(space, candidates)
    learner = open_learner(setup, candidates, observer) if setup.curriculum else None
    if setup.calibration is not None:
        space = setup.calibration.written(space, out)
    return Search(study, space, goals, candidates, setup.shape, observer, learner)


def open_learner(setup: SearchSetup, candidates: CandidateEvaluator, observer: Observer) -> Learner:
    """Open the learner of a setup that has a curriculum.

    Raises:
        InputError: no tensor differs between the models.
    """
    assert setup.curriculum is not None and setup.subject is not None
    return Learner(setup.space, setup.curriculum, setup.subject, candidates, observer)


def check_recorded(study: "optuna.Study", record: Record, out: Path) -> None:
    """Refuse a study whose candidates the folder lacks: a database outlives folders."""
    recipes = {trial.user_attrs.get(RECIPE) for trial in finished(study)} - {None}
    if missing := recipes - set(record.recipe_hashes):
        raise InputError(
            f"the study {study.study_name!r} has {len(missing)} candidates that {out} does not "
            f"know: it is that of another folder called {out.name}, or of one that is gone; take "
            "another name for the run folder"
        )


def study_name(setup: SearchSetup, out: Path, storage: str | None = None) -> str:
    """Name the run's study: the space's hash and that of the objective.

    In a database, which runs may share, it begins with the folder's name; a journal moves with
    its folder, whatever that is called.
    """
    text = json.dumps(identity(setup, out), sort_keys=True)
    space = hashlib.sha256(text.encode()).hexdigest()[:12]
    run = "run" if storage is None else out.resolve().name
    return f"{run}-{space}-{suite_entry(setup.evaluator).objective}"


def identity(setup: SearchSetup, out: Path) -> dict[str, Any]:
    """Return what makes a run this run: the space but for its budget and suite.

    Paths are relative to the run's folder, so that both can be moved together.
    """
    exclude = {"suite", "base", "parents", "calibration"}
    space = setup.space.model_dump(mode="json", exclude=exclude)
    if setup.space.aim is None:  # a key that older runs' spaces do not have
        del space["aim"]
    if (calibration := identity_of(setup.space)) is not None:
        space["calibration"] = calibration
    for key in ("trials", "documents", "minutes", "patience"):
        space["search"].pop(key)
    if setup.space.learned is None:  # a start that such a space does not have
        starts = space["search"]["start_from"]
        space["search"]["start_from"] = [start for start in starts if start != "learned"]
    space["base"] = setup.space.base and str(setup.space.base.relative(out))
    space["parents"] = {name: str(ref.relative(out)) for name, ref in setup.space.parents.items()}
    if isinstance(source := setup.space.tokenizer_source, ModelRef):
        space["tokenizer_source"] = str(source.relative(out))
    if isinstance(setup.space.suite, Path):
        space["suite"] = os.path.relpath(setup.space.suite, out.resolve())
    return {"space": space}


def suite_entry(evaluator: "Evaluator") -> SuiteEntry:
    """Make the entry of an evaluator's suite in a run's record."""
    if not evaluator.suite.search:
        return SuiteEntry()
    splits = {"search": evaluator.tasks(), "search_full": evaluator.tasks(full=True)}
    if evaluator.suite.held_out:
        splits["held_out"] = evaluator.tasks("held_out")
    return SuiteEntry({name: tuple(map(_task_entry, split)) for name, split in splits.items()})


def _task_entry(task: "BuiltTask") -> TaskEntry:
    # of a limited task, those behind the limit are not scored in any case
    apart = tuple(sorted(i for i in task.apart if i < task.end))
    dataset, subset = task.dataset or (None, None)
    return TaskEntry(task.id, task.weight, task.n_documents, task.benchmark, apart, dataset, subset)
