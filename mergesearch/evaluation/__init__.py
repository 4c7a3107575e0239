"""Scoring: lm-eval's tasks on live models, document by document.

Reading a suite and comparing scores import neither torch nor lm-eval; the evaluator does.
"""

from typing import TYPE_CHECKING, Any

from mergesearch.evaluation.comparison import Interval, interval, paired_difference, paired_lead
from mergesearch.evaluation.scores import DocumentScore, Scores, TaskScore
from mergesearch.evaluation.suite import Suite, TaskSpec, load_suite

if TYPE_CHECKING:
    from mergesearch.evaluation.cost import Cost
    from mergesearch.evaluation.evaluator import DocumentStore, Evaluator
    from mergesearch.evaluation.results import results_json
    from mergesearch.evaluation.tasks import BuiltTask

__all__ = [  # noqa: RUF022  grouped by what they are for
    # what to score
    "Suite",
    "TaskSpec",
    "load_suite",
    # scoring
    "BuiltTask",
    "Cost",
    "DocumentStore",
    "Evaluator",
    # what was scored
    "DocumentScore",
    "Interval",
    "Scores",
    "TaskScore",
    "interval",
    "paired_difference",
    "paired_lead",
    "results_json",
]

_LATE = {
    "BuiltTask": "tasks",
    "Cost": "cost",
    "DocumentStore": "evaluator",
    "Evaluator": "evaluator",
    "results_json": "results",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
