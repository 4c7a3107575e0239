"""Early stops: a candidate that will not beat the best is not scored to its end."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Self

from mergesearch.objectives import Measured, Objective
from mergesearch.recipe import Recipe
from mergesearch.scores import Scores, paired_lead
from mergesearch.searching.candidates import Candidate, CandidateEvaluator
from mergesearch.searching.goals import Goals

#: Into how many blocks a candidate's documents go; after each but the last it may be stopped.
N_BLOCKS = 12
#: How often, at most, a candidate as good as its rival is stopped, over all its blocks.
LEVEL = 0.2
#: Documents before the first decision, in all and of each task that has as many: fewer say too
#: little of how they vary.
_FEWEST, _FEWEST_OF_TASK = 24, 6


@dataclass(frozen=True)
class Raced:
    """A scored candidate, which may have been stopped before its last document."""

    candidate: Candidate
    #: What it would score on all documents: its lead over the rival on those it was scored on,
    #: added to what the rival scored on all; its own scores where it was not stopped. Of the
    #: documents and errors of a projection's tasks nothing is meant.
    projected: Scores
    #: Share of the documents that it was scored on.
    share: float

    @classmethod
    def whole(cls, candidate: Candidate) -> Self:
        """Make that of a candidate that was scored on all documents."""
        return cls(candidate, candidate.scores, 1.0)


def race(blocks: Iterator[Candidate], rivals: Sequence[Measured], goals: Goals) -> Raced:
    """Score a candidate by blocks until it is done, or a rival is sure to be better.

    Args:
        blocks: the candidate on ever more documents, the last time on all.
        rivals: scored in full, the best first; without any, nothing is stopped.
        goals: in which a rival must be better, each of them.

    Raises:
        CandidateError: the candidate gives NaN or infinite weights or scores.
    """
    level = LEVEL / (N_BLOCKS - 1)
    for candidate in blocks:
        so_far = candidate.scores
        whole = rivals[0].scores if rivals else so_far
        share = so_far.n_documents / whole.n_documents
        if share >= 1 or not _says_enough(so_far, whole):
            continue
        ours = goals.measured(candidate.recipe, so_far)
        if any(_is_beaten(ours, rival, level, goals) for rival in rivals):
            return Raced(candidate, _projected(so_far, rivals[0].scores), share)
    return Raced.whole(candidate)


def replay(candidates: CandidateEvaluator, recipe: Recipe, rival: Recipe, goals: Goals) -> Raced:
    """Race a recipe as a search would against another that it has scored in full.

    Args:
        candidates: score the recipe; what it scored before costs nothing.
        recipe: to be raced.
        rival: known on every document of the search.
        goals: of the search.

    Raises:
        CandidateError: the recipe gives NaN or infinite weights or scores.
        ValueError: the rival was not scored on every document.
    """
    scores = candidates.known(rival.hash)
    if scores is None:
        raise ValueError("the rival must be scored on every document first")
    with closing(candidates.blocks(recipe, n_blocks=N_BLOCKS)) as blocks:
        return race(blocks, [goals.measured(rival, scores)], goals)


def _says_enough(so_far: Scores, whole: Scores) -> bool:
    """Say if documents are enough to tell; the first blocks hold few of a small task."""
    if so_far.n_documents < _FEWEST or len(so_far.tasks) < len(whole.tasks):
        return False
    pairs = zip(so_far.tasks, whole.tasks, strict=True)
    return all(len(p.doc_ids) >= min(_FEWEST_OF_TASK, len(w.doc_ids)) for p, w in pairs)


def _is_beaten(ours: Measured, rival: Measured, level: float, goals: Goals) -> bool:
    """Say if a rival is sure to be ahead in every objective on all documents."""
    return all(_is_behind(ours, rival, level, objective) for objective in goals.objectives)


def _is_behind(ours: Measured, rival: Measured, level: float, objective: Objective) -> bool:
    """Test one objective: one-sided, from the documents that ours was scored on.

    In one that documents do not decide, a rival that is as good is ahead.
    """
    if objective.part is None:
        return objective.sign * (objective.measure(ours) - objective.measure(rival)) <= 0
    lead, error = paired_lead(objective.part(ours.scores), objective.part(rival.scores))
    return lead < NormalDist().inv_cdf(level) * error


def _projected(so_far: Scores, rival: Scores) -> Scores:
    """Project a candidate's scores to all documents, by the rival's own there."""
    tasks = []
    for part, whole in zip(so_far.tasks, rival.tasks, strict=True):
        lead = part.value - whole.on(part.doc_ids).value
        tasks.append(replace(whole, value=whole.value + lead, stderr=None))
    return Scores(tuple(tasks))
