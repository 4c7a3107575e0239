"""A record's entries: models of the leaderboard, steps of a soup, the suite."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from mergesearch.scores import DocumentScore, TaskId, TaskScore, summary
from mergesearch.scores.aggregation import VECTORISED


@dataclass(frozen=True)
class LeaderboardRow:
    """A model that the leaderboard shows."""

    label: str
    #: "winner", "front", "finalist", "learned", "soup", "reference", "parent" or "base".
    role: str
    recipe_hash: str
    #: The constraints that it breaks on the whole search split.
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class SoupStep:
    """One model tried in a greedy soup."""

    model: str
    #: The models of the soup that was scored.
    ingredients: tuple[str, ...]
    score: float
    kept: bool


@dataclass(frozen=True)
class TaskEntry:
    """A task of the suite: all that a score of it says, but for the documents."""

    id: TaskId
    weight: float
    #: The first so many documents are scored, those apart not among them.
    n_documents: int
    #: Name of the well-known benchmark whose reported set it is, if it is one.
    benchmark: str | None = None
    #: Documents that are learned from, and so not scored.
    apart: tuple[int, ...] = ()
    #: The data set on the hub that its documents are of, and the subset, if they are; names only,
    #: which change no score.
    dataset: str | None = field(default=None, compare=False)
    subset: str | None = field(default=None, compare=False)

    def score(
        self, documents: Mapping[int, DocumentScore], value: float | None
    ) -> TaskScore | None:
        """Make the task's score, where all of its documents are among those given.

        Args:
            documents: of a model, by id.
            value: of the task, if it is kept; without it, documents must be enough.
        """
        skipped = set(self.apart)
        end = self.n_documents + len(skipped)
        ours = {i: documents[i] for i in range(end) if i in documents and i not in skipped}
        if len(ours) < self.n_documents:
            return None
        if values_are_enough(self.id.aggregation):
            decided = summary(self.id.aggregation, ours)
        elif value is None:
            return None
        else:
            ids, scores = tuple(ours), tuple(ours.values())
            decided = {"doc_ids": ids, "documents": scores, "value": value, "stderr": None}
        return TaskScore(id=self.id, weight=self.weight, **decided)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Read an entry of a record, in which the id's fields stand beside the others."""
        named = {f.name for f in fields(TaskId)}
        id_ = TaskId(**{key: value for key, value in entry.items() if key in named})
        others = {key: value for key, value in entry.items() if key not in named}
        return cls(id_, **{**others, "apart": tuple(others.get("apart", ()))})

    def json(self) -> dict[str, Any]:
        """Return the entry of a record; see `from_json`."""
        entry = asdict(self)
        for name in ("apart", "dataset", "subset"):
            if not entry[name]:
                del entry[name]
        return {**entry.pop("id"), **entry}


def values_are_enough(aggregation: str) -> bool:
    """Say if a task's value follows from its documents' without building the task."""
    return aggregation in VECTORISED


@dataclass(frozen=True)
class SuiteEntry:
    """The suite's tasks by split: "search", "search_full" (no limits) and "held_out"."""

    splits: Mapping[str, tuple[TaskEntry, ...]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, splits: Mapping[str, Any]) -> Self:
        """Read the entries of a record, by split."""
        return cls({name: tuple(map(TaskEntry.from_json, of)) for name, of in splits.items()})

    def json(self) -> dict[str, Any]:
        """Return the entries of a record, by split."""
        return {name: [task.json() for task in tasks] for name, tasks in self.splits.items()}

    @property
    def searched_benchmarks(self) -> Mapping[str, str]:
        """Tasks of either split whose benchmark's test set was searched on, with its name."""
        searched = {task.benchmark for task in self.splits.get("search_full", ())}
        tasks = (task for split in self.splits.values() for task in split)
        return {t.id.task: t.benchmark for t in tasks if t.benchmark and t.benchmark in searched}

    @property
    def datasets(self) -> Mapping[str, tuple[str, str | None]]:
        """Tasks of either split by name whose documents are of a data set on the hub."""
        tasks = (task for split in self.splits.values() for task in split)
        return {t.id.task: (t.dataset, t.subset) for t in tasks if t.dataset is not None}

    @property
    def objective(self) -> str:
        """Hash of what a search maximizes: equal where trials' totals may be compared."""
        tasks = self.splits.get("search", ())
        terms = [[task.id.fingerprint, task.n_documents, task.weight] for task in tasks]
        return hashlib.sha256(json.dumps(terms).encode()).hexdigest()[:12]
