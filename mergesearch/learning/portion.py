"""The part of a step that goes forward and backward at once, as memory allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mergesearch.requests import Generation, LogLikelihood, Request


@dataclass(frozen=True)
class Portion:
    """So many lessons, with or without their activations kept."""

    n_lessons: int = 1
    #: Activations are computed again in the backward pass, for less memory and more time.
    checkpointing: bool = False
    #: Bytes at its peak, beside the weights.
    n_bytes: int = 0

    def smaller(self) -> "Portion | None":
        """Give the next that takes less memory, of unknown size; None where there is none.

        Halves come first, and only of one lesson are activations computed again.
        """
        if self.n_lessons > 1:
            return Portion(-(-self.n_lessons // 2))
        return None if self.checkpointing else Portion(checkpointing=True)


def largest_portion(
    asked: Sequence[tuple[Request, ...]],
    batch: int,
    n_bytes: Callable[[Sequence[Request], bool], int],
    fits: Callable[[int], bool],
) -> Portion:
    """Find the largest portion of a step that memory holds.

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

    def measured(portion: Portion) -> Portion:
        requests = [request for of in longest[: portion.n_lessons] for request in of]
        return replace(portion, n_bytes=n_bytes(requests, portion.checkpointing))

    portion = measured(Portion(max(1, min(batch, len(asked)))))
    while not fits(portion.n_bytes) and (smaller := portion.smaller()):
        portion = measured(smaller)
    return portion


def _length(request: Request) -> int:
    match request:
        case LogLikelihood(context, continuation):
            return len(context) + len(continuation)
        case Generation(prompt):
            return len(prompt)
    return len(request.text)
