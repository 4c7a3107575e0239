"""The owner of statistics: computes each once, and gives it to the parents."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mergesearch.calibration.activations import gram, magnitude, summed
from mergesearch.calibration.folder import Entry, Kept, check_finite, written
from mergesearch.calibration.information import fisher
from mergesearch.calibration.kinds import KINDS
from mergesearch.calibration.layers import Layers
from mergesearch.calibration.merged import merged_grams
from mergesearch.calibration.texts import N_TOKENS, Encoded, Texts, encode
from mergesearch.errors import InputError
from mergesearch.files import in_turn
from mergesearch.merging import LiveModel, n_layers
from mergesearch.merging.threads import Workers, workers
from mergesearch.methods.inputs import as_rows
from mergesearch.parents import Parents, layer_of
from mergesearch.recipe import ModelRef, Recipe, soup_recipe
from mergesearch.tasks.prompt_files import read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Of what the files hold; another version may compute another.
_FORMAT = 2


@dataclass(frozen=True)
class Computed:
    """Statistics that a recipe's merge looks at, and what computing them took."""

    #: Names their folder, by all that they follow from.
    key: str
    kind: str
    model: ModelRef
    n_texts: int

    @property
    def n_answers(self) -> int:
        """Answers that they count in a budget."""
        return KINDS[self.kind].n_answers * self.n_texts


@dataclass(frozen=True)
class Prepared:
    """Statistics of models, on disk: a `Statistics`."""

    kept: Mapping[tuple[str, ModelRef], Kept]

    def key(self, kind: str, model: ModelRef) -> str:
        """Name what a model's statistics of a kind follow from."""
        return self._of(kind, model).folder.name

    def read(self, kind: str, model: ModelRef, name: str) -> Tensor | None:
        """Read a statistic of one tensor; None where the tensor has none."""
        return self._of(kind, model).read(name)

    def _of(self, kind: str, model: ModelRef) -> Kept:
        if (kind, model) not in self.kept:
            raise InputError(f"the {kind} of {model} was not computed; name its prompts")
        return self.kept[kind, model]


