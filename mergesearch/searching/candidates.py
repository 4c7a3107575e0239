"""From a recipe to its scores: merged in memory, scored, and never twice."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from mergesearch.errors import InputError
from mergesearch.merging import Stacks, build, fill, plan, skeleton
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.runs import Record
from mergesearch.scores import Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mergesearch.evaluation import DocumentStore, Evaluator


@dataclass(frozen=True)
class Candidate:
    """A recipe that was scored."""

    recipe: Recipe
    #: The hash of its tensors.
    digest: str
    scores: Scores

    @property
    def total(self) -> float:
        """The score that a search maximizes."""
        return self.scores.total


class CandidateEvaluator:
    """Scores recipes on one live model; what the record knows is neither merged nor scored again.

    Args:
        parents: every model that a recipe may name.
        evaluator: the tasks.
        record: where merges and scores are kept.
        device: where the live model runs.
    """

    def __init__(
        self, parents: Parents, evaluator: "Evaluator", record: Record, device: torch.device
    ) -> None:
        self.parents = parents
        self.evaluator = evaluator
        self.record = record
        self._device = device
        self._stacks = Stacks(parents, device)
        self._live: PreTrainedModel | None = None
        #: What the live model can become without being built anew.
        self._shape: object = None
        self._resident: str | None = None

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
        digest, store = self._sit(recipe, split, full=full)
        scores = self.evaluator.score(self._live, split, full=full, store=store)
        self.record.add_scores(digest, scores)
        return Candidate(recipe, digest, scores)

    def blocks(
        self, recipe: Recipe, split: str = "search", *, n_blocks: int = 5
    ) -> Iterator[Candidate]:
        """Score a recipe block by block, for a caller who may stop early.

        No other recipe may be merged between two blocks.

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
        digest, store = self._sit(recipe, split)
        for scores in self.evaluator.blocks(self._live, split, store=store, n_blocks=n_blocks):
            yield Candidate(recipe, digest, scores)
            if self._resident != digest and self.evaluator.n_missing(store, split):
                raise RuntimeError("another recipe was merged between two blocks of this one")
        self.record.add_scores(digest, scores)  # the last, on every document

    def known(self, recipe_hash: str) -> Scores | None:
        """What a recipe scored before on the documents of a search; None where any is missing."""
        digest = self.record.digest_of(recipe_hash)
        if digest is None:
            return None
        store = self.record.documents.of(digest)
        if self.evaluator.n_missing(store):
            return None
        return self.evaluator.score(None, store=store)

    def merge(self, recipe: Recipe) -> str:
        """Return the hash of a recipe's tensors; the live model becomes one that is not known.

        Raises:
            CandidateError: the recipe gives NaN or infinite weights.
            RecipeError: it cannot be built from these parents.
        """
        return self.record.digest(recipe) or self._write(recipe)

    def is_scored(self, digest: str, split: str = "search") -> bool:
        """Say if tensors were scored on every document of a split, under whatever recipe."""
        return not self.evaluator.n_missing(self.record.documents.of(digest), split)

    def n_parameters(self, recipe: Recipe) -> int:
        """Parameters of a recipe's model as its checkpoint has them, repeated layers each time.

        Raises:
            RecipeError: it cannot be built from these parents.
        """
        known = self.record.n_parameters(recipe.hash)
        return plan(recipe, self.parents).n_entries if known is None else known

    @property
    def n_documents_scored(self) -> int:
        """Documents answered by the model so far, what the record knew aside."""
        return self.record.documents.n_added

    @cached_property
    def _n_at_open(self) -> int:
        """Documents of the search's tasks that the record knew when it was opened."""
        digests = {self.record.digest_of(key) for key in self.record.recipe_hashes}
        stores = [self.record.documents.of(digest) for digest in digests if digest is not None]
        known = sum(len(s.known(task)) for s in stores for task in self.evaluator.tasks())
        return known - self.n_documents_scored

    @property
    def n_documents_known(self) -> int:
        """The same, and what processes before this one had scored."""
        return self._n_at_open + self.n_documents_scored

    @property
    def has_held_out(self) -> bool:
        """Whether the suite has tasks that no search sees."""
        return bool(self.evaluator.suite.held_out)

    def _sit(
        self, recipe: Recipe, split: str, *, full: bool = False
    ) -> tuple[str, "DocumentStore"]:
        """The hash of a recipe's tensors, and what they scored before.

        The live model is the recipe's where any document is missing.
        """
        digest = self.record.digest(recipe) or self._write(recipe)
        store = self.record.documents.of(digest)
        if self._resident != digest and self.evaluator.n_missing(store, split, full=full):
            self._write(recipe)
        return digest, store

    def _write(self, recipe: Recipe) -> str:
        self._resident = None  # whatever happens, the model is no longer what it was
        work = plan(recipe, self.parents)
        stacked = recipe.merge_method == "passthrough"
        # never the same for both: into a stack, whose tensors are the parents', nothing is written
        shape = dict(work.config) if stacked else len(work.jobs)
        if self._live is None or shape != self._shape:
            self._live = None  # its memory is free before the next takes some
            self._live = (skeleton if stacked else build)(work, self._device)
            self._shape = shape
        if stacked:
            digest = self._stacks.place(self._live, work)
        else:
            digest = fill(self._live, work, recipe, self.parents)
        self._resident = digest
        known = self.record.digest(recipe)
        if known is None:
            self.record.add_candidate(recipe, digest, work.n_entries)
        elif known != digest:
            raise InputError(
                f"a model of {recipe.merge_method} candidate {recipe.hash[:12]} has changed since "
                f"{self.record.folder} was made; set it back, or give --out another name"
            )
        return digest
