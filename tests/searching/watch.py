"""What the tests of the study share: an observer that remembers, an evaluator that is free."""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import optuna
import yaml
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from mergesearch.recipe import Recipe
from mergesearch.runs import Record
from mergesearch.runs.frames import Frames
from mergesearch.runs.told import LABEL, RECIPE, REFINES, SHARE
from mergesearch.scores import DocumentScore, Scores, TaskId, TaskScore
from mergesearch.scores.scores import summary
from mergesearch.searching import Limit, TrialRecord
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.goals import Goals, directions, goals_of
from mergesearch.searching.loop import Search
from mergesearch.searching.study import ERROR, finished, open_study
from mergesearch.space import SearchSettings, SearchSpace, Shape
from mergesearch.tasks.order import split_evenly
from tests import tiny

optuna.logging.set_verbosity(optuna.logging.WARNING)

#: Of the tiny family.
SHAPE = Shape(n_layers=4)


class Killed(BaseException):
    """Ends a search where it stands, and leaves on disk what SIGKILL would leave."""


class RecordingObserver:
    """Remembers everything that a search says; may be told to kill it after some trials."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.stages: list[str] = []
        self.trials: list[TrialRecord] = []
        self.limits: list[Limit] = []
        #: The names of workers that had something to do.
        self.worked: set[str] = set()
        self._kill_after = kill_after

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def trial(self, trial: TrialRecord, limit: Limit, best: float | None) -> None:
        self.trials.append(trial)
        self.limits.append(limit)
        if len(self.trials) == self._kill_after:
            raise Killed

    def learning(self, done: int, most: int) -> None:
        assert 0 < done <= most

    def working(self, doing: Mapping[str, str]) -> None:
        self.worked |= doing.keys()


class HashEvaluator:
    """Scores a recipe by its hash.

    Args:
        folder: of the run.
        fail: called with each recipe that is scored; may raise.
        tasks: their names; each recipe has a skill in each.
        n_documents: of each task. The value of one is the skill; of more, each is right with the
            skill's probability.
    """

    def __init__(
        self,
        folder: Path,
        fail: Callable[[Recipe], None] | None = None,
        tasks: Sequence[str] = ("first",),
        n_documents: int = 1,
    ) -> None:
        self.record = Record(folder)
        self.pool = None
        self.worker = SimpleNamespace(name="this process")
        self._fail = fail
        self._tasks = tasks
        self._n_documents = n_documents

    @property
    def n_documents_scored(self) -> int:
        return self.record.documents.n_added

    @property
    def n_documents_known(self) -> int:
        digests = self.record.recipe_hashes
        known = self.record.documents.known
        return sum(len(known(digest, task)) for digest in digests for task in self._tasks)

    def merge(self, recipe: Recipe) -> str:
        return recipe.hash

    def is_scored(self, digest: str, split: str = "search") -> bool:
        return self.known(digest) is not None

    def known(self, recipe_hash: str) -> Scores | None:
        known = self.record.documents.known
        if any(len(known(recipe_hash, task)) < self._n_documents for task in self._tasks):
            return None
        return self._scores(recipe_hash, self._n_documents)

    def n_parameters(self, recipe: Recipe) -> int:
        """100 a layer; a merge has four."""
        ranges = [s.sources[0].layer_range for s in recipe.slices]
        return sum(100 * (end - start) for start, end in (r or (0, 4) for r in ranges))

    def blocks(
        self, recipe: Recipe, split: str = "search", *, n_blocks: int = 5
    ) -> Iterator[Candidate]:
        if self._fail:
            self._fail(recipe)
        if self.record.digest(recipe) is None:
            self.record.add_candidate(recipe, recipe.hash)
        for doc_ids in split_evenly(self._n_documents, min(n_blocks, self._n_documents)):
            for task in self._tasks:
                known = self.record.documents.known(recipe.hash, task)
                new = {i: self._document(recipe, task, i) for i in doc_ids if i not in known}
                if new:
                    self.record.documents.add(recipe.hash, task, new)
            yield Candidate(recipe, recipe.hash, self._scores(recipe.hash, doc_ids.stop))

    def score(self, recipe: Recipe, split: str = "search", *, full: bool = False) -> Candidate:
        (candidate,) = self.blocks(recipe, split, n_blocks=1)
        return candidate

    def _scores(self, digest: str, n: int) -> Scores:
        known = self.record.documents.known
        tasks = {task: known(digest, task) for task in self._tasks}
        return scores({task: [found[i].value for i in range(n)] for task, found in tasks.items()})

    def _document(self, recipe: Recipe, task: str, number: int) -> DocumentScore:
        text = recipe.model_dump_json(
            exclude={
                "base_model": True,
                "calibration": True,
                "aim": True,
                "slices": {"__all__": {"sources": {"__all__": {"model"}}}},
            }
        )
        sources = [source for part in recipe.slices for source in part.sources]
        text += task + "".join(str(s.model.relative(self.record.folder)) for s in sources)
        skill = _draw(text)
        return DocumentScore(
            skill if self._n_documents == 1 else float(_draw(f"{text}{number}") < skill)
        )


def _draw(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8


def hash_evaluator(
    folder: Path, fail: Callable[[Recipe], None] | None = None, **kwargs: Any
) -> CandidateEvaluator:
    return cast(CandidateEvaluator, HashEvaluator(folder, fail, **kwargs))


def scores(
    values: Mapping[str, Sequence[float]],
    weights: Mapping[str, float] = MappingProxyType({}),
    lower: Sequence[str] = (),
) -> Scores:
    """Made-up scores: of each task the value on each document.

    Args:
        values: by task.
        weights: of tasks; 1 where it is not said.
        lower: the tasks in which lower is better.
    """
    return Scores(
        tuple(
            TaskScore(
                id=TaskId(name, "acc", "none", name not in lower, "mean", fingerprint=name),
                weight=weights.get(name, 1.0),
                **summary("mean", {i: DocumentScore(value) for i, value in enumerate(of)}),
            )
            for name, of in values.items()
        )
    )


def goals(*objectives: str, size: int = 0) -> Goals:
    """The goals of a search whose candidates are all of one size."""
    return Goals(SearchSettings(objectives=objectives), {}, lambda _: size)


def ended(
    number: int,
    *values: float,
    share: float = 1.0,
    n_documents: int = 0,
    minutes: float = 0.0,
    recipe: str = "",
    params: Mapping[str, Any] = MappingProxyType({}),
    domains: Mapping[str, BaseDistribution] = MappingProxyType({}),
    refines: bool = False,
) -> TrialRecord:
    """A trial that came to these values, the first of which is the score of the suite."""
    return TrialRecord(
        number,
        "a method",
        recipe,
        values[0],
        share=share,
        objectives={f"objective {i}": value for i, value in enumerate(values)},
        n_documents=n_documents,
        seconds=60 * minutes,
        refines=refines,
        params=params,
        domains=domains,
    )


def run(
    space: SearchSpace, candidates: CandidateEvaluator, observer: RecordingObserver | None = None
) -> optuna.Study:
    """What a search does with its study, from opening it to its last trial."""
    names = directions(space.search.objectives)
    study = open_study(candidates.record.folder, "study", directions=names)
    search(study, space, candidates, observer)
    return study


def search(
    study: optuna.Study,
    space: SearchSpace,
    candidates: CandidateEvaluator,
    observer: RecordingObserver | None = None,
) -> None:
    """Go on with a study until its search ends."""
    goals, observer = goals_of(space, candidates), observer or RecordingObserver()
    Search(study, space, goals, candidates, SHAPE, observer).run()


def tried(study: optuna.Study) -> list[tuple[Any, ...]]:
    """What a search came to: of each trial in turn what it was and how it did."""
    keys = LABEL, REFINES, SHARE, RECIPE, ERROR
    return [
        (t.state, t.params, t.values, t.constraints, *map(t.user_attrs.get, keys))
        for t in finished(study)
    ]


def load(folder: Path, **changes: Any) -> SearchSpace:
    data = {**yaml.safe_load(tiny.SPACE), **changes}
    (folder / "space.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return SearchSpace.load(folder / "space.yaml")


def running(study: optuna.Study) -> list[int]:
    return [trial.number for trial in study.get_trials(states=(TrialState.RUNNING,))]


def scored(folder: Path) -> Counter[tuple[str, str, int]]:
    """How often each document of each task is in a run's file, by the tensors' hash."""
    found: Counter[tuple[str, str, int]] = Counter()
    for payload in Frames(folder / "documents.bin", writable=False).read():
        key, columns = (json.loads(line) for line in zlib.decompress(payload).splitlines())
        found.update((*key, i) for i in accumulate(columns[0]))
    return found


def most_scored(folder: Path) -> int:
    """How often the document that was scored most often was scored by one model."""
    return max(scored(folder).values())
