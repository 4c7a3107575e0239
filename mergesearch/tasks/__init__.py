"""Suites and lm-eval's tasks: building, prompts, metrics, grading, result files.

Reading a suite imports neither lm-eval nor transformers; what is built imports both.
"""

from typing import TYPE_CHECKING, Any

from mergesearch.tasks.suite import Suite, TaskSpec, load_suite

if TYPE_CHECKING:
    from mergesearch.tasks.building import build_tasks
    from mergesearch.tasks.built import BuiltTask
    from mergesearch.tasks.results import results_json

__all__ = [
    "BuiltTask",
    "Suite",
    "TaskSpec",
    "build_tasks",
    "load_suite",
    "results_json",
]

_LATE = {"BuiltTask": "built", "build_tasks": "building", "results_json": "results"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
