"""Bounds of what statistics take, in memory while they are computed and on disk."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mergesearch.calibration.kinds import KINDS
from mergesearch.calibration.texts import Texts, encode
from mergesearch.merging import Plan
from mergesearch.parents import Parents, layer_of, tokenizer_of
from mergesearch.recipe import Recipe
from mergesearch.tasks.prompt_files import read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FLOAT32 = 4
#: Of a file of statistics, its header and names.
_HEADER = 64 * 1024
#: What a linear layer's input and output are kept for in a backward pass, at most.
_KEPT = 3


def disk_bytes(kinds: Iterable[str], plan: Plan, n_models: int) -> int:
    """Bound what statistics take on disk.

    Args:
        kinds: that are computed.
        plan: of a model.
        n_models: that are merged.
    """
    return sum(_disk_bytes(kind, plan, n_models) for kind in kinds)


def peak_bytes(kinds: Iterable[str], plan: Plan, texts: Sequence[int], n_models: int) -> int:
    """Bound what is held while statistics are computed, beside a live model.

    Args:
        kinds: that are computed, one after the other.
        plan: of a model.
        texts: tokens of each text of the model that has most.
        n_models: that are merged.
    """
    return max((_peak_bytes(kind, plan, texts, n_models) for kind in kinds), default=0)


def statistics_bytes(recipe: Recipe, plan: Plan, parents: Parents) -> int:
    """Bound what one merge's statistics take in memory, the live model included."""
    tokenizer = tokenizer_of(parents)
    files = {file.path for file in recipe.calibration or ()}
    counts = [n_tokens(read_texts(Path(path)), tokenizer) for path in files]
    longest = max(counts, key=sum, default=[])
    peak = peak_bytes(recipe.statistics, plan, longest, len(recipe.models))
    return _FLOAT32 * plan.n_entries + peak


def n_tokens(texts: Texts, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Count the tokens of each text.

    Raises:
        InputError: there are none in any.
    """
    return [text.ids.shape[1] for text in encode(texts, tokenizer)]


def _disk_bytes(kind: str, plan: Plan, n_models: int) -> int:
    layers = _matrices(plan)
    header = _HEADER * (len(layers) + 1)
    if kind == "fisher":
        return n_models * (2 * plan.n_entries + header)
    columns = [shape[1] for of in layers.values() for shape in of]
    if kind == "activation":
        return _FLOAT32 * sum(columns) + header
    return n_models * (_FLOAT32 * sum(n * (n + 1) // 2 for n in columns) + header)


def _peak_bytes(kind: str, plan: Plan, texts: Sequence[int], n_models: int) -> int:
    matrices = list(_matrices(plan).values())
    if kind == "fisher":
        n_threads = torch.get_num_threads()
        wide = sum(sum(shape) for of in matrices for shape in of)
        others = (job.shape for job in plan.jobs if layer_of(job.name) is None)
        outside = max((n for shape in others for n in shape), default=0)
        of_text = max(texts, default=0) * _KEPT * _FLOAT32 * (wide + outside)
        return _FLOAT32 * plan.n_entries * (2 + n_threads) + n_threads * of_text
    n_joint = n_models if KINDS[kind].is_joint else 1
    # what a text is on its way, its masks and positions; and what a layer's linear layers get
    width = max((max(shape) for of in matrices for shape in of), default=0)
    inputs = max((sum(shape[1] for shape in of) for of in matrices), default=0)
    under_way = n_joint * sum(texts) * 3 * width + sum(n * n for n in texts) + sum(texts) * inputs
    squares = 2 * max((sum(shape[1] ** 2 for shape in of) for of in matrices), default=0)
    grams = n_joint * squares if KINDS[kind].is_symmetric else 0
    return _FLOAT32 * (under_way + grams)


def _matrices(plan: Plan) -> dict[int, list[tuple[int, ...]]]:
    """List the shapes of each layer's matrices."""
    layers: dict[int, list[tuple[int, ...]]] = {}
    for job in plan.jobs:
        layer = layer_of(job.name)
        if layer is not None and len(job.shape) == 2:
            layers.setdefault(layer, []).append(job.shape)
    return layers