class Calibrator:
    """Computes what merges look at beside tensors, each once.

    Args:
        parents: get the statistics.
        tokenizer: of all models.
        folder: where statistics are kept that are not beside their prompts; other processes may
            compute into it, too, one at a time.
        say: is told what is computed.
        texts: by the names of their files, which then need not be there.
    """

    def __init__(
        self,
        parents: Parents,
        tokenizer: "PreTrainedTokenizerBase",
        folder: Path,
        say: Callable[[str], None] = lambda line: None,
        texts: Mapping[str, Texts] = MappingProxyType({}),
    ) -> None:
        self._parents = parents
        self._tokenizer = tokenizer
        self._folder = folder
        self._say = say
        self._at_hand = texts
        self._texts: dict[str, Texts] = {}
        #: Of each model's tensors, and its settings; and a hash of both and tokens.
        self._digests: dict[ModelRef, str] = {}
        self._hashes: dict[tuple[ModelRef, Texts], str] = {}
        self._kept: dict[str, Kept] = {}

    def prepare(self, recipe: Recipe, live: LiveModel) -> tuple[Computed, ...]:
        """Give the parents all that a recipe's merge looks at; compute what is not there.

        Args:
            recipe: what will be merged.
            live: a model in memory, which becomes one after the other.

        Returns:
            What it looks at, computed now or before.

        Raises:
            InputError: the recipe names no prompts, or they cannot be read, or an architecture has
                no such statistics.
            CandidateError: what a model computes is not finite.
        """
        recipe = recipe.with_paths(self._parents.resolve)
        parts = [part for kind in recipe.statistics for part in self._parts(kind, recipe, live)]
        if parts:
            found = {(part.kind, part.model): self._kept[part.key] for part in parts}
            self._parents.statistics = Prepared(found)
        return tuple(parts)

    def folder_of(self, key: str) -> Path:
        """Give the folder of statistics that were computed or found."""
        return self._kept[key].folder

    def _parts(self, kind: str, recipe: Recipe, live: LiveModel) -> list[Computed]:
        """Prepare one kind."""
        if kind not in KINDS:
            raise InputError(
                f"{recipe.merge_method} looks at {kind!r}; statistics are {', '.join(KINDS)}"
            )
        is_joint = KINDS[kind].is_joint
        texts = self._texts_of(kind, recipe)
        about = [self._about(recipe, ref, of, live) for ref, of in texts.items()]
        parts = []
        for (ref, of), own in zip(texts.items(), about, strict=True):
            what = [_FORMAT, kind, own, about if is_joint else None]
            key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
            parts.append(Computed(key, kind, ref, len(of)))
        if all(self._is_kept(part, recipe) for part in parts):
            return parts
        with self._in_turn():  # and others find what this one has computed
            # of models that are the same once
            missing = {part.key: part for part in parts if not self._is_kept(part, recipe)}
            if missing:
                start = time.perf_counter()
                todo = parts if is_joint else list(missing.values())
                self._compute(kind, recipe, texts, todo, live)
                n = sum(len(texts[part.model]) for part in missing.values())
                self._say(f"{kind} from {n} texts: {time.perf_counter() - start:.1f} s")
        return parts

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Keep other processes from computing into the folder until the block ends."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with in_turn(self._folder / ".lock"):
                yield
        except OSError as error:
            raise InputError(f"cannot write {self._folder}: {error.strerror}") from None

    def _texts_of(self, kind: str, recipe: Recipe) -> dict[ModelRef, Texts]:
        """Read the texts of each model that the kind is of."""
        if not recipe.calibration:
            raise InputError(
                f"a merge by {recipe.merge_method} looks at what models compute from prompts "
                f"({kind}), and the recipe names none; add calibration: {{MODEL: FILE}}"
            )
        files = {file.model: file.path for file in recipe.calibration}
        for path in files.values():
            if path not in self._texts:
                file = Path(path)
                self._texts[path] = self._at_hand.get(file.name) or read_texts(file)
        if kind == "activation":  # any prompts do
            assert recipe.aim is not None
            texts = (text for path in files.values() for text in self._texts[path])
            return {recipe.aim.base: tuple(dict.fromkeys(texts))}
        merged = _merged(recipe)
        if lacking := [ref for ref in merged if ref not in files]:
            raise InputError(
                f"calibration must name the prompts of each model that is merged, and "
                f"{lacking[0]} has none; add calibration: {{{lacking[0]}: FILE}}"
            )
        return {ref: self._texts[files[ref]] for ref in merged}

    def _about(self, recipe: Recipe, ref: ModelRef, texts: Texts, live: LiveModel) -> str:
        """Hash what statistics follow from: tensors, settings and tokens."""
        if ref not in self._digests:
            digest = live.become(_alone(recipe, ref)).partition("+")[0]
            settings = json.dumps(dict(live.plan.config), sort_keys=True, default=str)
            self._digests[ref] = f"{digest} {settings}"
        if (ref, texts) not in self._hashes:
            tokens = json.dumps([text.identity for text in self._encoded(ref, texts)])
            about = f"{self._digests[ref]} {tokens}"
            self._hashes[ref, texts] = hashlib.sha256(about.encode()).hexdigest()
        return self._hashes[ref, texts]

    def _encoded(self, ref: ModelRef, texts: Texts) -> list[Encoded]:
        """Encode texts, each no longer than the model reads."""
        limit = self._parents.checkpoint(ref).config.get("max_position_embeddings")
        most = min(N_TOKENS, limit) if isinstance(limit, int) and limit > 0 else N_TOKENS
        return encode(texts, self._tokenizer, most)

    def _is_kept(self, part: Computed, recipe: Recipe) -> bool:
        """Look for statistics where they may be: beside the prompts, or in the own folder."""
        beside = [Path(file.path).parent for file in recipe.calibration or ()]
        for folder in (self._folder, *beside):
            if part.key not in self._kept and (folder / part.key).is_dir():
                self._keep(part, folder / part.key)
        return part.key in self._kept

    def _keep(self, part: Computed, folder: Path) -> None:
        self._kept[part.key] = Kept.open(folder, is_symmetric=KINDS[part.kind].is_symmetric)

    def _compute(
        self,
        kind: str,
        recipe: Recipe,
        texts: Mapping[ModelRef, Texts],
        parts: Sequence[Computed],
        live: LiveModel,
    ) -> None:
        """Compute the statistics of a kind, and keep them."""
        folders = {part.model: self._folder / part.key for part in parts}
        encoded = {ref: self._encoded(ref, texts[ref]) for ref in folders}
        with workers(self._parents.device) as pool:
            if KINDS[kind].is_joint:
                alone = {ref: _alone(recipe, ref) for ref in folders}
                layers = merged_grams(
                    _alone(recipe, *folders), alone, encoded, self._parents, live, pool
                )
                self._write(kind, folders, layers)
            else:
                for ref, folder in folders.items():
                    live.become(_alone(recipe, ref))
                    depth = n_layers(self._parents, ref)
                    found = _statistics(kind, live, depth, encoded[ref], pool)
                    self._write(kind, {ref: folder}, ({ref: entries} for entries in found))
        for part in parts:
            self._keep(part, folders[part.model])

    def _write(
        self,
        kind: str,
        folders: Mapping[ModelRef, Path],
        layers: Iterable[Mapping[ModelRef, list[Entry]]],
    ) -> None:
        """Write what comes layer by layer, of several models side by side.

        Raises:
            CandidateError: of a model it is not finite.
        """
        models = {folder: ref for ref, folder in folders.items()}  # one of those that are the same
        with ExitStack() as stack:
            is_symmetric = KINDS[kind].is_symmetric
            add = {
                ref: stack.enter_context(written(folder, is_symmetric=is_symmetric))
                for folder, ref in models.items()
            }
            for by_model in layers:
                for ref, add_entries in add.items():
                    check_finite(kind, ref, by_model[ref])
                    add_entries(by_model[ref])


