"""A merge of merges: only the last one's checkpoint stays."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.exporting.checkpoint import check_free, write_checkpoint
from mergesearch.files import folder_beside
from mergesearch.parents import locate
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

    The others' lie in a hidden folder beside it while a later one needs them.

    Args:
        stages: each after those that it needs; see `load_stages`.
        out: the folder to make; it must not exist, or be empty.
        max_shard_bytes: the largest size of one weight file.
        say: is told what `write_checkpoint` says, by stage.
        options: further ones of `write_checkpoint`.

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
            written: list[Stage] = []
            digest = ""
            for i, stage in enumerate(stages):
                said = None if say is None else _by_name(say, stage)

                def text_of(recipe: Recipe, at: Path, stage: Stage = stage) -> str:
                    named = recipe.with_paths(lambda ref: _named(ref, stages, places))
                    written.append(Stage(stage.name, named))
                    return write_stages(written, at)

                digest = write_checkpoint(
                    stage.recipe.with_paths(lambda ref: _placed(ref, stages, places)),
                    places[i],
                    max_shard_bytes=max_shard_bytes,
                    say=said,
                    text_of=text_of,
                    models=models,
                    **options,
                )
                for done in range(i):
                    if not any(stages[done].makes(r) for s in stages[i + 1 :] for r in _all(s)):
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


def _placed(ref: ModelRef, stages: Sequence[Stage], places: dict[int, Path]) -> ModelRef:
    """Point a stage's name to its checkpoint."""
    for i, stage in enumerate(stages):
        if stage.makes(ref):
            return ref.model_copy(update={"model": ModelPath(path=str(places[i].absolute()))})
    return ref


def _named(ref: ModelRef, stages: Sequence[Stage], places: dict[int, Path]) -> ModelRef:
    """Call a stage's checkpoint by its name again."""
    for i, stage in enumerate(stages):
        if ref.model.path == str(places[i].absolute()) and stage.name is not None:
            return ref.model_copy(update={"model": ModelPath(path=stage.name)})
    return ref


def _by_name(say: Callable[[str], None], stage: Stage) -> Callable[[str], None]:
    return lambda note: say(f"{stage}: {note}")
