"""Lessons: documents whose loss coefficients are learned from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from mergesearch.engines import DifferentiableEngine, Predictions
from mergesearch.errors import CandidateError
from mergesearch.requests import Generation, Likelihood, LogLikelihood, Request

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask

#: Behind these a word begins without a space.
_OPENING = tuple("([{<\"'/-_")


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
    """Compute the losses of lessons by the engine's model, with gradients.

    Args:
        engine: with a model loaded.
        lessons: in any order.
        checkpointing: compute activations again in the backward pass, for less memory.

    Returns:
        In nats, (lessons,).
    """
    found: dict[int, Tensor] = {}
    by_likelihood = [i for i, lesson in enumerate(lessons) if lesson.loss is not None]
    if by_likelihood:
        members = [lessons[i] for i in by_likelihood]
        nll = engine.loss(_requests(members), checkpointing=checkpointing)
        for i, lesson, part in zip(by_likelihood, members, _parts(nll, members), strict=True):
            assert lesson.loss is not None
            found[i] = lesson.loss(part)
    if others := [i for i in range(len(lessons)) if i not in found]:
        members = [lessons[i] for i in others]
        references = [reference for lesson in members for reference in lesson.references]
        apart = engine.divergence(_requests(members), references, checkpointing=checkpointing)
        found |= {i: part.mean() for i, part in zip(others, _parts(apart, members), strict=True)}
    return torch.stack([found[i] for i in range(len(lessons))])


def labelled(task: "BuiltTask", doc_ids: Sequence[int]) -> list[Lesson]:
    """Make lessons of a task's own right answers."""
    return [
        Lesson(
            task.id.task,
            task.weight / len(doc_ids),
            task.labelled_requests(i),
            partial(task.labelled_loss, i),
        )
        for i in doc_ids
    ]


def imitated(
    engine: DifferentiableEngine, task: "BuiltTask", doc_ids: Sequence[int]
) -> list[Lesson]:
    """Make lessons of what the model that the engine holds says on a task's documents.

    Of choices, which it takes how surely; else its predictions, along its own text where the task
    generates.
    """
    asked = [task.imitation_requests(i) for i in doc_ids]
    if not task.has_choices:
        return with_references(engine, task.id.task, task.weight, asked)
    responses = iter(engine.answer([request for of in asked for request in of]))
    weight = task.weight / len(doc_ids)
    lessons = []
    for i, of in zip(doc_ids, asked, strict=True):
        likelihoods = [cast("Likelihood", next(responses))[0] for _ in of]
        theirs = -torch.tensor(likelihoods, dtype=torch.float64)
        lessons.append(Lesson(task.id.task, weight, of, partial(_apart, task, i, theirs)))
    return lessons


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
    """Ask a model for its predictions, where it generates along its own text.

    Raises:
        CandidateError: it writes nothing behind any of the prompts.
    """
    requests = _written(engine, asked)
    if not requests:
        raise CandidateError(
            f"nothing is written behind the prompts of {name} that can be imitated"
        )
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


def _apart(task: "BuiltTask", doc_id: int, theirs: Tensor, nll: Tensor) -> Tensor:
    return task.imitation_loss(doc_id, nll, theirs)


def _requests(lessons: Sequence[Lesson]) -> list[Request]:
    return [request for lesson in lessons for request in lesson.requests]


def _parts(values: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, ...]:
    """Cut values of requests by lesson."""
    return values.split([len(lesson.requests) for lesson in lessons])


def _written(
    engine: DifferentiableEngine, asked: Sequence[tuple[Request, ...]]
) -> list[tuple[Request, ...]]:
    """Put the text that the model writes in the place of each request to write.

    Where it writes nothing there is nothing to imitate, and the lesson is left out.
    """
    prompts = [r for of in asked for r in of if isinstance(r, Generation)]
    texts = iter(engine.answer(prompts)) if prompts else iter(())
    written = (
        tuple(
            LogLikelihood(r.prompt, _behind(r.prompt, str(next(texts))))
            if isinstance(r, Generation)
            else r
            for r in of
        )
        for of in asked
    )
    return [of for of in written if not any(_is_empty(request) for request in of)]


def _behind(prompt: str, text: str) -> str:
    """Join a text to the prompt that it was written behind.

    Tokenizers that keep the space before a word in its token drop it from the start of a text.
    """
    begins_a_word = text[:1].isalnum() and not prompt[-1:].isspace()
    return f" {text}" if begins_a_word and prompt[-1:] not in _OPENING else text


def _is_empty(request: Request) -> bool:
    return isinstance(request, LogLikelihood) and not request.continuation.strip()
