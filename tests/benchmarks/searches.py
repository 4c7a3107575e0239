"""Searches of several kinds over one family of models, counted by the documents they score."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from cmaes import CMA

from mergesearch.errors import CandidateError
from mergesearch.recipe import Recipe
from mergesearch.runtime import Runtime
from mergesearch.searching import (
    N_FINALISTS,
    CandidateEvaluator,
    Goals,
    SearchSetup,
    TrialRecord,
    best_recipes,
    open_run,
    open_search,
    replay,
)
from mergesearch.space import SearchSettings, SearchSpace, suggest
from mergesearch.tasks import Suite, TaskSpec

#: Evaluations of the reference, each of every document of the search split.
N_EVALUATIONS = 100


@dataclass(frozen=True)
class Family:
    """Models and tasks, and how much of them a search sees."""

    name: str
    #: The space as a user would write it.
    space: SearchSpace
    #: Evaluations' worth of documents that the other searches may score.
    n_evaluations: int
    #: The settings by which coefficients are learned, by loss; the defaults where there are none.
    learned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Whether searches score their finalists on the whole search split, within that budget.
    confirms: bool = True

    def space_for(self, settings: Mapping[str, Any]) -> SearchSpace:
        """The space, searched in another way."""
        changed = {"trials": 100_000, **settings}
        loss = changed.pop("learned")
        methods = {name: of for name, of in self.space.methods.items() if name != "learned"}
        if loss is not None:
            methods = {"learned": {**self.learned.get(loss, {}), "loss": loss}, **methods}
        search = SearchSettings.model_validate(changed)
        return SearchSpace.model_validate(
            {**dict(self.space), "methods": methods, "search": search}
        )

    @property
    def limit(self) -> int | None:
        """Documents of each task that a search sees."""
        return self.space.load_suite().search[0].limit

    @property
    def genome(self) -> SearchSpace:
        """What mergekit-evolve searches by default: TIES, one weight and density a parent."""
        return SearchSpace.model_validate(
            {
                **dict(self.space),
                "granularity": {"per_parent": ["density"]},
                "methods": {
                    "ties": {
                        "weight": [0.0, 10.0],  # as good as unbounded, as it is there
                        "density": [0.0001, 1.0],
                        "lambda": 1.0,
                        "normalize": True,
                    }
                },
            }
        )


@dataclass(frozen=True)
class Incumbent:
    """The best of a search so far."""

    #: Documents that were scored when it was found.
    n_documents: int
    #: On all documents of the search.
    score: float
    recipe_hash: str


@dataclass(frozen=True)
class SearchResult:
    """One search, and how its winner scored on held-out."""

    family: str
    arm: str
    seed: int
    #: Documents of one full evaluation.
    n_each: int
    n_documents: int
    n_trials: int
    incumbents: tuple[Incumbent, ...]
    #: Held-out scores of the incumbents, in their order; None where they cost too much.
    held_out: tuple[float | None, ...]
    #: What the search would tell its user of the winner, and what held-out says of it.
    winner_score: float
    winner_held_out: float
    #: Of each task the values of the winner's held-out documents, for paired intervals.
    winner_documents: tuple[tuple[float, ...], ...] = ()
    #: Whether racing would have stopped each incumbent; of searches that the goals ask this of.
    stopped: tuple[bool, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SearchResult":
        """From a file."""
        incumbents = tuple(Incumbent(**i) for i in data["incumbents"])
        lists = {
            k: tuple(data[k]) if data[k] is not None else None for k in ("held_out", "stopped")
        }
        documents = tuple(tuple(of) for of in data.get("winner_documents", ()))
        named = {"incumbents": incumbents, "winner_documents": documents}
        return cls(**{**data, **lists, **named})


#: Searches of the space by the engine, by what differs from its defaults; `learned` is the loss
#: by which coefficients are learned, None where none are.
ARMS: dict[str, dict[str, Any]] = {
    "mergesearch": {"learned": "labels"},
    "without labels": {"learned": "parents"},
    "without learning": {"learned": None},
    "TPE without racing": {
        "learned": None, "sampler": "tpe", "startup": 10, "racing": False, "refine": 0.0,
    },
    "random": {"learned": None, "sampler": "random", "racing": False, "refine": 0.0},
}  # fmt: skip
#: Those whose candidates are all scored on every document.
UNRACED = ("TPE without racing", "random")
REFERENCE = "CMA-ES"


@contextmanager
def opened(space: SearchSpace, folder: Path) -> Iterator[tuple[SearchSetup, CandidateEvaluator]]:
    """Open a run of a space on the CPU, where tests and benchmarks have the same numbers."""
    with open_run(space, folder, Runtime(device="cpu")) as run:
        yield run


def run_reference(family: Family, seed: int, folder: Path, *, curve: bool) -> SearchResult:
    """CMA-ES over the genome, from x0 = 1/n (densities 1) with a step of 1/6, in full evaluations.

    The defaults of mergekit-evolve 0.1.5: weights are taken without their sign, densities clamped.
    """
    space = family.genome
    names = [f"weight.{p}" for p in space.parents], [f"ties.density.{p}" for p in space.parents]
    n = len(space.parents)
    optimizer = CMA(mean=np.array([1 / n] * n + [1.0] * n), sigma=1 / 6, seed=seed)
    with opened(space, folder) as (setup, candidates):
        incumbents: list[Incumbent] = []
        asked: list[np.ndarray] = []
        told: list[tuple[np.ndarray, float]] = []
        for _ in range(N_EVALUATIONS):
            if not asked:
                asked = [optimizer.ask() for _ in range(optimizer.population_size)]
            point = asked.pop(0)
            weights, densities = np.abs(point[:n]), np.clip(np.abs(point[n:]), 0.0001, 1.0)
            values = dict(zip(names[0], map(float, np.minimum(weights, 10.0)), strict=True))
            values |= dict(zip(names[1], map(float, densities), strict=True))
            recipe = suggest(space, optuna.trial.FixedTrial(values), setup.shape)
            assert isinstance(recipe, Recipe)
            try:
                score = candidates.score(recipe).total
            except CandidateError:
                score = 0.0
            if not incumbents or score > incumbents[-1].score:
                incumbents.append(Incumbent(candidates.n_documents_scored, score, recipe.hash))
            told.append((point, -score))
            if len(told) == optimizer.population_size:
                optimizer.tell(told)
                told = []
        return _with_held_out(
            family, REFERENCE, seed, setup, candidates, incumbents, N_EVALUATIONS, curve=curve
        )


def run_arm(family: Family, arm: str, seed: int, folder: Path, *, curve: bool) -> SearchResult:
    """A search by the engine, of as many documents as so many full evaluations."""
    space = family.space_for({**ARMS[arm], "seed": seed})
    with opened(space, folder) as (setup, candidates):
        n_each = sum(task.n_documents for task in setup.evaluator.tasks())
        whole = sum(task.n_documents for task in setup.evaluator.tasks(full=True))
        budget = family.n_evaluations * n_each
        confirms = family.confirms and arm not in UNRACED
        if confirms:  # which is a part of what it costs
            budget -= N_FINALISTS * (whole - n_each)
        search = open_search(setup.with_budget(documents=budget), candidates)
        history = search.run()
        finalists = best_recipes(history, candidates, N_FINALISTS) if confirms else ()
        return _with_held_out(
            family,
            arm,
            seed,
            setup,
            candidates,
            _incumbents(history.trials),
            len(history.trials),
            finalists=finalists,
            goals=search.goals if arm in UNRACED else None,
            curve=curve,
        )


def _incumbents(trials: Sequence[TrialRecord]) -> list[Incumbent]:
    """List the best of a search's trials after each that brought a better one."""
    incumbents: list[Incumbent] = []
    n_documents = 0
    for trial in trials:
        n_documents += trial.n_documents
        if not trial.is_whole or trial.score is None or trial.recipe_hash is None:
            continue
        if not incumbents or trial.score > incumbents[-1].score:
            incumbents.append(Incumbent(n_documents, trial.score, trial.recipe_hash))
    return incumbents


