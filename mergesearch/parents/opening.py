"""Opening models for any number of merges."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.parents.parents import Parents
from mergesearch.parents.vocabulary import Policy
from mergesearch.recipe import ModelRef
from mergesearch.runtime import choose_device, merges_on

Model = str | Path | ModelRef


def open_parents(
    base: Model | None = None,
    parents: Mapping[str, Model] | None = None,
    *,
    device: str = "auto",
    memory_budget: int | None = None,
    vocabulary: Policy = "error",
    allow_mismatch: bool = False,
) -> Parents:
    """Open the models that recipes will name, once for any number of merges.

    Args:
        base: the models' common ancestor: a folder, a hub id, or `model+adapter`. Recipes may name
            it `base`.
        parents: the models by name. Recipes may name them so, or as they are named here.
        device: where merges run: "auto", "cpu" or "cuda".
        memory_budget: bytes that the process may hold at its peak; models that do not fit are
            streamed from their files. None leaves a fifth of what is available.
        vocabulary: where the models' tokens differ: "error", "base" or "union".
        allow_mismatch: merge models whose weights are of different functions, as with another
            number of heads.

    Raises:
        InputError: a model cannot be opened or does not fit the others, or the budget is too small
            even if every model is streamed.
    """
    named = dict(parents or {})
    if base is not None:
        named = {"base": base, **named}
    if not named:
        raise InputError("open_parents needs a base or at least one parent, got neither")
    refs = {name: _reference(model) for name, model in named.items()}
    return Parents(
        refs.values(),
        names=refs,
        vocabulary=vocabulary,
        base=refs.get("base"),
        device=merges_on(choose_device(device)),
        memory_budget=memory_budget,
        allow_mismatch=allow_mismatch,
    )


def _reference(model: Model) -> ModelRef:
    value: Any = str(model) if isinstance(model, Path) else model
    try:
        return ModelRef.model_validate(value).resolved(Path())
    except ValueError as error:
        raise InputError(f"not a model: {value!r}: {error}") from None
