"""The documents on which the winner and the best parent differ most, in words.

Scores of documents say which these are. Nobody keeps what all candidates answered, so these two
are merged once more, and asked again.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mergesearch.errors import CandidateError
from mergesearch.runs import Contrast, Example, LeaderboardRow, read_contrasts, write_contrasts
from mergesearch.scores import Change, largest_changes
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.observer import Observer

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask

#: Roles of the model that a run is about: the first that the leaderboard has.
_MERGES = ("winner", "learned", "soup")
_PARENTS = ("parent", "base")
_SPLITS = ("search_full", "held_out")

#: A document: the name of its task, and its id.
_Key = tuple[str, int]


def keep_contrasts(candidates: CandidateEvaluator, observer: Observer) -> None:
    """Ask a run's winner and its best parent about the documents of largest change.

    What is kept already is not asked again. An answer that is drawn at random need not be the one
    that was scored.

    Args:
        candidates: whose record has a leaderboard; without one nothing is kept.
        observer: is told of it.
    """
    pair = _pair(candidates)
    if pair is None:
        return
    recipes = {row.label: row.recipe_hash for row in pair}
    changed = {split: _changes(candidates, split, pair) for split in _SPLITS}
    wanted = [(split, recipes, [(c.task, c.doc_id) for c in of]) for split, of in changed.items()]
    kept = read_contrasts(candidates.record.folder)
    if wanted == [(c.split, c.recipes, [(e.task, e.doc_id) for e in c.examples]) for c in kept]:
        return
    observer.stage(f"asking {' and '.join(recipes)} again where they differ most")
    try:
        answers = {row.label: _answers(candidates, row, changed) for row in pair}
    except CandidateError as error:
        observer.stage(f"no answers are kept: {error}")
        return
    contrasts = [
        Contrast(split, recipes, tuple(_example(candidates, split, c, answers) for c in of))
        for split, of in changed.items()
    ]
    write_contrasts(candidates.record.folder, contrasts)


def _pair(candidates: CandidateEvaluator) -> tuple[LeaderboardRow, LeaderboardRow] | None:
    """Find the run's merge, and the parent that does best on what decides."""
    rows = candidates.record.rows
    merges = [row for role in _MERGES for row in rows if row.role == role]
    parents = [row for row in rows if row.role in _PARENTS and _total(candidates, row) is not None]
    if not merges or not parents:
        return None
    return merges[0], max(parents, key=lambda row: _total(candidates, row) or 0.0)


def _total(candidates: CandidateEvaluator, row: LeaderboardRow) -> float | None:
    record, digest = candidates.record, candidates.record.digest_of(row.recipe_hash) or ""
    scores = record.scores(digest, "held_out") or record.scores(digest, "search_full")
    return scores.total if scores else None


def _changes(
    candidates: CandidateEvaluator, split: str, pair: Sequence[LeaderboardRow]
) -> list[Change]:
    record = candidates.record
    digests = [record.digest_of(row.recipe_hash) or "" for row in pair]
    ours, theirs = (record.scores(digest, split) for digest in digests)
    return largest_changes(ours, theirs) if ours and theirs else []


def _answers(
    candidates: CandidateEvaluator, row: LeaderboardRow, changed: Mapping[str, Sequence[Change]]
) -> dict[_Key, str]:
    """Ask one model about documents."""
    found: dict[_Key, str] = {}
    recipe = candidates.record.recipe(row.recipe_hash)
    for split, changes in changed.items():
        for task in _tasks(candidates, split) if changes else ():
            doc_ids = [change.doc_id for change in changes if change.task == task.id.task]
            if doc_ids:
                told = candidates.in_words(recipe, task, doc_ids)
                found |= {(task.id.task, doc_id): text for doc_id, text in told.items()}
    return found


def _example(
    candidates: CandidateEvaluator,
    split: str,
    change: Change,
    answers: Mapping[str, Mapping[_Key, str]],
) -> Example:
    (task,) = (t for t in _tasks(candidates, split) if t.id.task == change.task)
    prompt, right = task.texts(change.doc_id)
    key = change.task, change.doc_id
    given = {label: of[key] for label, of in answers.items()}
    return Example(change.task, change.doc_id, prompt, right, given)


def _tasks(candidates: CandidateEvaluator, split: str) -> "tuple[BuiltTask, ...]":
    name, full = ("search", True) if split == "search_full" else (split, False)
    return candidates.evaluator.tasks(name, full=full)
