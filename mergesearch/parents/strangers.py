"""Tensors that some models have, and of which nothing says what they are."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import torch

from mergesearch.errors import InputError
from mergesearch.parents.architecture import NOT_MADE, configuration, destinations, empty_model
from mergesearch.parents.checkpoint import Checkpoint, TensorSpec
from mergesearch.parents.further import passed_over

#: Words in the names of heads that training adds beside a model.
_HEAD = re.compile(r"(^|_)(heads?|classifier|critic|reward|score|value)(_|$)")
#: Ends of names of tables and marks that old code stored, and no class has today.
_OLD = re.compile(r"(inv_freq|(cos|sin)_cached|position_ids|\.version|_float_tensor|_extra_state)$")


def refuse_strangers(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse models of which some have tensors that nothing explains.

    They would be left out of a merge. A class of the models' kind explains those that it loads or
    says that it passes over, a configuration its layers that predict further tokens, and a name a
    head of a training or a table. What all models have is merged, whatever it is.

    Raises:
        InputError: naming the first.
    """
    everywhere = set.intersection(*(set(of.specs) for of in checkpoints))
    for checkpoint in checkpoints:
        odd = checkpoint.specs.keys() - everywhere - {checkpoint.head}
        odd -= {name for name in odd if is_computed(name, checkpoint.specs[name])}
        if strange := sorted(_unexplained(checkpoint, odd)) if odd else []:
            first, n = strange[0], len(strange) - 1
            raise InputError(
                f"a tensor that only some models have must be one that transformers, or its name, "
                f"explains, but only {checkpoint.folder} has {first} "
                f"{list(checkpoint.specs[first].shape)}{f' and {n} more' if n else ''}; remove it "
                "from the file, or leave it out with --allow-mismatch (in Python "
                "allow_mismatch=True)"
            )


def is_computed(name: str, spec: TensorSpec) -> bool:
    """Tell a table that transformers computes: rotary positions, or causal masks."""
    is_mask = name.endswith((".attn.bias", ".attention.bias")) and len(spec.shape) == 4
    return is_mask or name.endswith(("rotary_emb.inv_freq", ".masked_bias"))


def _unexplained(checkpoint: Checkpoint, names: Iterable[str]) -> set[str]:
    """Find the names among some of a checkpoint's that nothing explains."""
    config = checkpoint.config
    if (model := empty_model(config)) is None:
        return set()  # which is refused where the tensors are asked for
    own = {part for part, _ in model.named_children()}
    left = {name for name in names if not _is_named(name, own)}
    for known in _models(model, config):
        if not left:
            break
        left -= passed_over(known, left)
        left -= destinations(known, checkpoint.specs).keys()
    return left


def _is_named(name: str, own: Set[str]) -> bool:
    """Tell a tensor whose name says what it is: a head of its own, or a table."""
    part = name.partition(".")[0]
    return bool((part not in own and _HEAD.search(part)) or _OLD.search(name))


def _models(first: Any, config: Mapping[str, Any]) -> Iterator[Any]:
    """Make the models of all classes of a kind, the one that is named first."""
    yield first
    built = configuration(config)
    for kind in _classes(type(built)) - {type(first)}:
        try:
            with torch.device("meta"):
                yield kind(built)
        except NOT_MADE:
            continue


def _classes(kind: type) -> set[Any]:
    """List the classes that transformers has for configurations of a kind."""
    from transformers.models.auto import modeling_auto

    found: set[Any] = set()
    for name, mapping in vars(modeling_auto).items():
        if name.startswith("MODEL_") and name.endswith("_MAPPING") and kind in mapping:
            of = mapping[kind]
            found |= set(of) if isinstance(of, tuple) else {of}
    return found
