"""Candidates: recipes merged in memory and scored, neither of them twice."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from mergesearch.errors import InputError
from mergesearch.logs import quiet
from mergesearch.merging import LearnableModel, LiveModel, Plan, Spread, plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.runs import Record
from mergesearch.scores import Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mergesearch.engines import Engine
    from mergesearch.evaluation import DocumentStore, Evaluator


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
    """Scores recipes on one live model.

    What the record knows is neither merged nor scored again.

    >>> from pathlib import Path
    >>> import torch
    >>> from mergesearch import Evaluator, load_suite, open_parents, read_recipe
    >>> from mergesearch.parents import tokenizer_of
    >>> from mergesearch.runs import Record
    >>> from mergesearch.searching.candidates import CandidateEvaluator
    >>> Path("run").mkdir()
    >>> parents = open_parents("models/base", {"one": "models/one"}, device="cpu")
    >>> evaluator = Evaluator(load_suite(Path("suite.yaml")), tokenizer_of(parents))
    >>> record = Record(Path("run"))
    >>> candidates = CandidateEvaluator(parents, evaluator, record, torch.device("cpu"))
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
        device: where the live model runs.
        dtype: what it computes in; None leaves it to `LiveModel`.
        spread: the devices where it runs, if they are several.
    """

    def __init__(
        self,
        parents: Parents,
        evaluator: "Evaluator",
        record: Record,
        device: torch.device,
        dtype: torch.dtype | None = None,
        spread: Spread | None = None,
    ) -> None:
        self.parents = parents
        self.evaluator = evaluator
        self.record = record
        self._live = LiveModel(parents, device, dtype, spread)
        self._n_learned_at_open = record.n_answers_learning

    def merge(self, recipe: Recipe) -> str:
        """Look up the hash of a recipe's tensors; where it is not known, merge the recipe.

        Returns:
            The hash, by which `is_scored` knows the candidate.

        Raises:
            CandidateError: the recipe gives NaN or infinite weights.
            RecipeError: it cannot be built from these parents.
        """
        return self.record.digest(recipe) or self._become(recipe)

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
        digest, store, model = self._to_score(recipe, split, full=full)
        scores = self.evaluator.score(model, split, full=full, store=store)
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
        digest, store, model = self._to_score(recipe, split)
        for scores in self.evaluator.blocks(model, split, store=store, n_blocks=n_blocks):
            yield Candidate(recipe, digest, scores)
            if self._live.digest != digest and self.evaluator.n_missing(store, split):
                raise RuntimeError("another recipe was merged between two blocks of this one")
        self.record.add_scores(digest, scores)  # the last, on every document

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

    def learnable(self, plan: Plan) -> AbstractContextManager[LearnableModel]:
        """Make the live model learnable until a block ends; see `LiveModel.learnable`."""
        return self._live.learnable(plan)

    @contextmanager
    def asked(self, recipe: Recipe) -> Iterator["Engine"]:
        """Let the engine hold a recipe's model until the block ends.

        Raises:
            CandidateError: the recipe gives NaN or infinite weights.
        """
        if self._live.digest != self.merge(recipe):
            self._become(recipe)
        engine = self.evaluator.engine
        with quiet():
            engine.load(self._live.model)
        try:
            yield engine
        finally:
            engine.unload()

    @property
    def n_documents_scored(self) -> int:
        """Answers of the model so far, what the record knew aside.

        A document that is scored is one, and one that is learned from is three.
        """
        n_learned = self.record.n_answers_learning - self._n_learned_at_open
        return self.record.documents.n_added + n_learned

    @cached_property
    def _n_at_open(self) -> int:
        """Answers to the search's tasks that the record knew when it was opened."""
        digests = {self.record.digest_of(key) for key in self.record.recipe_hashes}
        stores = [self.record.documents.of(digest) for digest in digests if digest is not None]
        known = sum(len(s.known(task)) for s in stores for task in self.evaluator.tasks())
        return known + self.record.n_answers_learning - self.n_documents_scored

    @property
    def n_documents_known(self) -> int:
        """The same, and what processes before this one had scored."""
        return self._n_at_open + self.n_documents_scored

    @property
    def has_held_out(self) -> bool:
        """True where the suite has tasks that no search sees."""
        return bool(self.evaluator.suite.held_out)

    def _to_score(
        self, recipe: Recipe, split: str, *, full: bool = False
    ) -> tuple[str, "DocumentStore", "PreTrainedModel | None"]:
        """Prepare to score: the hash of the tensors, what they scored, and the model.

        The live model becomes the recipe where any document is missing; else there is no model.
        """
        digest = self.merge(recipe)
        store = self.record.documents.of(digest)
        if not self.evaluator.n_missing(store, split, full=full):
            return digest, store, None
        if self._live.digest != digest:
            self._become(recipe)
        return digest, store, self._live.model

    def _become(self, recipe: Recipe) -> str:
        """Make the live model the recipe, and enter it in the record."""
        digest = self._live.become(recipe)
        known = self.record.digest(recipe)
        if known is None:
            self.record.add_candidate(recipe, digest, self._live.plan.n_entries)
        elif known != digest:
            raise InputError(
                f"a model of {recipe.merge_method} candidate {recipe.hash[:12]} has changed since "
                f"{self.record.folder} was made; set it back, or give --out another name"
            )
        return digest
