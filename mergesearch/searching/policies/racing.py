"""Early stops: a candidate that will not beat the best so far is not scored to its end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from mergesearch.scores import Scores, paired_lead
from mergesearch.searching.candidates import Candidate
from mergesearch.searching.goals import Goals
from mergesearch.space import SCORE, SIZE

#: Into how many blocks a candidate's documents go; after each but the last it may be stopped.
N_BLOCKS = 12
#: How often, at most, a candidate as good as its rival is stopped, over all its blocks.
LEVEL = 0.2
#: Documents before the first decision, in all and of each task that has as many: fewer say too
#: little of how they vary.
_FEWEST, _FEWEST_OF_TASK = 24, 6


@dataclass(frozen=True)
class Rival:
    """A candidate scored in full that no other beats."""

    scores: Scores
    size: int


@dataclass(frozen=True)
class Raced:
    """How far a candidate came."""

    candidate: Candidate
    #: What it would score on all documents: its lead over the rival on those it was scored on,
    #: added to what the rival scored on all; its own scores where it was not stopped. Of the
    #: documents and errors of a projection's tasks nothing is meant.
    projected: Scores
    #: Share of the documents that it was scored on.
    share: float


def race(blocks: Iterator[Candidate], rivals: Sequence[Rival], goals: Goals) -> Raced:
    """Score a candidate block by block until it is done, or until a rival is sure to be better.

    Args:
        blocks: the candidate on ever more documents, the last time on all.
        rivals: the best first; without any, nothing is stopped.
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
        size = goals.size(candidate.recipe)
        if any(_is_beaten(so_far, size, rival, level, goals) for rival in rivals):
            return Raced(candidate, _projected(so_far, rivals[0].scores), share)
    return Raced(candidate, so_far, 1.0)


def _says_enough(so_far: Scores, whole: Scores) -> bool:
    """Whether there are documents enough to tell; the first blocks hold few of a small task."""
    if so_far.n_documents < _FEWEST or len(so_far.tasks) < len(whole.tasks):
        return False
    pairs = zip(so_far.tasks, whole.tasks, strict=True)
    return all(len(p.doc_ids) >= min(_FEWEST_OF_TASK, len(w.doc_ids)) for p, w in pairs)


def _is_beaten(so_far: Scores, size: int, rival: Rival, level: float, goals: Goals) -> bool:
    """Whether a rival is sure to be ahead in every objective once all documents are scored."""
    if SIZE in goals.names and size < rival.size:
        return False
    return all(
        _is_behind(_of(name, so_far), _of(name, rival.scores), level) for name in goals.scored
    )


def _is_behind(ours: Scores, rival: Scores, level: float) -> bool:
    """A one-sided test of the lead on all documents, from those that ours was scored on."""
    lead, error = paired_lead(ours, rival)
    return lead < NormalDist().inv_cdf(level) * error


def _projected(so_far: Scores, rival: Scores) -> Scores:
    """What a candidate would score on a rival's documents, by the rival's own scores there."""
    tasks = []
    for part, whole in zip(so_far.tasks, rival.tasks, strict=True):
        lead = part.value - whole.on(part.doc_ids).value
        tasks.append(replace(whole, value=whole.value + lead, stderr=None))
    return Scores(tuple(tasks))


def _of(name: str, scores: Scores) -> Scores:
    return scores if name == SCORE else scores.of(name)
