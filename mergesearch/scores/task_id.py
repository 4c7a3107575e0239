"""The name of a task's scores, wherever they are kept or shown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskId:
    """A task as it is scored: by which metric, and what that is.

    >>> from mergesearch import TaskId
    >>> TaskId("sums", "acc", "none", True, "mean", fingerprint="4fe1").metric
    'acc'
    """

    #: The name of an lm-eval task: the suite's, or one of the group that the suite names.
    task: str
    metric: str
    #: Name of the filter of responses.
    filter: str
    higher_is_better: bool
    #: Name of the aggregation: lm-eval's, or one in `OWN_AGGREGATIONS`.
    aggregation: str
    #: Hash of all that a model's scores depend on: prompts, targets, metric, tokenizer. Equal where
    #: scores may be compared or reused; that of the whole task, whatever the limit.
    fingerprint: str
    #: The group that the suite names, of which this is one task.
    group: str | None = None
