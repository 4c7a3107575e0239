"""Search for the best merge of a base LLM and fine-tuned relatives of it.

    from pathlib import Path
    from mergesearch import (SearchSpace, export, search)

    outcome = search(SearchSpace.load(Path("search_spaces/three-skills.yaml")), Path("runs/first"))
    export(outcome.folder)

Everything public is named here, and imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mergesearch.api import compare, evaluate, learn, merge, search, soup
    from mergesearch.diagnosis import Diagnosis
    from mergesearch.errors import (
        CandidateError,
        ExportMismatchError,
        InputError,
        MergesearchError,
        RecipeError,
    )
    from mergesearch.evaluation import Evaluator
    from mergesearch.exporting import export
    from mergesearch.merging import LiveModel, merge_into, merged_tensors, plan_merge
    from mergesearch.parents import Parents, open_parents
    from mergesearch.recipe import Recipe, load_recipe, read_recipe, write_recipe
    from mergesearch.runs import TrialRecord
    from mergesearch.runtime import Runtime
    from mergesearch.scores import Scores, TaskId, interval, paired_difference
    from mergesearch.searching import greedy_soup
    from mergesearch.space import SearchSpace
    from mergesearch.tasks import Suite, load_suite

__version__ = "0.2.0"

_HOME = {
    # verbs
    "compare": "api",
    "evaluate": "api",
    "export": "api",
    "greedy_soup": "searching",
    "learn": "api",
    "merge": "api",
    "merge_into": "merging",
    "plan_merge": "merging",
    "open_parents": "parents",
    "search": "api",
    "soup": "api",
    # what they take and give
    "Diagnosis": "diagnosis",
    "Evaluator": "evaluation",
    "LiveModel": "merging",
    "Parents": "parents",
    "Recipe": "recipe",
    "Runtime": "runtime",
    "Scores": "scores",
    "SearchSpace": "space",
    "Suite": "tasks",
    "TaskId": "scores",
    "TrialRecord": "runs",
    "interval": "scores",
    "load_recipe": "recipe",
    "load_suite": "tasks",
    "merged_tensors": "merging",
    "paired_difference": "scores",
    "read_recipe": "recipe",
    "write_recipe": "recipe",
    # errors
    "CandidateError": "errors",
    "ExportMismatchError": "errors",
    "InputError": "errors",
    "MergesearchError": "errors",
    "RecipeError": "errors",
}

__all__ = [
    "CandidateError",
    "Diagnosis",
    "Evaluator",
    "ExportMismatchError",
    "InputError",
    "LiveModel",
    "MergesearchError",
    "Parents",
    "Recipe",
    "RecipeError",
    "Runtime",
    "Scores",
    "SearchSpace",
    "Suite",
    "TaskId",
    "TrialRecord",
    "compare",
    "evaluate",
    "export",
    "greedy_soup",
    "interval",
    "learn",
    "load_recipe",
    "load_suite",
    "merge",
    "merge_into",
    "merged_tensors",
    "open_parents",
    "paired_difference",
    "plan_merge",
    "read_recipe",
    "search",
    "soup",
    "write_recipe",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562): torch is slow to import."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
