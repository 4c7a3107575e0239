"""The winner's wins and losses: counts by task, and documents in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergesearch.report.entries import Entry
from mergesearch.report.run import RunView
from mergesearch.runs import Example
from mergesearch.scores import Scores, TaskScore, changes

#: The splits in words.
SPLITS = {"search_full": "search split", "held_out": "held-out"}


@dataclass(frozen=True)
class Tally:
    """A task's documents on which a merge is better than another model, and worse."""

    better: int
    worse: int
    n: int

    @property
    def tilt(self) -> float:
        """The surplus as a share of the documents, from -1 to 1."""
        return (self.better - self.worse) / self.n if self.n else 0.0


@dataclass(frozen=True)
class Matrix:
    """Tallies by task and by the model that the merge is compared with."""

    split: str
    models: Sequence[str]
    #: A task's name, and a tally a model; None where a document's value is no number.
    rows: Sequence[tuple[str, Sequence[Tally | None]]]


def matrices(run: RunView) -> list[Matrix]:
    """Compare the run's merge with the base and each parent, split by split."""
    merge = run.merge
    others = [e for e in run.entries if e.role in ("base", "parent")]
    if merge is None or not others:
        return []
    found = []
    for split, name in SPLITS.items():
        ours = _scores(merge, split)
        if ours is None:
            continue
        columns = [_scores(other, split) for other in others]
        rows = [(t.id.task, [_tally(t, theirs) for theirs in columns]) for t in ours.tasks]
        found.append(Matrix(name, [other.label for other in others], rows))
    return found


def examples(run: RunView) -> dict[str, tuple[Sequence[str], Sequence[Example]]]:
    """Give the documents of largest change by split: two labels, and the texts."""
    return {
        SPLITS[contrast.split]: (list(contrast.recipes), contrast.examples)
        for contrast in run.contrasts
        if contrast.examples
    }


def _scores(entry: Entry, split: str) -> Scores | None:
    return entry.search if split == "search_full" else entry.held_out


def _tally(ours: TaskScore, theirs: Scores | None) -> Tally | None:
    other = next((t for t in theirs.tasks if t.id == ours.id), None) if theirs else None
    found = changes(ours, other) if other else []
    if not found:
        return None
    better = sum(change.value > 0 for change in found)
    worse = sum(change.value < 0 for change in found)
    return Tally(better, worse, len(found))
