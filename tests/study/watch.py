"""What the tests of the study share: an ear for what it says, and a judge that costs nothing."""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import optuna
import yaml
from optuna.trial import TrialState

from mergesearch.candidates import Candidate, Judge
from mergesearch.evaluation import DocumentScore, Scores, TaskScore
from mergesearch.recipe import Recipe
from mergesearch.runs import Record
from mergesearch.runs.frames import Frames
from mergesearch.space import SearchSpace
from mergesearch.study import TrialEvent
from tests import tiny

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Killed(BaseException):
    """Ends a search where it stands, and leaves on disk what SIGKILL would leave."""


class Ear:
    """Remembers everything that a search says; may be told to kill it after some trials."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.stages: list[str] = []
        self.trials: list[TrialEvent] = []
        self._kill_after = kill_after

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def trial(self, event: TrialEvent) -> None:
        self.trials.append(event)
        if len(self.trials) == self._kill_after:
            raise Killed


class HashJudge:
    """Scores a recipe by its hash."""

    def __init__(self, folder: Path, fail: Callable[[Recipe], None] | None = None) -> None:
        self.record = Record(folder)
        self.n_documents_scored = 0
        self._fail = fail

    def known(self, recipe_hash: str) -> Scores | None:
        if self.record.digest_of(recipe_hash) is None:
            return None
        return self._candidate(self.record.recipe(recipe_hash)).scores

    def blocks(
        self, recipe: Recipe, split: str = "search", *, n_blocks: int = 5
    ) -> Iterator[Candidate]:
        yield self.score(recipe, split)

    def score(self, recipe: Recipe, split: str = "search", *, full: bool = False) -> Candidate:
        if self._fail:
            self._fail(recipe)
        if self.record.digest(recipe) is None:
            self.record.add_candidate(recipe, recipe.hash)
            self.n_documents_scored += 1
        return self._candidate(recipe)

    def _candidate(self, recipe: Recipe) -> Candidate:
        text = recipe.model_dump_json(
            exclude={"slices": {"__all__": {"sources": {"__all__": {"model"}}}}}
        )
        value = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8
        score = TaskScore(
            task="first",
            metric="acc",
            filter="none",
            higher_is_better=True,
            weight=1.0,
            aggregation="mean",
            fingerprint="f",
            doc_ids=(0,),
            documents=(DocumentScore(value),),
            value=value,
            stderr=None,
        )
        return Candidate(recipe, recipe.hash, Scores((score,)))


def hash_judge(folder: Path, fail: Callable[[Recipe], None] | None = None) -> Judge:
    return cast(Judge, HashJudge(folder, fail))


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
