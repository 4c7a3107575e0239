"""Differences between models that no shape shows: of function and of text."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.parents.checkpoint import Checkpoint
from mergesearch.parents.meaning import ROPE_TYPE, Meaning, meanings_of
from mergesearch.parents.tokenizer_settings import TokenizerSettings, tokenizer_files
from mergesearch.recipe import ModelPath, ModelRef

#: Fields with which the same weights are another function, although their shapes fit, by the words
#: or the whole of their last names: how a matrix is parted into heads, the function between
#: matrices, the turned part of a head and what else says positions, and the order in a block.
_HEADS = re.compile(r"(^|_)heads?(_|$)|^(d_kv|kv_channels|multi_query)$")
_ACTIVATION = re.compile(r"(^|_|\.)(act|activation|afn)(_|\.|$)|feed_forward_proj$|is_gated_act$")
_POSITIONS = re.compile(
    r"^(partial_rotary_factor|rotary_(pct|dim|ndims|percent)|rope_interleave|alibi|learned_pos_emb"
    r"|relative_attention|pos(ition(al)?)?_(embeddings?|encoding|att)_type)$"
)
_BLOCK = re.compile(
    r"parallel_(attn|attention|residual|block)|new_decoder_architecture|post_layernorm$"
    r"|norm_(before|after)$|normalize_before$|^(pre|use_post|use_sandwich)_norm$"
    r"|^norm(alization)?_type$|^model_type$"
)
#: Activations that differ by less approximate one another, as the forms of GELU do.
_CLOSE = 0.03
_SHOWN = 40


@dataclass(frozen=True)
class Difference:
    """A field in which models differ, and the values."""

    field: str
    #: What each model is called, the first first.
    models: tuple[str, ...]
    #: Of each model, as `config.json` would have it; None where there is none.
    values: tuple[Any, ...]
    #: True where a merge would mean nothing: the weights are of another function.
    is_error: bool = False

    def __str__(self) -> str:
        """Say who has which value, in one line."""
        by_value: dict[str, list[str]] = {}
        for model, value in zip(self.models, self.values, strict=True):
            by_value.setdefault(_shown(value), []).append(model)
        said = (f"{value} in {_listed(models)}" for value, models in by_value.items())
        return f"{self.field} is {', '.join(said)}"


def differences_of_function(
    checkpoints: Mapping[ModelPath, Checkpoint],
) -> tuple[Difference, ...]:
    """Compare models' configurations, whatever shapes show left out.

    Args:
        checkpoints: of one architecture, the first of which gives the merged model its own.

    Returns:
        Those that are errors first.
    """
    configs = [checkpoint.config for checkpoint in checkpoints.values()]
    if all(config == configs[0] for config in configs):
        return ()
    names, meanings = _names(checkpoints), meanings_of(configs)
    found = []
    for field in dict.fromkeys(field for meaning in meanings for field in meaning):
        values = [meaning.get(field) for meaning in meanings]
        if not _follows_from_rope_type(field, meanings) and (
            difference := _difference(field, names, values)
        ):
            found.append(difference)
    return tuple(sorted(found, key=lambda difference: not difference.is_error))


def refuse(differences: Iterable[Difference]) -> None:
    """Refuse models of which a merge would mean nothing.

    Raises:
        InputError: naming the first such difference.
    """
    errors = [difference for difference in differences if difference.is_error]
    if not errors:
        return
    more = ", ".join(difference.field for difference in errors[1:])
    raise InputError(
        f"the weights of all models must be of one function, but {errors[0]}"
        f"{f'; also {more} differ' if more else ''}; merge relatives of one base, or allow it with "
        "--allow-mismatch (in Python allow_mismatch=True)"
    )


def differences_beside(checkpoints: Mapping[ModelRef, Checkpoint]) -> tuple[Difference, ...]:
    """Compare what models' configurations do not say: tied heads, and tokenizers.

    Whose tokens there are is left to the vocabularies' policy.
    """
    by_path = {ref.model: checkpoint for ref, checkpoint in checkpoints.items()}
    tied = [checkpoint.is_tied for checkpoint in by_path.values()]
    found = [_difference("tied output head", _names(by_path), tied), *_of_ends(by_path)]
    by_owner = {_tokenizer_owner(ref, of): of.tokenizer_folder for ref, of in checkpoints.items()}
    names, folders = _names(by_owner), list(by_owner.values())
    if any(tokenizer_files(folder) != tokenizer_files(folders[0]) for folder in folders[1:]):
        loaded = zip(names, map(TokenizerSettings.of, folders), strict=True)
        known = {name: tokenizer for name, tokenizer in loaded if tokenizer is not None}
        found += _of_tokenizers(tuple(known), list(known.values()))
    return tuple(difference for difference in found if difference is not None)


def _tokenizer_owner(ref: ModelRef, checkpoint: Checkpoint) -> ModelPath:
    """Tell whose tokenizer a model has: an adapter's own, or its base's."""
    own = checkpoint.tokenizer_folder != checkpoint.folder
    return ref.lora if own and ref.lora is not None else ref.model


def _difference(field: str, models: tuple[str, ...], values: Sequence[Any]) -> Difference | None:
    """Compare a field's values; None where they mean the same, or shapes tell."""
    name = field.rpartition(".")[2]
    if name == "partial_rotary_factor":  # of the whole head, where nothing is said
        values = [1.0 if value is None else value for value in values]
    first, *others = values
    if all(value == first or _is_no(value, first) for value in others):
        return None
    if all(isinstance(value, list) for value in values):
        if len({len(value) for value in values}) > 1:
            return None  # layers of another depth
        at = next(i for i, of in enumerate(zip(*values, strict=True)) if of != (of[0],) * len(of))
        return _difference(f"{field}[{at}]", models, [value[at] for value in values])
    named = [value for value in values if value is not None]
    is_error = any(value != named[0] for value in named[1:]) and _is_structure(field, named)
    if is_error and _ACTIVATION.search(field):
        distance = _distance(named)
        if distance == 0 and len(named) == len(values):
            return None
        is_error = distance > _CLOSE
    return Difference(field, models, tuple(values), is_error)


