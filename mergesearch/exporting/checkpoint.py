"""A merged model as a checkpoint that plain transformers loads."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mergesearch.calibration import calibrated, statistics_bytes, with_prompts
from mergesearch.errors import ExportMismatchError, InputError
from mergesearch.exporting.card import model_card
from mergesearch.exporting.companions import (
    chat_template,
    write_chat_template,
    write_companions,
)
from mergesearch.exporting.tally import left_out, tally, tensors_section
from mergesearch.files import whole_folder
from mergesearch.merging import (
    Plan,
    check_loads,
    hold,
    merging_bytes,
    plan_merge,
    run,
    write_shards,
)
from mergesearch.parents import HeldTensors, Parents
from mergesearch.recipe import ModelRef, Recipe, write_recipe

RECIPE_FILE = "mergekit_config.yml"
_SHARD_BYTES = 5 * 10**9


def write_checkpoint(
    recipe: Recipe,
    out: Path,
    *,
    parents: Parents | None = None,
    max_shard_bytes: int = _SHARD_BYTES,
    expected_digest: str | None = None,
    notes: str = "",
    memory_budget: int | None = None,
    allow_mismatch: bool = False,
    say: Callable[[str], None] | None = None,
    text_of: Callable[[Recipe, Path], str] = write_recipe,
    models: Sequence[ModelRef] | None = None,
    held: HeldTensors | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Merge a recipe into a checkpoint folder.

    It holds weights, configuration, tokenizer, card and recipe. The folder appears under its name
    when it is whole, and not before.

    Args:
        recipe: what to merge, its model paths resolved.
        out: the folder to make; it must not exist, or be empty.
        parents: the recipe's models if they are open already.
        max_shard_bytes: the largest size of one weight file.
        expected_digest: refuse to finish if the tensors' hash is another.
        notes: Markdown that the card shows, e.g. a table of scores.
        memory_budget: bytes that the process may hold at its peak, where the models are not open;
            they are streamed, and too small a budget is an error before anything is written.
        allow_mismatch: merge models whose weights are of different functions, where they are not
            open.
        say: is told, before anything is written, what becomes of tokens that not all models have,
            in what else they differ, which tensors are left out, and how much memory it takes; in
            the end how many tensors there were and are.
        text_of: gives the text that lies beside the weights, for a recipe and its folder.
        models: those that the card names, where the recipe's are made of others.
        held: takes the weights, which then are in no file, if they are at most half of what the
            memory budget leaves; the other half is for whatever is made of them.
        metadata: further metadata of the card.

    Returns:
        The hash of the tensors.

    Raises:
        InputError: a model or the recipe is wrong, the folder is taken, or the device is full.
        CandidateError: a merged value is NaN or infinite.
        ExportMismatchError: the hash is not `expected_digest`; nothing is left behind.
    """
    check_free(out)
    parents = parents or Parents.of(
        recipe, keep=False, memory_budget=memory_budget, allow_mismatch=allow_mismatch
    )
    plan, template = plan_merge(recipe, parents), chat_template(recipe, parents)
    check_loads(plan, parents)
    parts = {"merging": merging_bytes(plan, parents, streamed=True)}
    if recipe.statistics:
        parts["statistics"] = statistics_bytes(recipe, plan, parents)
    memory, on_disk = parents.reserve(parts), []
    if held is not None and 2 * plan.n_bytes <= (spare := memory.spare("host")):
        memory = parents.reserve({**parts, "the result": plan.n_bytes})
    elif held is not None:
        on_disk = [
            f"the result lies on disk while it is needed: it takes {plan.n_bytes / 1e9:.2f} GB, "
            f"more than half of the {spare / 1e9:.2f} GB that the memory budget leaves"
        ]
        held = None
    try:
        with calibrated(recipe, parents), whole_folder(out) as folder:
            if held is None:
                _check_room(plan, folder, out)
            if say is not None:
                for note in (*parents.notes, *left_out(plan), *memory.lines(), *on_disk):
                    say(note)
            buffers = (parents.checkpoint(b.source.model).read(b.name) for b in plan.buffers)
            if held is None:
                digest = write_shards(plan, run(plan, parents), folder, max_shard_bytes, buffers)
            else:
                digest = hold(plan, run(plan, parents), held, buffers)
            if expected_digest not in (None, digest):
                raise ExportMismatchError(
                    f"the rebuilt model differs from the one that was scored ({digest[:12]} "
                    f"instead of {str(expected_digest)[:12]}); has a parent changed since? "
                    "Nothing was written"
                )
            written = with_prompts(_with_dtypes(recipe, plan), folder)
            (folder / "config.json").write_text(json.dumps(dict(plan.config), indent=2) + "\n")
            write_companions(parents, folder)
            if template is not None:
                write_chat_template(template, folder)
            text = text_of(written, folder)
            said = "".join(f"\n{note}.\n" for note in parents.notes)
            notes += tensors_section(plan, parents, recipe.models)
            card = model_card(written, text, said + notes, models, metadata)
            (folder / RECIPE_FILE).write_text(text)
            (folder / "README.md").write_text(card)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    if say is not None:
        say(tally(plan, parents, recipe.models))
    return digest


def check_free(out: Path) -> None:
    """Refuse a folder that is taken.

    Raises:
        InputError: it is.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; name another folder")


def _check_room(plan: Plan, folder: Path, out: Path) -> None:
    """Refuse a device that has too little room for the weights.

    Raises:
        InputError: it has.
    """
    free = shutil.disk_usage(folder).free
    if plan.n_bytes > free:
        raise InputError(
            f"no space left on the device for {out}: the model takes "
            f"{plan.n_bytes / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            "make room or name a folder elsewhere"
        )


def _with_dtypes(recipe: Recipe, plan: Plan) -> Recipe:
    """Spell a recipe's dtypes out, or mergekit would compute in the parents'."""
    results = {str(job.dtype).removeprefix("torch.") for job in plan.jobs}
    if len(results) > 1:  # no recipe can say so
        return recipe
    return recipe.model_copy(update={"dtype": "float32", "out_dtype": results.pop()})
