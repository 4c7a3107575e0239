"""Scores in the format of lm-eval's result files, which its viewers and leaderboards read."""

from collections.abc import Sequence
from typing import Any

import lm_eval

from mergesearch.evaluation.scores import Scores
from mergesearch.evaluation.tasks import BuiltTask


def results_json(scores: Scores, tasks: Sequence[BuiltTask]) -> dict[str, Any]:
    """One candidate's scores as `lm_eval run` would write them.

    Args:
        scores: of the tasks, in their order.
        tasks: as built.

    Returns:
        A dictionary that `json.dumps` takes.
    """
    pairs = list(zip(scores.tasks, tasks, strict=True))
    return {
        "results": {
            score.task: {
                "alias": score.task,
                f"{score.metric},{score.filter}": score.value,
                f"{score.metric}_stderr,{score.filter}": "N/A"
                if score.stderr is None
                else score.stderr,
            }
            for score, _ in pairs
        },
        "n-samples": {
            score.task: {"original": task.n_available, "effective": len(score.doc_ids)}
            for score, task in pairs
        },
        "higher_is_better": {
            score.task: {score.metric: score.higher_is_better} for score, _ in pairs
        },
        "n-shot": {task.name: task.source.config.num_fewshot for _, task in pairs},
        "configs": {
            task.name: {
                "task": task.name,
                "output_type": task.source.config.output_type,
                "num_fewshot": task.source.config.num_fewshot,
            }
            for _, task in pairs
        },
        "versions": {task.name: task.source.VERSION for _, task in pairs},
        "lm_eval_version": lm_eval.__version__,
    }
