"""A merge as a LoRA adapter of its base (arXiv:2106.09685), for peft."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mergesearch.calibration import calibrated, with_prompts
from mergesearch.errors import ExportMismatchError, InputError
from mergesearch.exporting.card import hub_ids, model_card
from mergesearch.exporting.checkpoint import RECIPE_FILE, check_free
from mergesearch.exporting.low_rank import Error, factors
from mergesearch.exporting.selected import ExportOptions, Selected
from mergesearch.files import whole_folder
from mergesearch.merging import Digest, Plan, conversion_of, plan_merge, run
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef, Recipe, copy_of, write_recipe

#: Up to this relative error an adapter is the merge, but for the rounding of float32.
_EXACT = 1e-4
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what peft puts before the names of the model that it wraps


@dataclass
class _Adapter:
    """An adapter as it is made, tensor by tensor."""

    rank: int
    error: Error = field(default_factory=Error)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    #: Modules with factors, and those that are stored as they are.
    targets: list[str] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    #: Tensors whose change no adapter of peft's expresses.
    left_out: list[str] = field(default_factory=list)
    #: Whether its matrices are stored columns by rows, as GPT-2 has them.
    transposed: bool = False

    def add_factors(self, module: str, name: str, delta: Tensor, *, transposed: bool) -> None:
        """Take a matrix's change, as the file stores it, as a product."""
        b, a = factors(delta.T if transposed else delta, self.rank)
        self.error.add(name, delta, (b @ a).T if transposed else b @ a)
        self.transposed = transposed
        self.targets.append(module)
        self.tensors[f"{_PREFIX}{module}.lora_A.weight"] = a.contiguous()
        self.tensors[f"{_PREFIX}{module}.lora_B.weight"] = b.contiguous()

    def add_whole(self, module: str, parameter: str, merged: Tensor, delta: Tensor) -> None:
        """Store a module's only tensor as it is."""
        self.error.add(parameter, delta, delta)
        self.saved.append(module)
        self.tensors[f"{_PREFIX}{parameter}"] = merged.contiguous()

    def leave_out(self, name: str, delta: Tensor) -> None:
        """Take a change into account that is not expressed."""
        self.error.add(name, delta)
        self.left_out.append(name)

    def lines(self) -> tuple[str, ...]:
        """Say what the adapter holds, and the error that it makes."""
        error = self.error.relative
        lines = [
            f"rank {self.rank} on {len(self.targets)} matrices: the merged delta with a relative "
            f"error of {error:.2g} (Frobenius norm)"
        ]
        if self.saved:
            lines.append(f"{len(self.saved)} modules stored whole, e.g. {self.saved[0]}")
        if self.left_out:
            n, first = len(self.left_out), self.left_out[0]
            named = first if n == 1 else f"{first} and {n - 1} more"
            lines.append(
                f"left out, since no adapter expresses it: the change of {named}, "
                f"{self.error.share(*self.left_out):.1%} of the squared norm of all changes"
            )
        return tuple(lines)


def write_lora(selected: Selected, out: Path) -> tuple[str, ...]:
    """Write a merge as an adapter that peft loads on its base.

    Each matrix's merged delta becomes a product of low rank by truncated SVD; of LoRA parents it
    has at most the sum of their ranks, and is exact then. Norms are stored whole. What is left
    out, as a change of tied embeddings or of a bias, is said with its share.

    Returns:
        Lines on what it holds, and the error that it makes.

    Raises:
        InputError: there is no base, the merge has other layers or tokens than that, the recipe is
            wrong or the folder is taken.
        ExportMismatchError: the rebuilt model is not the one that was scored.
    """
    check_free(out)
    recipe, base = selected.recipe, selected.base or selected.recipe.base_model
    if selected.options.rank < 1:
        raise InputError(f"a rank must be 1 or more, got {selected.options.rank}")
    if base is None or base.lora is not None:
        raise InputError(
            "an adapter needs a base that is a full checkpoint, got "
            f"{base or 'none: neither the recipe nor the space names one'}; export a checkpoint, "
            "and take its adapter with `mergesearch extract-lora MODEL BASE OUT`"
        )
    parents = Parents(
        (*recipe.models, base),
        vocabulary=recipe.vocabulary or "error",
        base=recipe.base_model,
        keep=False,
        allow_mismatch=selected.allow_mismatch,
    )
    exact = recipe.model_copy(update={"dtype": "float32", "out_dtype": "float32"})
    plan = plan_merge(exact, parents)
    _check_same_tensors(plan, parents, base)
    with calibrated(recipe, parents):
        adapter, digest = _adapted(plan, parents, base, recipe, selected.options)
    if selected.digest not in (None, digest):
        raise ExportMismatchError(
            f"the rebuilt model differs from the one that was scored ({digest[:12]} instead of "
            f"{str(selected.digest)[:12]}); has a parent changed since? Nothing was written"
        )
    if not adapter.targets and not adapter.saved:
        raise InputError(f"the merge is {base} itself: there is nothing that an adapter could hold")
    if adapter.error.relative > _EXACT:
        selected = selected.approximated(
            f"this adapter (relative error {adapter.error.relative:.2g})"
        )
    try:
        with whole_folder(out) as folder:
            _write(adapter, selected, base, folder)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    return adapter.lines()


