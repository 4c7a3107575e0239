"""From a run to its best candidates, in any of the formats."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergesearch.errors import InputError
from mergesearch.exporting.evaluations import RESULTS_FOLDER, metadata_of, result_files
from mergesearch.exporting.formats import CHECKPOINT, export_format
from mergesearch.exporting.selected import ExportOptions, Selected
from mergesearch.recipe import ModelRef
from mergesearch.runs import Record, identity_of

if TYPE_CHECKING:
    from mergesearch.report import Entry


def export(
    run: Path,
    out: Path | None = None,
    *,
    top: int = 1,
    trial: int | None = None,
    front: bool = False,
    form: str = CHECKPOINT,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> list[Path]:
    """Write the best candidates of a run in one of the formats of `EXPORTS`.

    Whatever the format, what is written is checked by the hash of the tensors that were scored.

    Args:
        run: the run's folder.
        out: where the results go; None is `export` in the run's folder.
        top: how many, from the best down.
        trial: the number of one trial to export instead.
        front: export each model of the front instead, the winner first.
        form: "safetensors" (a checkpoint), "gguf", "lora", or a package's.
        say: is told what a format has to say of each.
        options: fields of `ExportOptions`: max_shard_bytes, outtype, rank.

    Returns:
        The folders written: `top-1`, `top-2`…, `trial-N` or `front-1`, `front-2`…; of other formats
        than checkpoints with their name, as `top-1-gguf`.

    Raises:
        InputError: no such run, trial, front or format, a folder is taken, a model is gone, the
            device is full, or the format has no place for such a model.
        ExportMismatchError: a rebuilt model differs from the one that was scored.
    """
    from mergesearch.report import entries_of, front_of, markdown  # tables, which no merge needs

    written = export_format(form)
    base = _base(run)
    record = Record(run, writable=False)
    if front:
        wanted = [(f"front-{i}", e.recipe.hash) for i, e in enumerate(front_of(run), start=1)]
    elif trial is not None:
        wanted = _one_trial(run, record, trial)
    else:
        wanted = best_of(run, record, top)
    # a card says by itself in what its own models differ
    entries = [replace(entry, differences=()) for entry in entries_of(run)]
    scores = markdown(entries)
    folders = []
    for name, recipe_hash in wanted:
        folder = (out or run / "export") / (name if form == CHECKPOINT else f"{name}-{form}")
        digest = record.tensors_of(recipe_hash)
        entry = next((e for e in entries if e.digest == digest), None)
        selected = Selected(
            record.recipe(recipe_hash),
            ExportOptions(**options),
            digest=digest,
            base=base,
            allow_mismatch=record.allow_mismatch,
            scores=scores,
            metadata=metadata_of(entry) if entry else {},
            results=_results(entry) if entry else {},
        )
        for line in written.write(selected, folder):
            if say is not None:
                say(f"{folder}: {line}")
        folders.append(folder)
    return folders


def _base(run: Path) -> ModelRef | None:
    """Read the base of a run's space; None where it has none.

    Raises:
        InputError: the folder is no run folder.
    """
    base = identity_of(run)["space"].get("base")
    return None if base is None else ModelRef.model_validate(base).resolved(run)


def _one_trial(run: Path, record: Record, number: int) -> list[tuple[str, str]]:
    for trial in record.trials:
        if trial.number == number and trial.recipe_hash is not None:
            return [(f"trial-{number}", trial.recipe_hash)]
    scored = [t.number for t in record.trials if t.recipe_hash is not None]
    raise InputError(f"{run} has no scored trial {number}; there are {len(scored)}: {scored}")


def _results(entry: "Entry") -> dict[str, str]:
    return {f"{RESULTS_FOLDER}/{file}": text for file, text in result_files(entry).items()}


def best_of(run: Path, record: Record, top: int) -> list[tuple[str, str]]:
    """Rank the winner, the front, the finalists, then trials; each model once.

    Of trials, those that keep the constraints come first, then those scored on all documents, then
    those of higher score.

    Returns:
        For each a folder's name, and the hash of the recipe.

    Raises:
        InputError: there are fewer than `top`.
    """

    def of_role(role: str) -> list[str]:
        return [row.recipe_hash for row in record.rows if row.role == role]

    ordered = [key for role in ("winner", "front", "finalist") for key in of_role(role)]
    scored = [
        (not t.feasible, t.share < 1, -t.score, t.recipe_hash)
        for t in record.trials
        if t.score is not None and t.recipe_hash is not None
    ]
    ordered += [recipe_hash for *_, recipe_hash in sorted(scored)]
    if not ordered:  # a run of what is made without a search
        ordered = [*of_role("learned"), *of_role("soup")]
    first: dict[str | None, str] = {}
    for recipe_hash in ordered:
        first.setdefault(record.digest_of(recipe_hash), recipe_hash)
    best = list(first.values())
    if len(best) < top:
        raise InputError(f"{run} has {len(best)} distinct candidates, fewer than --top {top}")
    return [(f"top-{rank}", recipe_hash) for rank, recipe_hash in enumerate(best[:top], 1)]
