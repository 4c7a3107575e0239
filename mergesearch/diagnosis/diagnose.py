"""The diagnosis of a space: its parents opened, compared, and advised on."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mergesearch.diagnosis.advice import advise
from mergesearch.diagnosis.model import Diagnosis
from mergesearch.errors import InputError

if TYPE_CHECKING:
    from mergesearch.runtime import Runtime
    from mergesearch.scores import Scores
    from mergesearch.space import Granularity, SearchSpace

#: Into how many blocks tables part the layers, where the space has none.
_BLOCKS = 3


def check_comparable(space: "SearchSpace", *, scored: bool) -> None:
    """Refuse a space of which there is nothing to compare.

    Args:
        space: names the models, and perhaps a suite.
        scored: the parents are to be scored.

    Raises:
        InputError: there is no suite to score them on, or nothing else and no base.
    """
    if scored and space.suite is None:
        raise InputError(
            "with --out the parents are scored, and the space names no suite; add suite: "
            "FILE.yaml, or leave --out out, which compares the weights alone"
        )
    if not scored and space.base is None:
        raise InputError(
            "deltas are from a base, and the space names none; name the parents' common "
            "ancestor, or give --out RUN to compare what the parents answer"
        )


def diagnose(
    space: "SearchSpace",
    runtime: "Runtime",
    say: Callable[[str], None],
    scores: "Mapping[str, Scores] | None" = None,
    *,
    weights: bool = True,
) -> Diagnosis:
    """Compare a space's parents, and say what follows.

    Args:
        space: names the base and the parents; without a base the weights are left out, since
            deltas are from a base.
        runtime: where weights are compared, and in how much memory.
        say: is told how far it has come.
        scores: of the base and of each parent by name, on the same documents, if they have any.
        weights: compare them, too, which takes its time where models are large.

    Raises:
        InputError: a model cannot be opened, or is no relative of the others.
        RecipeError: the models have other tensors, or other shapes.
        CandidateError: a model has NaN or infinite entries.
    """
    from mergesearch.diagnosis.weights import compare_weights
    from mergesearch.parents import Parents

    parents = Parents(
        space.models,
        vocabulary=space.tokenizer_source or "error",
        base=space.base,
        device=runtime.merge_device,
        keep=False,
        memory_budget=runtime.memory_budget,
        allow_mismatch=runtime.allow_mismatch,
    )
    parts = compare_weights(space, parents, say) if weights and space.base is not None else ()
    n_layers = 1 + max((part.layer for part in parts if part.layer is not None), default=-1)
    found = Diagnosis(
        parents=tuple(space.parents),
        n_layers=n_layers,
        blocks=_blocks(n_layers, space.granularity),
        parts=parts,
        differences=(*parents.alignment.notes, *map(str, parents.differences)),
    )
    return with_answers(found, scores)


def with_answers(known: Diagnosis, scores: "Mapping[str, Scores] | None") -> Diagnosis:
    """Bring a diagnosis up to date in its answers, and in its advice.

    Args:
        known: whose weights and settings are those of the same models.
        scores: as for `diagnose`; without any there are no answers.
    """
    from mergesearch.diagnosis.answers import compare_answers

    found = known.model_copy(update={"answers": compare_answers(scores) if scores else ()})
    return found.model_copy(update={"advice": advise(found)})


def _blocks(n_layers: int, granularity: "Granularity") -> tuple[tuple[int, int], ...]:
    from mergesearch.space import Granularity, boundaries

    if not n_layers:
        return ()
    if granularity.blocks == 1 and granularity.layers_per_block is None:
        granularity = Granularity(blocks=min(_BLOCKS, n_layers))
    return tuple(boundaries(n_layers, granularity))