def _statistics(
    kind: str, live: LiveModel, depth: int, texts: Sequence[Encoded], pool: Workers
) -> Iterator[list[Entry]]:
    """Compute statistics of the model that is live, layer by layer."""
    names = live.stored_names
    if kind == "fisher":
        by_layer: dict[int | None, list[Entry]] = {}
        for name, tensor in fisher(live.model, names, texts, pool).items():
            # in half of the bytes, and with float32's exponents, as squares need them
            rows = as_rows(tensor).to(torch.bfloat16)
            by_layer.setdefault(layer_of(name), []).append(((name,), rows))
        yield from by_layer.values()
        return
    layers = Layers(live.model, depth, pool)
    passages = layers.enter(texts)
    for i in range(depth):
        sum_of = gram if kind == "gram" else magnitude
        yield summed(layers.inputs(i, passages, advance=True), sum_of, names, pool)


def _alone(recipe: Recipe, *refs: ModelRef) -> Recipe:
    """Make the plain mean of some of a recipe's models, in its vocabulary."""
    whole = recipe.vocabulary is not None
    soup = soup_recipe(refs, "union" if whole else None, recipe.models)
    own = {"tokenizer_source": recipe.tokenizer_source, "tokenizer": recipe.tokenizer}
    return soup.model_copy(update=own)


def _merged(recipe: Recipe) -> tuple[ModelRef, ...]:
    """List the models that are merged; the base where it is one like the others."""
    sources = [source.model for part in recipe.slices for source in part.sources]
    bases = [recipe.base_of(part) for part in recipe.slices]
    if recipe.method.sets_base_apart:
        return tuple(dict.fromkeys(ref for ref in sources if ref not in bases))
    return tuple(dict.fromkeys(ref for ref in (*sources, *bases) if ref is not None))
