"""From a run to checkpoints of its best candidates."""

from dataclasses import replace
from pathlib import Path

from mergesearch.errors import InputError
from mergesearch.exporting.checkpoint import write_checkpoint
from mergesearch.runs import Record, identity_of


def export(
    run: Path,
    out: Path | None = None,
    *,
    top: int = 1,
    trial: int | None = None,
    front: bool = False,
    max_shard_bytes: int = 5 * 10**9,
) -> list[Path]:
    """Write the best candidates of a run as checkpoints, checked by their hashes.

    Args:
        run: the run's folder.
        out: where the checkpoints go; None is `export` in the run's folder.
        top: how many, from the best down.
        trial: the number of one trial to export instead.
        front: export each model of the front instead, the winner first.
        max_shard_bytes: the largest size of one weight file.

    Returns:
        The folders written: `top-1`, `top-2`…, `trial-N` or `front-1`, `front-2`…

    Raises:
        InputError: no such run, trial or front, a folder is taken, a model is gone, the device is
            full.
        ExportMismatchError: a rebuilt model differs from the one that was scored.
    """
    from mergesearch.report import entries_of, front_of, markdown  # tables, which no merge needs

    identity_of(run)
    record = Record(run, writable=False)
    if front:
        wanted = [(f"front-{i}", e.recipe.hash) for i, e in enumerate(front_of(run), start=1)]
    elif trial is not None:
        wanted = _one_trial(run, record, trial)
    else:
        wanted = _best(run, record, top)
    # a card says by itself in what its own models differ
    entries = [replace(entry, differences=()) for entry in entries_of(run)]
    notes = f"\n## Scores\n\n{markdown(entries)}\n"
    folders = []
    for name, recipe_hash in wanted:
        folder = (out or run / "export") / name
        write_checkpoint(
            record.recipe(recipe_hash),
            folder,
            max_shard_bytes=max_shard_bytes,
            expected_digest=record.tensors_of(recipe_hash),
            notes=notes,
            allow_mismatch=record.allow_mismatch,
        )
        folders.append(folder)
    return folders


def _one_trial(run: Path, record: Record, number: int) -> list[tuple[str, str]]:
    for trial in record.trials:
        if trial.number == number and trial.recipe_hash is not None:
            return [(f"trial-{number}", trial.recipe_hash)]
    scored = [t.number for t in record.trials if t.recipe_hash is not None]
    raise InputError(f"{run} has no scored trial {number}; there are {len(scored)}: {scored}")


def _best(run: Path, record: Record, top: int) -> list[tuple[str, str]]:
    """Rank the winner, the front, the finalists, then trials; each model once.

    Of trials, those that keep the constraints come first, then those scored on all documents, then
    those of higher score.
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
