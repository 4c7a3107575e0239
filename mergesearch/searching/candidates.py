"""Candidates: recipes merged in memory and scored, neither of them twice."""

import copy
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Self

from mergesearch.merging import plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.runs import DocumentsOf, Record
from mergesearch.scores import DocumentScore, Scores
from mergesearch.workers import Pool, Worker

if TYPE_CHECKING:
    from mergesearch.evaluation import Evaluator
    from mergesearch.tasks import BuiltTask


@dataclass(frozen=True)
class Candidate:
    """A recipe that was scored.

    >>> from mergesearch import Recipe, Scores
    >>> from mergesearch.searching.candidates import Candidate
    >>> recipe = Recipe.model_validate(
    ...     {"merge_method": "passthrough", "slices": [{"sources": [{"model": "models/one"}]}]}
    ... )
    >>> Candidate(recipe, digest="5f0c", scores=Scores(())).digest
    '5f0c'
    """

    recipe: Recipe
    #: The hash of its tensors.
    digest: str
    scores: Scores

    @property
    def total(self) -> float:
        """The score that a search maximizes."""
        return self.scores.total


class CandidateEvaluator:
    """Scores recipes, and records what comes of it.

    What the record knows is neither merged nor scored again. Several of one run (`of`) may be used
    by a thread each; while one scores some tensors, the others wait for those.

    >>> from pathlib import Path
    >>> import torch
    >>> from mergesearch import Evaluator, load_suite, open_parents, read_recipe
    >>> from mergesearch.parents import tokenizer_of
    >>> from mergesearch.runs import Record
    >>> from mergesearch.searching.candidates import CandidateEvaluator
    >>> from mergesearch.workers import LocalWorker
    >>> Path("run").mkdir()
    >>> parents = open_parents("models/base", {"one": "models/one"}, device="cpu")
    >>> evaluator = Evaluator(load_suite(Path("suite.yaml")), tokenizer_of(parents))
    >>> worker = LocalWorker(parents, evaluator, torch.device("cpu"))
    >>> candidates = CandidateEvaluator(parents, evaluator, Record(Path("run")), worker)
    >>> text = "{merge_method: linear, models: [{model: one}], parameters: {weight: 1}}"
    >>> recipe = read_recipe(text)
    >>> digest = candidates.merge(recipe)
    >>> candidates.is_scored(digest)
    False
    >>> candidates.score(recipe).digest == digest and candidates.is_scored(digest)
    True

    Args:
        parents: every model that a recipe may name.
        evaluator: the tasks.
        record: where merges and scores are kept.
        worker: merges and scores.
        pool: of the workers, where there are several; then `worker` is any of them.
    """

    def __init__(
        self,
        parents: Parents,
        evaluator: "Evaluator",
        record: Record,
        worker: Worker,
        pool: Pool | None = None,
    ) -> None:
        self.parents = parents
        self.evaluator = evaluator
        self.record = record
        self.worker = worker
        self.pool = pool
        self._scoring = _Scoring()
        #: Answers that the model gave for this one, what the record knew aside.
        self.n_documents_scored = 0

    def of(self, worker: Worker) -> Self:
        """Return one of the same run that asks another worker, and counts by itself."""
        other = copy.copy(self)
        other.worker, other.pool = worker, None
        other.n_documents_scored = 0
        return other

    def merge(self, recipe: Recipe) -> str:
        """Look up the hash of a recipe's tensors; where it is not known, merge the recipe.

        Returns:
            The hash, by which `is_scored` knows the candidate.

        Raises:
            CandidateError: the recipe gives NaN or infinite weights.
            RecipeError: it cannot be built from these parents.
        """
        known = self.record.digest(recipe)
        if known is not None:
            return known
        merged = self.worker.merge(recipe)
        for one in merged.statistics:
            if self.record.add_statistics(one.key, one.n_answers):
                self.charge(one.n_answers)
        self.record.add_candidate(recipe, merged.digest, merged.n_parameters)
        return merged.digest

    def is_scored(self, digest: str, split: str = "search") -> bool:
        """Check whether a candidate's tensors were scored on every document of a split.

        Args:
            digest: from `merge`; the tensors may be those of several recipes.
            split: "search" or "held_out".
        """
        return not self.evaluator.n_missing(self.record.documents.of(digest), split)

    def score(self, recipe: Recipe, split: str = "search", *, full: bool = False) -> Candidate:
        """Score a recipe on a split of the suite.

        Args:
            recipe: the candidate.
            split: "search" or "held_out".
            full: all documents, whatever the suite's limits.

        Raises:
            CandidateError: the recipe gives NaN or infinite weights or scores.
            RecipeError: it cannot be built from these parents.
        """
        *_, candidate = self._blocks(recipe, split, full=full, n_blocks=None)
        return candidate

    def blocks(
        self, recipe: Recipe, split: str = "search", *, n_blocks: int = 5
    ) -> Generator[Candidate]:
        """Score a recipe block by block, for a caller who may stop early.

        Args:
            recipe: the candidate.
            split: "search" or "held_out".
            n_blocks: into how many parts the documents go.

        Yields:
            The candidate with its scores on all blocks so far.

        Raises:
            CandidateError: the recipe gives NaN or infinite weights or scores.
            RecipeError: it cannot be built from these parents.
        """
        return self._blocks(recipe, split, full=False, n_blocks=n_blocks)

    def _blocks(
        self, recipe: Recipe, split: str, *, full: bool, n_blocks: int | None
    ) -> Generator[Candidate]:
        digest = self.merge(recipe)
        with self._scoring.of(digest):
            store = _Counted(self, self.record.documents.of(digest))
            known = not self.evaluator.n_missing(store, split, full=full)
            scorer = None if known else _Scorer(self.worker, recipe, digest)
            for scores in self.evaluator.blocks(
                scorer, split, full=full, store=store, n_blocks=n_blocks
            ):
                yield Candidate(recipe, digest, scores)
            self.record.add_scores(digest, scores)  # the last, on every document

    def in_words(self, recipe: Recipe, task: "BuiltTask", doc_ids: Sequence[int]) -> dict[int, str]:
        """Ask a recipe's model about documents of a task once more, for what it says.

        Raises:
            CandidateError: the recipe gives NaN or infinite weights or scores.
        """
        digest = self.merge(recipe)
        return self.worker.in_words(recipe, digest, task.id.fingerprint, doc_ids)

    def known(self, recipe_hash: str) -> Scores | None:
        """Look up a recipe's scores on all documents of a search; None if any is missing."""
        digest = self.record.digest_of(recipe_hash)
        if digest is None or not self.is_scored(digest):
            return None
        return self.evaluator.score(None, store=self.record.documents.of(digest))

    def n_parameters(self, recipe: Recipe) -> int:
        """Count the parameters of a recipe's checkpoint, repeated layers each time.

        Raises:
            RecipeError: it cannot be built from these parents.
        """
        known = self.record.n_parameters(recipe.hash)
        return plan_merge(recipe, self.parents).n_entries if known is None else known

    def charge(self, n_documents: int) -> None:
        """Count answers that were given otherwise, as by learning, or for statistics.

        A document that is scored is one, and one that is learned from is three.
        """
        self.n_documents_scored += n_documents

    @property
    def n_documents_known(self) -> int:
        """Answers to the search's tasks in the whole run, and those beside scoring."""
        return self._n_at_open + self.record.n_answers_added

    @cached_property
    def _n_at_open(self) -> int:
        digests = {self.record.digest_of(key) for key in self.record.recipe_hashes}
        stores = [self.record.documents.of(digest) for digest in digests if digest is not None]
        known = sum(len(s.known(task)) for s in stores for task in self.evaluator.tasks())
        return known + self.record.n_answers_beside - self.record.n_answers_added

    @property
    def has_held_out(self) -> bool:
        """True where the suite has tasks that no search sees."""
        return bool(self.evaluator.suite.held_out)


class _Scorer:
    """A `Scorer` of one candidate, by a worker."""

    def __init__(self, worker: Worker, recipe: Recipe, digest: str) -> None:
        self._worker = worker
        self._recipe = recipe
        self._digest = digest

    def score_documents(
        self, task: "BuiltTask", doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        return self._worker.score(self._recipe, self._digest, task.id.fingerprint, doc_ids)


class _Counted:
    """A `DocumentStore` that counts what is added, for whoever scores."""

    def __init__(self, candidates: CandidateEvaluator, store: DocumentsOf) -> None:
        self._candidates = candidates
        self._store = store

    def known(self, task: "BuiltTask") -> Mapping[int, DocumentScore]:
        return self._store.known(task)

    def add(self, task: "BuiltTask", documents: Mapping[int, DocumentScore]) -> None:
        self._store.add(task, documents)
        self._candidates.charge(len(documents))


class _Scoring:
    """Tensors that are being scored, by one at a time: no document is scored twice."""

    def __init__(self) -> None:
        self._locks: dict[str, RLock] = {}
        self._lock = RLock()

    def of(self, digest: str) -> AbstractContextManager[object]:
        """Hold the tensors of a hash until the block ends."""
        with self._lock:
            return self._locks.setdefault(digest, RLock())
