"""The count of the tensors that go into a merge and come out of it."""

from collections.abc import Sequence

from mergesearch.exporting.card import model_name
from mergesearch.merging import Plan
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef

#: How many names a line has; the card has all.
_SHOWN = 3
_WHY = "not written, since transformers ties, computes or does not load"


def tally(plan: Plan, parents: Parents, models: Sequence[ModelRef]) -> str:
    """Count tensors in a line: what each model has, and what is written."""
    counts = {ref: _count(parents, ref) for ref in models}
    if len(set(counts.values())) == 1:
        n = counts[models[0]]
        said = f"{n} in {model_name(models[0]) if len(counts) == 1 else 'each model'}"
    elif len(counts) > _SHOWN:
        said = f"{min(counts.values())} to {max(counts.values())} in {len(counts)} models"
    else:
        said = ", ".join(f"{n} in {model_name(ref)}" for ref, n in counts.items())
    left = f", {len(plan.left_out)} not" if plan.left_out else ""
    return f"tensors: {said}; {len(plan.jobs) + len(plan.buffers)} written{left}"


def left_out(plan: Plan) -> tuple[str, ...]:
    """Say in a line which tensors of the models are not written; none where all are."""
    if not plan.left_out:
        return ()
    names, more = plan.left_out[:_SHOWN], len(plan.left_out) - _SHOWN
    what = ", ".join(names) + (f" and {more} more, which the card names" if more > 0 else "")
    return (f"{len(plan.jobs)} tensors; {_WHY}: {what}",)


def tensors_section(plan: Plan, parents: Parents, models: Sequence[ModelRef]) -> str:
    """Write a card's section of tensors: the count, and every one that is not written."""
    line = tally(plan, parents, models)
    text = f"\n## Tensors\n\n{line[0].upper()}{line[1:]}.\n"
    if plan.left_out:
        names = "\n".join(plan.left_out)
        text += f"\n{_WHY[0].upper()}{_WHY[1:]}:\n\n```text\n{names}\n```\n"
    return text


def _count(parents: Parents, ref: ModelRef) -> int:
    checkpoint = parents.checkpoint(parents.resolve(ref))
    return len(checkpoint.specs) + len(checkpoint.buffers)
