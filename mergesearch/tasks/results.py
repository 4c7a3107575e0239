"""Scores in the format of lm-eval's result files, which its viewers read."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lm_eval
import numpy as np
import transformers
from lm_eval.api.group import Group
from lm_eval.evaluator_utils import EvalAcc, aggregate_groups
from lm_eval.loggers.utils import get_commit_from_path
from lm_eval.utils import handle_non_serializable, hash_string, sanitize_model_name

from mergesearch.logs import quiet
from mergesearch.scores import Scores, TaskScore
from mergesearch.scores.aggregation import aggregation_function
from mergesearch.tasks.built import BuiltTask
from mergesearch.tasks.metrics import filters_of
from mergesearch.tasks.prompts import FEWSHOT_SEED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Resamples for the standard error of those aggregations that lm-eval bootstraps as well; fewer of
#: those that go through texts, as in lm-eval.
_RESAMPLES = dict.fromkeys(("f1", "matthews_corrcoef", "median", "nanmean", "perplexity"), 1000)
_RESAMPLES |= dict.fromkeys(("bleu", "chrf", "chrf++", "ter"), 100)


def results_json(scores: Scores, tasks: Sequence[BuiltTask]) -> dict[str, Any]:
    """Give one candidate's scores, and the groups', as `lm_eval.evaluate` does.

    Only the metric that the suite names is there of each task.

    Args:
        scores: of the tasks, in their order.
        tasks: as built.

    Returns:
        A dictionary that `json.dumps` takes.
    """
    collected = EvalAcc(groups=groups_of(tasks))
    for score, task in zip(scores.tasks, tasks, strict=True):
        config = task.source.dump_config()
        collected.metrics[task.id.task] = {
            "name": task.id.task,
            "alias": config.get("task_alias", task.id.task),
            "sample_len": len(score.doc_ids),
            f"{score.id.metric},{score.id.filter}": score.value,
            f"{score.id.metric}_stderr,{score.id.filter}": _stderr(score),
        }
        collected.configs[task.id.task] = config
        collected.versions[task.id.task] = task.source.VERSION
        collected.num_fewshot[task.id.task] = config.get("num_fewshot", 0)
        collected.higher_is_better[task.id.task] = task.source.higher_is_better()
        collected.n_samples[task.id.task] = {
            "original": task.n_available,
            "effective": len(score.doc_ids),
        }
    with quiet():  # of a group's other metrics, it says that they are missing
        results = aggregate_groups(collected)._to_eval_results()
    results["task_hashes"] = {
        task.id.task: _documents_hash(task, score.doc_ids)
        for score, task in zip(scores.tasks, tasks, strict=True)
    }
    return _plain(results)


def groups_of(tasks: Sequence[BuiltTask]) -> dict[str, Group]:
    """Collect the groups that some tasks belong to, subgroups among them, by name."""
    families = {task.family.name: task.family for task in tasks if task.family}
    return {
        group.name: group
        for family in families.values()
        for group in (family, *family.get_all_groups())
    }


@dataclass(frozen=True)
class Provenance:
    """The part of a result file beside the scores; the run begins when it is made."""

    #: As the user named it.
    model: str
    #: Rows a forward pass; None where their tokens decided.
    batch_size: int | None
    #: Seconds since 1970.
    began: float = field(default_factory=time.time)

    def json(
        self,
        described: Mapping[str, Any],
        tokenizer: "PreTrainedTokenizerBase",
        tasks: Sequence[BuiltTask],
    ) -> dict[str, Any]:
        """Give what `lm_eval run --output_path` writes, with an end of now.

        `pretty_env_info` is left out, which takes seconds to collect.

        Args:
            described: the model and its tokenizer, by lm-eval's names; see `Engine.describe`.
            tokenizer: of the model.
            tasks: as built.
        """
        ended = time.time()
        limits = {task.id.task: task.spec.limit for task in tasks}
        chats = [task.spec for task in tasks if task.spec.apply_chat_template]
        template = str(tokenizer.chat_template) if chats else None
        facts = {
            **described,
            "config": {
                "model": "mergesearch",  # which `mergesearch lm-eval` knows
                "model_args": {"recipe": self.model},
                **described["config"],
                "batch_size": self.batch_size,
                "batch_sizes": [],
                "use_cache": None,
                # one number, as lm-eval has it, where the tasks share it
                "limit": limits if len(set(limits.values())) > 1 else tasks[0].spec.limit,
                "bootstrap_iters": max(_RESAMPLES.values()),
                "gen_kwargs": {},
                "random_seed": None,
                "numpy_seed": None,
                "torch_seed": FEWSHOT_SEED,  # as torch's engine takes it
                "fewshot_seed": FEWSHOT_SEED,
            },
            "git_hash": _git_hash(),
            "date": self.began,
            "transformers_version": transformers.__version__,
            "lm_eval_version": lm_eval.__version__,
            "upper_git_hash": get_commit_from_path(".."),
            "model_source": "mergesearch",
            "model_name": self.model,
            "model_name_sanitized": sanitize_model_name(self.model),
            "system_instruction": None,
            "system_instruction_sha": None,
            "fewshot_as_multiturn": all(s.fewshot_as_multiturn for s in chats) if chats else None,
            "chat_template": template,
            "chat_template_sha": hash_string(template) if template else None,
            "start_time": self.began,
            "end_time": ended,
            "total_evaluation_time_seconds": str(ended - self.began),
        }
        return _plain(facts)


def _git_hash() -> str | None:
    """Describe the repository of the working folder, if it is one, in silence."""
    try:
        ran = subprocess.run(["git", "describe", "--always"], capture_output=True, text=True)
    except FileNotFoundError:
        return get_commit_from_path(".")
    return ran.stdout.strip() or None


def _stderr(score: TaskScore) -> float | str:
    """Compute a standard error as lm-eval does, where it has one."""
    if score.stderr is not None:
        return score.stderr
    values = [value for value in score.values if value is not None]
    if score.id.aggregation not in _RESAMPLES or len(values) < 2:
        return "N/A"
    aggregate, n = aggregation_function(score.id.aggregation), len(values)
    generator = np.random.default_rng(0)
    resampled = [
        aggregate([values[i] for i in generator.integers(n, size=n)])
        for _ in range(_RESAMPLES[score.id.aggregation])
    ]
    return float(np.std(resampled, ddof=1))


def _documents_hash(task: BuiltTask, doc_ids: Sequence[int]) -> str:
    """Hash the documents, prompts and targets that were scored, as lm-eval does."""
    hashes = []
    for i in doc_ids:
        request = task.documents[i][0]
        doc = json.dumps(request.doc, indent=2, default=handle_non_serializable, ensure_ascii=False)
        target = str(task.source.doc_to_target(request.doc))
        hashes += [hash_string(text) for text in (doc, request.arguments[0], target)]
    return hash_string("".join(hashes) * len(filters_of(task.source)))


def _plain(results: Any) -> dict[str, Any]:
    """Turn results into the types of JSON."""
    return json.loads(json.dumps(results, default=handle_non_serializable))
