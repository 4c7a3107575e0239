"""The answers of parents side by side: who is right where others are not."""

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from mergesearch.diagnosis.model import BASE, Answers
from mergesearch.scores import Scores, TaskScore


def compare_answers(scores: Mapping[str, Scores]) -> tuple[Answers, ...]:
    """Compare models document by document, task by task.

    Args:
        scores: of each model by name, on the same documents; `base` is no parent.
    """
    n_tasks = len(next(iter(scores.values())).tasks)
    return tuple(_of_task({name: s.tasks[n] for name, s in scores.items()}) for n in range(n_tasks))


def _of_task(scores: Mapping[str, TaskScore]) -> Answers:
    parents = [name for name in scores if name != BASE]
    first = scores[parents[0]]
    known = Answers(
        task=first.id.task,
        metric=first.id.metric,
        higher_is_better=first.id.higher_is_better,
        n_documents=len(first.doc_ids),
        values={name: of.value if isfinite(of.value) else None for name, of in scores.items()},
    )
    table = _table([scores[name] for name in parents])
    if table is None:
        return known
    ahead = (table[:, None] > table[None, :]).mean(-1)  # (parents, parents)
    best = table.max(0)
    alone = ((table == best) & ((table == best).sum(0) == 1)).mean(-1)
    return known.model_copy(
        update={
            "best": float(best.mean() if first.id.higher_is_better else -best.mean()),
            "ahead": {
                name: {other: float(ahead[i, j]) for j, other in enumerate(parents) if j != i}
                for i, name in enumerate(parents)
            },
            "alone": dict(zip(parents, map(float, alone), strict=True)),
        }
    )


def _table(scores: Sequence[TaskScore]) -> "np.ndarray | None":
    """Lay values out, (parents, documents), higher being better.

    None unless all are numbers. A document on which a metric is not defined is left out.
    """
    if scores[0].id.aggregation != "mean":
        return None
    columns = list(zip(*(score.values for score in scores), strict=True))
    defined = [column for column in columns if None not in column]
    if not defined or not all(isinstance(v, int | float) for column in defined for v in column):
        return None
    table = np.array(defined, dtype=float).T
    return table if scores[0].id.higher_is_better else -table
