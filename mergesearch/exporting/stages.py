"""A merge of merges: results that others need are in memory where they fit."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.exporting.checkpoint import check_free, write_checkpoint
from mergesearch.files import folder_beside
from mergesearch.parents import HeldTensors, Parents, locate
from mergesearch.recipe import ModelPath, ModelRef, Recipe, Stage, references, write_stages


def write_result(
    stages: Sequence[Stage],
    out: Path,
    *,
    max_shard_bytes: int = 5 * 10**9,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> str:
    """Merge stages in order, and write the last one's result.

    The others' weights are in memory while a later one needs them. What stands beside them lies in
    a hidden folder beside the result, as do weights that are too large for the memory budget.

    Args:
        stages: each after those that it needs; see `load_stages`.
        out: the folder to make; it must not exist, or be empty.
        max_shard_bytes: the largest size of one weight file.
        say: is told what `write_checkpoint` says, by stage.
        options: further ones of `Parents`.

    Returns:
        The hash of the result's tensors.

    Raises:
        InputError: as `write_checkpoint`; nothing is merged unless all models are found.
        CandidateError: a merged value is NaN or infinite.
    """
    check_free(out)
    models = _models(stages)
    for part in {part for ref in models for part in (ref.model, ref.lora) if part is not None}:
        locate(part)
    try:
        with folder_beside(out) as folder:
            places = {i: folder / str(i) for i in range(len(stages) - 1)} | {len(stages) - 1: out}
            held: dict[ModelPath, HeldTensors] = {}
            written: list[Stage] = []
            digest = ""
            for i, stage in enumerate(stages):
                said = None if say is None else _by_name(say, stage)

                def text_of(recipe: Recipe, at: Path, stage: Stage = stage) -> str:
                    named = recipe.with_paths(lambda ref: _named(ref, stages, places))
                    written.append(Stage(stage.name, named))
                    return write_stages(written, at)

                recipe = stage.recipe.with_paths(lambda ref: _placed(ref, stages, places))
                tensors = HeldTensors() if i < len(stages) - 1 else None
                digest = write_checkpoint(
                    recipe,
                    places[i],
                    parents=Parents.of(recipe, keep=False, held=held, **options),
                    max_shard_bytes=max_shard_bytes,
                    say=said,
                    text_of=text_of,
                    models=models,
                    held=tensors,
                )
                if tensors is not None and tensors.entries:
                    held[_path(places[i])] = tensors
                for done in range(i):
                    if not any(stages[done].makes(r) for s in stages[i + 1 :] for r in _all(s)):
                        held.pop(_path(places[done]), None)
                        shutil.rmtree(places[done], ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    return digest


def _all(stage: Stage) -> tuple[ModelRef, ...]:
    return references(stage.recipe)


def _models(stages: Sequence[Stage]) -> tuple[ModelRef, ...]:
    """List the models that are there before anything is merged, each once."""
    refs = dict.fromkeys(ref for stage in stages for ref in stage.recipe.models)
    return tuple(ref for ref in refs if not any(stage.makes(ref) for stage in stages))


def _path(folder: Path) -> ModelPath:
    return ModelPath(path=str(folder.absolute()))


def _placed(ref: ModelRef, stages: Sequence[Stage], places: dict[int, Path]) -> ModelRef:
    """Point a stage's name to its folder."""
    for i, stage in enumerate(stages):
        if stage.makes(ref):
            return ref.model_copy(update={"model": _path(places[i])})
    return ref


def _named(ref: ModelRef, stages: Sequence[Stage], places: dict[int, Path]) -> ModelRef:
    """Call a stage's folder by its name again."""
    for i, stage in enumerate(stages):
        if ref.model == _path(places[i]) and stage.name is not None:
            return ref.model_copy(update={"model": ModelPath(path=stage.name)})
    return ref


def _by_name(say: Callable[[str], None], stage: Stage) -> Callable[[str], None]:
    return lambda note: say(f"{stage}: {note}")
