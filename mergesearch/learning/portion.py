"""The part of a step that goes forward and backward at once, as memory allows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mergesearch.requests import Generation, LogLikelihood, Request


@dataclass(frozen=True)
class Portion:
    """So many lessons, with or without their activations kept."""

    n_lessons: int = 1
    #: Activations are computed again in the backward pass, for less memory and more time.
    checkpointing: bool = False
    #: Bytes at its peak, beside the weights.
    n_bytes: int = 0


def largest_portion(
    asked: Sequence[tuple[Request, ...]],
    batch: int,
    n_bytes: Callable[[Sequence[Request], bool], int],
    fits: Callable[[int], bool],
) -> Portion:
    """Find the largest portion of a step that memory holds.

    Halves of the step come first, and only where one lesson does not fit are activations computed
    again.

    Args:
        asked: the requests of each lesson.
        batch: lessons of a step.
        n_bytes: gives the bytes of a forward and backward pass over requests, with checkpointing or
            without.
        fits: says if so many bytes can be had.

    Returns:
        The first that fits, and else the smallest there is.
    """
    longest = sorted(asked, key=lambda of: -sum(map(_length, of)))
    portion = Portion()
    for n_lessons, checkpointing in _sizes(min(batch, len(asked))):
        requests = [request for of in longest[:n_lessons] for request in of]
        portion = Portion(n_lessons, checkpointing, n_bytes(requests, checkpointing))
        if fits(portion.n_bytes):
            break
    return portion


def _sizes(batch: int) -> Iterator[tuple[int, bool]]:
    """List portions from the largest to the smallest: lessons, and checkpointing."""
    n = batch
    while n > 1:
        yield n, False
        n = -(-n // 2)
    yield 1, False
    yield 1, True


def _length(request: Request) -> int:
    match request:
        case LogLikelihood(context, continuation):
            return len(context) + len(continuation)
        case Generation(prompt):
            return len(prompt)
    return len(request.text)
