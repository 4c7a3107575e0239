"""Grading: from the responses of a document to its value and its margin."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from mergesearch.errors import CandidateError
from mergesearch.requests import Written
from mergesearch.scores import DocumentScore

if TYPE_CHECKING:
    from torch import Tensor

_Number = TypeVar("_Number", float, "Tensor")

#: The metric that takes off each choice's log-likelihood without a prompt.
MUTUAL_INFORMATION = "acc_mutual_info"
#: How a metric divides a choice's log-likelihood, beside its text.
_LENGTHS = {"acc_norm": len, "acc_bytes": lambda choice: len(choice.encode())}


def grade(
    source: Task, metric: str, filter_name: str, document: Sequence[Instance]
) -> DocumentScore:
    """Grade a document by the filtered responses that its instances hold.

    Raises:
        CandidateError: a value is NaN or infinite.
    """
    responses = [instance.filtered_resps[filter_name] for instance in document]
    metrics = source.process_results(document[0].doc, responses)
    value = _jsonable(metrics.get(metric))
    if isinstance(value, bool | int):
        value = float(value)
    if not _finite(value):
        raise CandidateError(f"document {document[0].doc_id}: {metric} is {value}")
    margin = _margin(source, metric, document, responses)
    # as many digits as a store keeps, so that a score is the same fresh and read back
    margin = None if margin is None else float(f"{margin:.6g}")
    return DocumentScore(value, margin, _cut(document))


def _cut(document: Sequence[Instance]) -> float | None:
    """Compute a `DocumentScore.cut`."""
    cut = [text.cut for of in document for text in of.resps if isinstance(text, Written)]
    return sum(cut) / len(cut) if cut else None


def _margin(
    source: Task, metric: str, document: Sequence[Instance], responses: Sequence[Any]
) -> float | None:
    """Compute a `DocumentScore.margin`."""
    if any(instance.request_type != "loglikelihood" for instance in document):
        return None
    logprobs = [float(response[0]) for response in responses if isinstance(response, tuple)]
    if source.OUTPUT_TYPE == "loglikelihood" and len(logprobs) == 1:
        return logprobs[0]
    if source.OUTPUT_TYPE != "multiple_choice" or source.config.doc_to_choice is None:
        return None
    doc = document[0].doc
    choices = source.doc_to_choice(doc)
    gold = right_choices(source, doc, choices)
    if not gold or len(gold) == len(choices) or len(logprobs) < len(choices):
        return None
    scores = choice_scores(metric, choices, logprobs)
    best = [
        max((s for i, s in enumerate(scores) if (i in gold) is right)) for right in (True, False)
    ]
    return best[0] - best[1]


def choice_scores(
    metric: str, choices: Sequence[str], logprobs: "Sequence[_Number]"
) -> "list[_Number]":
    """Compute what a metric compares choices by.

    Args:
        metric: may divide log-likelihoods by lengths, or take off those without a prompt.
        choices: of a document.
        logprobs: numbers or tensors, of the choices, and behind them of the same without a prompt
            where a metric of the task looks at them.
    """
    if metric == MUTUAL_INFORMATION:
        alone = logprobs[len(choices) :]
        return [ours - without for ours, without in zip(logprobs, alone, strict=False)]
    length = _LENGTHS.get(metric, lambda choice: 1)
    return [
        logprob / max(length(choice), 1) for logprob, choice in zip(logprobs, choices, strict=False)
    ]


def right_choices(source: Task, doc: Any, choices: Sequence[str]) -> set[int]:
    """Find the indices of the right choices: tasks give an index, a text, or several."""
    target = source.doc_to_text(doc) if source.multiple_input else source.doc_to_target(doc)
    many = target if isinstance(target, list | tuple) else [target]
    indices = (choices.index(g) if isinstance(g, str) and g in choices else g for g in many)
    return {int(g) for g in indices if isinstance(g, int | np.integer) and 0 <= g < len(choices)}


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    return [_jsonable(item) for item in value] if isinstance(value, list | tuple) else value


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)
