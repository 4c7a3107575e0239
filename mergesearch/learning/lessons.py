"""Lessons: documents whose loss coefficients are learned from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mergesearch.engines import DifferentiableEngine, Predictions
from mergesearch.requests import Generation, LogLikelihood, Request

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask


@dataclass(frozen=True)
class Lesson:
    """One document, and its loss."""

    #: The name of its task.
    task: str
    #: What its loss counts in the mean of a step.
    weight: float
    requests: tuple[Request, ...]
    #: The loss from the negative log-likelihoods (nats) of the requests, (requests,), to (); None
    #: where it is a divergence from `references`.
    loss: Callable[[Tensor], Tensor] | None = None
    #: What a parent predicts, for each request.
    references: tuple[Predictions, ...] = field(default=(), repr=False)


def losses(
    engine: DifferentiableEngine, lessons: Sequence[Lesson], *, checkpointing: bool = False
) -> Tensor:
    """Compute the losses of lessons by the model that the engine holds, with gradients.

    Args:
        engine: with a model loaded.
        lessons: all labelled, or all of references.
        checkpointing: compute activations again in the backward pass, for less memory.

    Returns:
        In nats, (lessons,).
    """
    requests = [request for lesson in lessons for request in lesson.requests]
    if lessons[0].loss is None:
        references = [reference for lesson in lessons for reference in lesson.references]
        values = engine.divergence(requests, references, checkpointing=checkpointing)
    else:
        values = engine.loss(requests, checkpointing=checkpointing)
    parts = values.split([len(lesson.requests) for lesson in lessons])
    return torch.stack(
        [
            part.mean() if lesson.loss is None else lesson.loss(part)
            for lesson, part in zip(lessons, parts, strict=True)
        ]
    )


def labelled(task: "BuiltTask", doc_ids: Sequence[int]) -> list[Lesson]:
    """Make lessons of a task's own right answers."""
    return [
        Lesson(
            task.id.task,
            task.weight / len(doc_ids),
            task.labelled_requests(i),
            _loss_of(task, i),
        )
        for i in doc_ids
    ]


def imitated(
    engine: DifferentiableEngine, task: "BuiltTask", doc_ids: Sequence[int]
) -> list[Lesson]:
    """Make lessons of what the model that the engine holds predicts on a task's prompts."""
    asked = [task.imitation_requests(i) for i in doc_ids]
    return with_references(engine, task.id.task, task.weight, asked)


def prompted(
    engine: DifferentiableEngine, name: str, prompts: Sequence[str], n_tokens: int
) -> list[Lesson]:
    """Make lessons of what the model that the engine holds writes behind prompts.

    Args:
        engine: with the model loaded.
        name: of the lessons' task.
        prompts: plain texts.
        n_tokens: that are written behind each, at most.
    """
    options = {"until": [], "max_gen_toks": n_tokens, "do_sample": False}
    asked = [(Generation(prompt, options),) for prompt in prompts]
    return with_references(engine, name, 1.0, asked)


def with_references(
    engine: DifferentiableEngine,
    name: str,
    weight: float,
    asked: Sequence[tuple[Request, ...]],
) -> list[Lesson]:
    """Ask a model for its predictions, where it generates along its own text."""
    requests = _written(engine, asked)
    found = iter(engine.predictions([request for of in requests for request in of]))
    return [
        Lesson(name, weight / len(requests), of, references=tuple(next(found) for _ in of))
        for of in requests
    ]


def interleaved(lessons: Iterable[Lesson], generator: torch.Generator) -> list[Lesson]:
    """Shuffle lessons so that each beginning has its share of each task."""
    by_task: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        by_task.setdefault(lesson.task, []).append(lesson)
    placed: list[tuple[float, int, Lesson]] = []
    for k, of in enumerate(by_task.values()):
        order = torch.randperm(len(of), generator=generator).tolist()
        jitter = torch.rand(len(of), generator=generator).tolist()
        placed += [((i + jitter[i]) / len(of), k, of[j]) for i, j in enumerate(order)]
    return [lesson for *_, lesson in sorted(placed, key=lambda item: item[:2])]


def mean_by_task(lessons: Sequence[Lesson], values: Sequence[float]) -> Mapping[str, float]:
    """Average losses by task."""
    sums: dict[str, list[float]] = {}
    for lesson, value in zip(lessons, values, strict=True):
        sums.setdefault(lesson.task, []).append(value)
    return {name: sum(of) / len(of) for name, of in sums.items()}


def _loss_of(task: "BuiltTask", doc_id: int) -> Callable[[Tensor], Tensor]:
    return lambda nll: task.labelled_loss(doc_id, nll)


def _written(
    engine: DifferentiableEngine, asked: Sequence[tuple[Request, ...]]
) -> list[tuple[Request, ...]]:
    """Put the text that the model writes in the place of each request to write."""
    prompts = [r for of in asked for r in of if isinstance(r, Generation)]
    texts = iter(engine.answer(prompts)) if prompts else iter(())
    return [
        tuple(
            # an empty answer is its end, which no text says: a space stands for what comes next
            LogLikelihood(r.prompt, str(next(texts)) or " ") if isinstance(r, Generation) else r
            for r in of
        )
        for of in asked
    ]