def extract_lora(model: ModelRef, base: ModelRef, out: Path, *, rank: int) -> tuple[str, ...]:
    """Write the difference of a model and its base as an adapter; see `write_lora`.

    Args:
        model: a checkpoint, or `model+adapter`.
        base: the checkpoint that the adapter is for.
        out: the folder to make; it must not exist, or be empty.
        rank: of each matrix.
    """
    options = ExportOptions(rank=rank)
    return write_lora(Selected(copy_of(model), options, base=base), out)


def _check_same_tensors(plan: Plan, parents: Parents, base: ModelRef) -> None:
    """Refuse a merge that has other tensors than its base.

    Raises:
        InputError: naming one.
    """
    stored = parents.checkpoint(base).specs
    odd = [n for n, s in plan.shapes.items() if n not in stored or stored[n].shape != s]
    if plan.is_stack or odd:
        why = f": {odd[0]} {list(plan.shapes[odd[0]])} is not there" if odd else ", layer by layer"
        raise InputError(
            f"an adapter's model must have the tensors of its base, {base}{why}; export a "
            "checkpoint instead"
        )


def _adapted(
    plan: Plan, parents: Parents, base: ModelRef, recipe: Recipe, options: ExportOptions
) -> tuple[_Adapter, str]:
    """Merge in float32, tensor by tensor, and take the factors of what changed.

    Returns:
        The adapter, and the hash of the tensors that a checkpoint of the recipe would have.
    """
    dtypes = {job.name: job.dtype for job in plan_merge(recipe, parents).jobs}
    conversion = conversion_of(plan)
    modules = dict(_modules(plan))
    adapter, digest = _Adapter(options.rank), Digest()
    for name, merged in run(plan, parents):
        digest.add(name, merged.to(dtypes[name]))
        delta = merged - parents.read(base, name).float().cpu()
        parents.release(base, name)
        if not delta.any():
            continue
        parameter = conversion.plain.get(name)
        module, kind = modules.get(parameter or "", ("", "other"))
        if parameter is None or kind == "other":
            adapter.leave_out(name, delta)
        elif kind == "whole":
            adapter.add_whole(module, parameter, merged, delta)
        else:
            adapter.add_factors(module, name, delta, transposed=kind == "transposed")
    return adapter, digest.hexdigest()


def _modules(plan: Plan) -> Iterator[tuple[str, tuple[str, str]]]:
    """Give each parameter's module, and in what way an adapter holds it.

    Yields:
        The parameter's name, and the module's with "linear", "transposed" (columns by rows, as
        GPT-2 has them), "whole" or "other".
    """
    from transformers.pytorch_utils import Conv1D

    from mergesearch.merging import skeleton

    model = skeleton(plan, torch.device("meta"))
    embeddings = model.get_input_embeddings()
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is embeddings.weight
    for path, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        for leaf in own:
            kind = "whole" if len(own) == 1 else "other"
            if isinstance(module, nn.Linear | Conv1D):
                kind = {nn.Linear: "linear"}.get(type(module), "transposed")
                kind = kind if leaf == "weight" else "other"
            elif module is embeddings and tied:
                kind = "other"  # peft would part the head from them
            yield f"{path}.{leaf}", (path, kind)


def _write(adapter: _Adapter, selected: Selected, base: ModelRef, folder: Path) -> None:
    """Write weights, settings, recipe and card."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    save_file(adapter.tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.rank,
        modules_to_save=sorted(adapter.saved) or None,
        fan_in_fan_out=adapter.transposed,
        base_model_name_or_path=str(base),
        task_type="CAUSAL_LM",
    )
    config.target_modules = sorted(adapter.targets)  # of a list peft makes a set, in any order
    config.save_pretrained(folder)
    text = write_recipe(with_prompts(selected.recipe, folder), folder)
    (folder / RECIPE_FILE).write_text(text)
    metadata: dict[str, Any] = {
        "library_name": "peft",
        "base_model": hub_ids([base]),
        "base_model_relation": None if base.model.is_local else "adapter",
        "tags": ["lora", "merge", "mergesearch", selected.recipe.merge_method],
        **selected.metadata,
    }
    held = "".join(f"\n{line[0].upper()}{line[1:]}.\n" for line in adapter.lines())
    notes = f"\n## Adapter\n{held}{selected.notes}"
    (folder / "README.md").write_text(model_card(selected.recipe, text, notes, metadata=metadata))
    selected.write_results(folder)
