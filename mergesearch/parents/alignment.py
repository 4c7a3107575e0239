"""The alignment of models to one vocabulary: tensors, shapes and tokenizer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mergesearch.errors import InputError, RecipeError
from mergesearch.parents.checkpoint import TOKENIZER, Checkpoint, TensorSpec
from mergesearch.parents.layers import layer_of
from mergesearch.parents.tables import TABLES, has_rows, n_rows, with_vocab_size
from mergesearch.parents.token_ids import TokenIds
from mergesearch.parents.tokenizer import AddedEntry, merged_tokenizer
from mergesearch.parents.tokens import given_rows, moved_ids, settings_of, tokenizer_alone
from mergesearch.parents.vocabulary import Policy, Unified, Vocabulary, align, unify
from mergesearch.recipe import ModelRef, Recipe, TokenizerBlock, TokenizerSource

#: The ends of the names of biases by which masked words are predicted, whatever else they say.
_PREDICTIONS = ("head.bias", "projector.bias", "proj.bias", "decoder.bias")


class Alignment:
    """The models' vocabularies brought to one.

    Args:
        checkpoints: each model's checkpoint, the base of the vocabulary first.
        policy: "error", "base" or "union", see `unify`; the model whose vocabulary it is; or what a
            recipe says of its tokenizer.
        base: the recipes' base, if they have one: it lends its rows to models that lack a token.
            Without it they take the mean of the rows of those that have the token.

    Raises:
        InputError: vocabularies differ and the policy is "error", they cannot be unified, or a
            token's row is to come from where it is not.
    """

    def __init__(
        self,
        checkpoints: Mapping[ModelRef, Checkpoint],
        policy: Policy | ModelRef | TokenizerBlock = "error",
        base: ModelRef | None = None,
    ) -> None:
        #: What the recipes say of their tokenizer; None where all models must have one vocabulary.
        self.block = _block(policy)
        self.policy = "error" if self.block is None else str(self.block.source)
        self.base = base
        self.models = tuple(checkpoints)
        self._checkpoints = tuple(checkpoints.values())
        self._index = {ref: i for i, ref in enumerate(self.models)}
        below = (of.base for of in self._checkpoints if of.base is not None)
        needed = self.block is not None and str(self.block) != "base"
        needed = needed or len({n_rows(of) for of in self._checkpoints}) > 1
        self._ids = TokenIds([*self._checkpoints, *below], needed=needed)
        #: The folder that the tokenizer comes from.
        self.tokenizer_folder = self._checkpoints[0].tokenizer_folder
        self._unified = self._unify(base is not None and base == self.models[0])
        self._plain = [
            rows.is_prefix and len(rows.own) == n_rows(checkpoint)
            for rows, checkpoint in zip(self._unified.maps, self._checkpoints, strict=True)
        ]
        if not all(self._plain):
            for checkpoint in self._checkpoints:
                _check_every_table_is_known(checkpoint)
        self._specs = [self._aligned_specs(i) for i in range(len(self.models))]

    @property
    def vocab_size(self) -> int:
        """The rows of the merged model's embedding."""
        return self._unified.n_rows

    @property
    def changes(self) -> bool:
        """True where any model's tensors are not taken as they are."""
        return not all(self._plain)

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that tell a user what the policy does."""
        unified, lines = self._unified, []
        of = "the base" if self.policy in ("base", "union") else "it"
        if unified.new:
            lines.append(f"{_count(unified.new)} that {of} lacks, taken from the other models")
        if unified.made:
            lines.append(f"{_count(unified.made)} that no tokenizer has, added to it")
        if unified.dropped:
            lines.append(
                f"{_count(unified.dropped)} that {of} lacks, dropped from the other models; "
                "set tokenizer_source to union to keep all"
            )
        if unified.unknown:
            lines.append(f"{_count(unified.unknown)} that no model has a row for, zero")
        if unified.n_padding_dropped:
            lines.append(
                f"{unified.n_padding_dropped} rows of {of} without a token, left out; "
                f"the embedding has {unified.n_rows} rows"
            )
        if self._ids.unknown:
            folders = ", ".join(map(str, self._ids.unknown))
            lines.append(
                f"rows are taken by their ids, since tokenizers differ and transformers loads none "
                f"from {folders}; add {TOKENIZER} to compare their tokens"
            )
        said = (
            "no tokenizer_source" if self.policy == "error" else "tokenizer_source " + self.policy
        )
        return tuple(f"{said}: {line}" for line in lines)

    @property
    def n_bytes(self) -> int:
        """The bytes of one tensor's rows, gathered for all models at once."""
        return sum(
            max(
                (
                    spec.float_bytes if rows.has_means else spec.n_bytes
                    for name, spec in specs.items()
                    if has_rows(name)
                ),
                default=0,
            )
            for rows, specs in zip(self._unified.maps, self._specs, strict=True)
            if not rows.is_prefix
        )

    def specs(self, ref: ModelRef) -> Mapping[str, TensorSpec]:
        """Give the specs of a model's tensors, in the merged vocabulary's shapes."""
        return self._specs[self._index[ref]]

    def aligned(self, ref: ModelRef, name: str, read: Callable[[ModelRef, str], Tensor]) -> Tensor:
        """Give a model's tensor with its rows where the merged vocabulary has them.

        Args:
            ref: one of the models.
            name: the tensor.
            read: gives a tensor of a model as it stands, adapters included.

        Returns:
            What `read` gives wherever no row moves, and else a copy; see `align`.
        """
        tensor, i = read(ref, name), self._index[ref]
        if not self.moves(ref, name):
            return tensor
        return align(tensor, self._unified.maps[i], lambda m: read(self.models[m], name))

    def moves(self, ref: ModelRef, name: str) -> bool:
        """Check whether a tensor has other rows in the merged vocabulary."""
        return not self._plain[self._index[ref]] and has_rows(name)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Give a configuration the merged vocabulary's size and ids of special tokens."""
        config = self.with_ids(config, "config.json")
        return with_vocab_size(config, self.vocab_size) if self.changes else config

    def with_ids(self, settings: Mapping[str, Any], file: str) -> dict[str, Any]:
        """Give the first model's settings the ids that special tokens have now.

        Args:
            settings: what the first model has in a JSON file.
            file: the file's name: of a token that the merged vocabulary lacks, the id of the same
                name is taken from the tokenizer's model.
        """
        first = self._checkpoints[0]
        ids = self._ids.of(first)
        if self.tokenizer_folder == first.tokenizer_folder or ids is None:
            return dict(settings)
        token_of = {i: token for token, i in ids.items()}
        others = settings_of(self.tokenizer_folder, file)
        return moved_ids(settings, token_of, self._unified.tokens, others)

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that means another vocabulary than this.

        Args:
            recipe: names its models as they were opened.

        Raises:
            RecipeError: it does.
        """
        wanted, ours = recipe.vocabulary, self.block
        keeps = self.tokenizer_folder == self._checkpoints[0].folder
        plain = wanted is None or (wanted.is_plain and wanted.source == "base")
        if not self.changes and (wanted == ours or (plain and keeps)):
            return
        pairs = {
            "tokenizer_source": (str(wanted or "error"), str(ours or "error")),
            "base_model": (recipe.base_model, self.base),
            "models": (_list(recipe.models), _list(self.models)),
        }
        if odd := [f"{key} {a} instead of {b}" for key, (a, b) in pairs.items() if a != b]:
            raise RecipeError(
                "a recipe must mean the vocabulary that its models were opened with, "
                f"got {', '.join(odd)}; open the models with Parents.of(recipe)"
            )

    @property
    def extends_tokenizer(self) -> bool:
        """True where the tokenizer of `tokenizer_folder` lacks tokens of the result."""
        return bool(self._entries())

    def write_tokenizer(self, out: Path) -> None:
        """Write the merged model's tokenizer into a folder, if it `extends_tokenizer`.

        Raises:
            InputError: it cannot be made with the ids that the rows have.
        """
        merged_tokenizer(self.tokenizer_folder, self._entries(), self._unified.tokens, out)

    def _aligned_specs(self, i: int) -> Mapping[str, TensorSpec]:
        specs = self._checkpoints[i].specs
        if self._plain[i]:
            return specs
        return {
            name: replace(spec, shape=(self.vocab_size, *spec.shape[1:]))
            if has_rows(name)
            else spec
            for name, spec in specs.items()
        }

    def _entries(self) -> list[AddedEntry]:
        """List the tokens that the tokenizer does not have as added tokens."""
        ours = self._ids.added(self._checkpoints[0]) if self.policy == "union" else {}
        unified, theirs = self._unified, dict[str, AddedEntry]()
        if self.policy == "union":
            theirs |= {token: {"content": token} for token in unified.new}
            for checkpoint in reversed(self._checkpoints[1:]):  # the first that has one decides
                theirs.update(self._ids.added(checkpoint))
        theirs |= {token: {"content": token} for token in unified.made}
        tokens, n_rows = unified.tokens, unified.n_rows
        wanted = [t for t in theirs if t not in ours and tokens.get(t, n_rows) < n_rows]
        return [theirs[token] for token in sorted(wanted, key=tokens.__getitem__)]

    def _unify(self, base_lends: bool) -> Unified:
        first, *others = self._checkpoints
        ours = self._ids.of(first)
        for other in others:
            unknown = first if ours is None else other if self._ids.of(other) is None else None
            if unknown and n_rows(other) != n_rows(first):
                raise InputError(
                    f"rows can only be mapped by token: {n_rows(first)} in {first.folder}, "
                    f"{n_rows(other)} in {other.folder}; add {unknown.folder / TOKENIZER}"
                )
        if ours is None and self.block is not None and str(self.block) != "base":
            raise InputError(
                f"tokenizer_source {self.policy} needs {first.folder / TOKENIZER}; add it"
            )
        models = [self._vocabulary(checkpoint, ours) for checkpoint in self._checkpoints]
        if self.block is None:
            return unify(models, "error", base_lends=base_lends)
        return unify(
            models,
            self._of(self.block.source, models),
            base_lends=base_lends,
            given=given_rows(self.block, self._index, models),
            multiple_of=self.block.pad_to_multiple_of,
        )

    def _of(
        self, source: TokenizerSource | ModelRef, models: Sequence[Vocabulary]
    ) -> Policy | Vocabulary:
        """Find the vocabulary that a recipe names, and the folder of its tokenizer."""
        if not isinstance(source, ModelRef):
            return source
        places = [i for ref, i in self._index.items() if source in (ref, ModelRef(model=ref.model))]
        if places:
            i = self._index.get(source, places[0])
            checkpoint = self._checkpoints[i]
            self.tokenizer_folder = checkpoint.tokenizer_folder
            if self._ids.of(checkpoint) is not None:
                return models[i]
        self.tokenizer_folder, alone = tokenizer_alone(source)
        return alone

    def _vocabulary(self, checkpoint: Checkpoint, ours: Mapping[str, int] | None) -> Vocabulary:
        """Describe a model's vocabulary; `ours` is the first model's."""
        base = checkpoint.base
        return Vocabulary(
            str(checkpoint.tokenizer_folder),
            # mergekit, too, takes a model without a tokenizer to have the base's
            (ours and self._ids.of(checkpoint)) or ours or {},
            n_rows(checkpoint),
            frozenset(self._ids.added(checkpoint)) if self.policy == "union" else frozenset(),
            None if base is None else self._vocabulary(base, ours),
        )


def _block(policy: Policy | ModelRef | TokenizerBlock) -> TokenizerBlock | None:
    if isinstance(policy, TokenizerBlock):
        return policy
    return None if policy == "error" else TokenizerBlock(source=policy)


def _check_every_table_is_known(checkpoint: Checkpoint) -> None:
    """Refuse what might be indexed by token under a name that is not known to be.

    Raises:
        InputError: there is such a tensor, or one with other rows than the embedding.
    """
    expected = n_rows(checkpoint)
    for name, spec in checkpoint.specs.items():
        known, outside = has_rows(name), layer_of(name) is None
        fits = len(spec.shape) > 0 and spec.shape[0] == expected
        table = outside and (len(spec.shape) > 1 or name.endswith(_PREDICTIONS))
        if known != fits and (known or table):
            raise InputError(
                f"rows can only be mapped by token in {', '.join(TABLES)}, of {expected} rows "
                f"each: {checkpoint.folder} has {name} {list(spec.shape)}; "
                "give the models one vocabulary"
            )


def _count(tokens: tuple[str, ...]) -> str:
    shown = ", ".join(repr(token) for token in tokens[:3])
    plural = "s" if len(tokens) > 1 else ""
    return f"{len(tokens)} token{plural} ({shown}{', ...' if len(tokens) > 3 else ''})"


def _list(models: tuple[ModelRef, ...]) -> str:
    return ", ".join(str(ref) for ref in models)