def _with_held_out(
    family: Family,
    arm: str,
    seed: int,
    setup: SearchSetup,
    candidates: CandidateEvaluator,
    incumbents: Sequence[Incumbent],
    n_trials: int,
    *,
    finalists: Sequence[Recipe] = (),
    goals: Goals | None = None,
    curve: bool,
) -> SearchResult:
    n_each = sum(task.n_documents for task in setup.evaluator.tasks())
    if finalists:
        winner = max(
            (candidates.score(recipe, full=True) for recipe in finalists), key=lambda c: c.total
        )
    else:
        winner = candidates.score(candidates.record.recipe(incumbents[-1].recipe_hash))
    n_documents = candidates.n_documents_scored
    # the one that is compared with the other searches' winners
    budget = family.n_evaluations * n_each
    equal = sum(incumbent.n_documents <= budget for incumbent in incumbents) - 1

    def held_out(recipe_hash: str) -> float:
        return candidates.score(candidates.record.recipe(recipe_hash), "held_out").total

    on_held_out = candidates.score(winner.recipe, "held_out").scores

    return SearchResult(
        family=family.name,
        arm=arm,
        seed=seed,
        n_each=n_each,
        n_documents=n_documents,
        n_trials=n_trials,
        incumbents=tuple(incumbents),
        held_out=tuple(
            held_out(incumbent.recipe_hash) if curve or i == equal else None
            for i, incumbent in enumerate(incumbents)
        ),
        winner_score=winner.total,
        winner_held_out=on_held_out.total,
        winner_documents=tuple(
            tuple(float(value) for value in task.values if value is not None)
            for task in on_held_out.tasks
        ),
        stopped=_would_be_stopped(candidates, goals, incumbents) if goals else None,
    )