def _is_no(*values: Any) -> bool:
    """Tell if all values are ways to say no."""
    return all(value is None or value is False for value in values)


def _is_structure(field: str, values: Sequence[Any]) -> bool:
    """Tell if a field decides which function the weights are of."""
    name = re.sub(r"\[\d+\]$", "", field.rpartition(".")[2])
    if _HEADS.search(name):
        return all(type(value) is int for value in values) or name == "multi_query"
    if _ACTIVATION.search(field):
        return all(isinstance(value, str | bool) for value in values)
    return bool(_POSITIONS.search(name) or _BLOCK.search(name))


def _distance(activations: Sequence[Any]) -> float:
    """Measure how far activations are apart at most; infinite where one is unknown."""
    import torch
    from transformers.activations import ACT2FN

    if not all(isinstance(name, str) and name in ACT2FN for name in activations):
        return float("inf")
    x = torch.linspace(-8, 8, 1601)
    first, *others = (ACT2FN[name](x) for name in activations)
    return max(float((first - other).abs().max()) for other in others)


def _follows_from_rope_type(field: str, meanings: Sequence[Meaning]) -> bool:
    """Tell a parameter of a way to scale positions that not all models have."""
    part, _, name = field.rpartition(".")
    kinds = [meaning.get(f"{part}.{ROPE_TYPE}") for meaning in meanings]
    differ = any(kind != kinds[0] for kind in kinds)
    return differ and name not in (ROPE_TYPE, "rope_theta", "partial_rotary_factor")


def _of_ends(checkpoints: Mapping[ModelPath, Checkpoint]) -> Iterator[Difference]:
    """Compare the ids that end a text, of which the first model's will hold."""
    # an id and a token are no two values
    known = all(of.vocabulary is not None for of in checkpoints.values())
    configs = {path: _ends(of, of.config, known) for path, of in checkpoints.items()}
    used = {
        path: _ends(of, of.generation_config or {}, known) or configs[path]
        for path, of in checkpoints.items()
    }
    for field, ends in (("eos_token_id", used), ("config.json's eos_token_id", configs)):
        said = {path: both for path, both in ends.items() if both is not None}
        if len({tokens for tokens, _ in said.values()}) > 1:
            yield Difference(field, _names(said), tuple(ids for _, ids in said.values()))
            return


def _ends(
    of: Checkpoint, settings: Mapping[str, Any], as_tokens: bool
) -> tuple[frozenset[Any], Any] | None:
    """Give the tokens that end a text, or their ids, and how settings write them."""
    text = settings.get("text_config")
    ids = settings.get("eos_token_id", text.get("eos_token_id") if isinstance(text, dict) else None)
    if ids is None:
        return None
    token_of = {i: token for token, i in (of.vocabulary or {}).items() if as_tokens}
    every = ids if isinstance(ids, list) else [ids]
    return frozenset(token_of.get(i, i) if type(i) is int else str(i) for i in every), ids


def _of_tokenizers(
    names: tuple[str, ...], tokenizers: Sequence[TokenizerSettings]
) -> Iterator[Difference | None]:
    for field in dict.fromkeys(field for one in tokenizers for field in one.settings):
        values = [one.settings.get(field) for one in tokenizers]
        yield _difference(f"tokenizer's {field}", names, values)
    # a token that not all have is the matter of the vocabularies' policy
    added = dict.fromkeys(token for one in tokenizers for token in one.added)
    shared = [token for token in added if all(token in one.words for one in tokenizers)]
    odd = [
        Difference(f"tokenizer's added token {token!r}", names, tuple(values))
        for token in shared
        if len(set(values := [one.added.get(token) for one in tokenizers])) > 1
    ]
    if len(odd) > 1:
        yield replace(odd[0], field=f"{odd[0].field} and {len(odd) - 1} more")
    yield from odd[: len(odd) == 1]


def _shown(value: Any) -> str:
    """Show a value in a few words; what is cut off is told apart by its hash."""
    if value is None:
        return "unset"
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= _SHOWN:
        return text
    return f"{text[:_SHOWN]}… ({len(text)} characters, {sha256(text.encode()).hexdigest()[:8]})"


def _listed(models: Sequence[str]) -> str:
    if len(models) > 3:
        return f"{', '.join(models[:2])} and {len(models) - 2} more"
    return " and ".join(filter(None, (", ".join(models[:-1]), models[-1])))


def _names(models: Iterable[ModelPath]) -> tuple[str, ...]:
    """Call models as readers do: folders by the ends of their paths that differ."""
    models = tuple(models)
    for n in range(1, max(len(Path(model.path).parts) for model in models)):
        names = tuple(
            str(Path(*Path(model.path).parts[-n:])) if model.is_local else str(model)
            for model in models
        )
        if len(set(names)) == len(names):
            return names
    return tuple(map(str, models))
