"""A document in words: its prompt, the right answer, and a model's."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.task import Task

from mergesearch.requests import Generation, LogLikelihood, Request, Response
from mergesearch.tasks.grading import choice_scores, right_choices
from mergesearch.tasks.losses import reference_of

#: Characters of a text that are kept: of a prompt its end, of an answer its beginning.
_MOST = 2_000


def prompt_of(requests: Sequence[Request]) -> str:
    """Give the text that the first request of a document begins with."""
    match requests[0]:
        case Generation(prompt):
            text = prompt
        case LogLikelihood(context, _):
            text = context
        case rolling:
            return _beginning(rolling.text)
    return text if len(text) <= _MOST else "… " + text[-_MOST:]


def right_of(source: Task, doc: Any) -> str | None:
    """Write a document's right answer; None where the task names none."""
    choices = choices_of(source, doc)
    if choices is None:
        reference = reference_of(source, doc)
        return None if reference is None else _beginning(reference)
    right = sorted(right_choices(source, doc, choices))
    return " or ".join(str(choices[i]) for i in right) or None


def answer_of(
    source: Task, metric: str, doc: Any, requests: Sequence[Request], responses: Sequence[Response]
) -> str:
    """Write a model's answer: its choice, its text, or how likely it found the text.

    Args:
        source: the task.
        metric: compares the choices, as in its grading.
        doc: the document.
        requests: all that its grading needs.
        responses: to each of them.
    """
    choices = choices_of(source, doc)
    if choices is not None and len(responses) >= len(choices):
        logprobs = [response[0] if isinstance(response, tuple) else 0.0 for response in responses]
        scores = choice_scores(metric, choices, logprobs)
        return str(choices[scores.index(max(scores))])
    match requests[0], responses[0]:
        case Generation(), text:
            return _beginning(str(text))
        case _, (float(nats), _) | float(nats):
            return f"log-likelihood {nats:.2f} nats"
    raise ValueError(f"no answer to a {requests[0].kind}: {responses[0]!r}")


def choices_of(source: Task, doc: Any) -> Sequence[str] | None:
    """List the choices of a document; None where it has none."""
    if source.OUTPUT_TYPE != "multiple_choice" or source.config.doc_to_choice is None:
        return None
    return source.doc_to_choice(doc)


def _beginning(text: str) -> str:
    return text if len(text) <= _MOST else text[:_MOST] + " …"