def _would_be_stopped(
    candidates: CandidateEvaluator, goals: Goals, incumbents: Sequence[Incumbent]
) -> tuple[bool, ...]:
    """Race each of the incumbents against the one before it: would it have been stopped?"""
    stopped = [False]
    for before, incumbent in pairwise(incumbents):
        rival, recipe = (candidates.record.recipe(i.recipe_hash) for i in (before, incumbent))
        stopped.append(replay(candidates, recipe, rival, goals).share < 1)
    return tuple(stopped)


def demo_suite(folder: Path, limit: int) -> Suite:
    """The suite of a demo family, of which a search sees the first documents only."""
    names = sorted(path.stem.removesuffix("_dev") for path in (folder / "tasks").glob("*_dev.yaml"))
    return _suite(folder / "tasks", names, "dev", "test", limit, None)


def _suite(
    tasks: Path, names: Sequence[str], dev: str, test: str, limit: int, held_out: int | None
) -> Suite:
    return Suite(
        include_path=(tasks,),
        search=tuple(TaskSpec(task=f"{n}_{dev}", metric="acc", limit=limit) for n in names),
        held_out=tuple(TaskSpec(task=f"{n}_{test}", metric="acc", limit=held_out) for n in names),
    )


def demo(folder: Path) -> Family:
    """The family of `mergesearch demo`, as it is in a folder."""
    space = SearchSpace.load(folder / "space.yaml")
    suite = demo_suite(folder, 100)
    return Family("demo", space.model_copy(update={"suite": suite}), N_EVALUATIONS)


def testbed(folder: Path) -> Family:
    """The real family, as it is laid out in a folder."""
    skills = {"sentiment": "sst2", "questions": "trec", "style": "subj"}
    base = folder / "base"
    parents = {name: f"{base}+{folder / 'adapters' / task}" for name, task in skills.items()}
    space = SearchSpace.model_validate(
        {
            "base": str(base),
            "parents": parents,
            "granularity": {"blocks": 3},
            "methods": {
                "linear": {},
                "task_arithmetic": {"weight": [0, 1.5]},
                "ties": {"weight": [0, 1.5], "density": [0.2, 1.0], "lambda": 1.0},
                "dare_ties": {"weight": [0, 1.5], "density": [0.2, 1.0]},
            },
            "suite": _suite(folder / "tasks", list(skills.values()), "dev", "test", 100, 500),
        }
    )
    # as many passes as there are documents for that no search scores: chosen on seed 0, beside 3
    learned = {"labels": {"passes": 5}}
    return Family("testbed", space, n_evaluations=20, learned=learned, confirms=False)
