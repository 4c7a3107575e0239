"""Requests of lm-eval's instances, and copies of these that hold the responses."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import islice
from typing import Any

from lm_eval.api.instance import Instance

from mergesearch.requests import (
    Generation,
    LogLikelihood,
    Request,
    Response,
    RollingLogLikelihood,
)


def requests_of(instance: Instance) -> tuple[Request, ...]:
    """Give the requests of an instance: one, or each repetition of one that generates."""
    arguments: tuple[Any, ...] = instance.args
    match instance.request_type:
        case "loglikelihood":
            return (LogLikelihood(*arguments),)
        case "loglikelihood_rolling":
            return (RollingLogLikelihood(*arguments),)
        case "generate_until":
            return (Generation(*arguments),) * instance.repeats
    raise ValueError(f"lm-eval has no such request: {instance.request_type!r}")


def answered(
    documents: Iterable[Sequence[Instance]], responses: Iterable[Response]
) -> list[list[Instance]]:
    """Copy documents' instances with their responses, each log-likelihood repeated.

    Args:
        documents: the instances of each.
        responses: to their requests, in order.

    Raises:
        ValueError: there are fewer responses than requests, or more.
    """
    remaining = iter(responses)
    copies = [[_answered(instance, remaining) for instance in of] for of in documents]
    if next(remaining, None) is not None:
        raise ValueError("there are more responses than requests")
    return copies


def _answered(instance: Instance, responses: Iterator[Response]) -> Instance:
    generates = instance.request_type == "generate_until"
    n = instance.repeats if generates else 1
    replies = list(islice(responses, n))
    if len(replies) < n:
        raise ValueError("there are fewer responses than requests")
    own = copy(instance)
    own.resps = replies if generates else replies * instance.repeats
    own.filtered_resps = {}
    return own
