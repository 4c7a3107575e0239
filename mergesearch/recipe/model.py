"""The recipe: everything needed to rebuild one merged model."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mergesearch.config import Config, unknown
from mergesearch.methods import METHODS, Method
from mergesearch.recipe.calibration import Aim, Calibration, relative_file, resolved_file
from mergesearch.recipe.chat_templates import AUTO, CHAT_TEMPLATES
from mergesearch.recipe.reference import ModelRef
from mergesearch.recipe.setting import Setting, leaves
from mergesearch.recipe.tokenizer import TokenizerBlock, VocabularySource

Parameters = Mapping[str, Setting]
DType = Literal["float32", "bfloat16", "float16"]
Towers = Literal["merge", "base", "refuse"]

#: Accepted for mergekit's sake: it chooses how mergekit stores a mask, and no value of the result.
IGNORED = ("int8_mask",)


class Source(Config):
    """One model's part in a slice of the output."""

    model: ModelRef
    #: Half-open range of layers; None means all of them. An empty one gives what lies before or
    #: after all layers, where it is the first slice's or the last's.
    layer_range: tuple[int, int] | None = None
    parameters: Parameters = Field(default_factory=dict)

    @field_validator("layer_range")
    @classmethod
    def _ordered(cls, layers: tuple[int, int] | None) -> tuple[int, int] | None:
        if layers is not None and not 0 <= layers[0] <= layers[1]:
            raise ValueError(
                f"layer_range must be [first, end) with 0 <= first <= end, got {list(layers)}"
            )
        return layers

    @property
    def n_layers(self) -> int | None:
        """Layers that the source gives; None for all that its model has."""
        return None if self.layer_range is None else self.layer_range[1] - self.layer_range[0]


class Slice(Config):
    """Consecutive layers of the output, merged from equally long ranges."""

    sources: tuple[Source, ...] = Field(min_length=1)
    base_model: ModelRef | None = None
    parameters: Parameters = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "Slice":
        models = [source.model for source in self.sources]
        if twice := {str(model) for model in models if models.count(model) > 1}:
            raise ValueError(
                f"a slice takes each model once, got twice: {', '.join(sorted(twice))}"
            )
        lengths = {source.n_layers for source in self.sources}
        if len(lengths) > 1:
            ranges = ", ".join(f"{s.model}: {s.layer_range}" for s in self.sources)
            raise ValueError(f"the layer ranges of a slice must be equally long, got {ranges}")
        return self


class Recipe(Config):
    """One merged model, in mergekit's terms; `models` is one slice of all layers.

    Immutable and comparable; `hash` identifies it. Model paths are absolute once it is read by
    `mergesearch.recipe.load_recipe`.

    >>> from mergesearch import read_recipe
    >>> recipe = read_recipe('''
    ... merge_method: task_arithmetic
    ... base_model: models/base
    ... models:
    ... - {model: models/one, parameters: {weight: 0.7}}
    ... - {model: models/two, parameters: {weight: 0.4}}
    ... ''')
    >>> [str(model) for model in recipe.models]
    ['models/base', 'models/one', 'models/two']
    >>> recipe.hash[:12]
    'd842333e4f5b'
    """

    merge_method: str
    slices: tuple[Slice, ...] = Field(min_length=1)
    base_model: ModelRef | None = None
    parameters: Parameters = Field(default_factory=dict)
    #: The dtype of the result unless `out_dtype` is given; the arithmetic is always in float32.
    dtype: DType | None = None
    #: The dtype of the result; None means `dtype`, and else what the first model stores.
    out_dtype: DType | None = None
    #: Whose vocabulary the result has where the models' differ: the base's, all of theirs, or that
    #: of a model that is named. None means that they must not differ.
    tokenizer_source: VocabularySource | None = None
    #: The same, and more of it, in place of `tokenizer_source`.
    tokenizer: TokenizerBlock | None = None
    #: A Jinja template, the name of one of `CHAT_TEMPLATES`, or "auto": what most models have.
    chat_template: str | None = None
    #: Vision and audio towers, where a model has them, with their projectors: merged like all else
    #: (None), the base's own or without a base the first model's ("base"), or an error ("refuse").
    towers: Towers | None = None
    #: Files of prompts by model, for methods that look at what models compute; not mergekit's.
    calibration: Calibration | None = None
    #: Change input channels that the base uses less than others; not mergekit's.
    aim: Aim | None = None
    #: What random methods draw from.
    seed: int = Field(default=0, ge=0)

    @property
    def method(self) -> Method:
        """The row of the method table."""
        return METHODS[self.merge_method]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical form: one for all spellings of a recipe.

        Files of prompts count by their names, which in a run are hashes of what they hold.
        """
        canonical = self.with_files(lambda path: Path(path).name)
        text = json.dumps(canonical.model_dump(mode="json", exclude_none=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Every model it mentions, the base first, each once."""
        bases = [self.base_model, *(part.base_model for part in self.slices)]
        sources = [source.model for part in self.slices for source in part.sources]
        models = [*bases, *sources, self.aim.base if self.aim else None]
        return tuple(dict.fromkeys(ref for ref in models if ref is not None))

    @property
    def statistics(self) -> tuple[str, ...]:
        """The kinds of statistics that its merge looks at."""
        return (*self.method.statistics, *(("activation",) if self.aim else ()))

    @property
    def beyond_mergekit(self) -> tuple[str, ...]:
        """The reasons for which mergekit cannot merge it, as clauses; none where it can."""
        method = () if self.method.in_mergekit else (f"has no method {self.merge_method}",)
        return (*method, *(("has no key aim",) if self.aim else ()))

    @property
    def vocabulary(self) -> TokenizerBlock | None:
        """The vocabulary of the result; None where the models must have one."""
        if self.tokenizer is not None or self.tokenizer_source is None:
            return self.tokenizer
        return TokenizerBlock(source=self.tokenizer_source)

    def base_of(self, part: Slice) -> ModelRef | None:
        """Return the base that a slice's task vectors are taken from."""
        return part.base_model or self.base_model

    def with_paths(self, change: Any) -> "Recipe":
        """Replace every model reference by `change(reference)`."""

        def moved(ref: ModelRef | None) -> ModelRef | None:
            return None if ref is None else change(ref)

        slices = tuple(
            part.model_copy(
                update={
                    "base_model": moved(part.base_model),
                    "sources": tuple(
                        s.model_copy(update={"model": moved(s.model)}) for s in part.sources
                    ),
                }
            )
            for part in self.slices
        )
        source, block, aim = self.tokenizer_source, self.tokenizer, self.aim
        prompts = self.calibration and tuple(
            file.model_copy(update={"model": change(file.model)}) for file in self.calibration
        )
        return self.model_copy(
            update={
                "base_model": moved(self.base_model),
                "slices": slices,
                "tokenizer_source": change(source) if isinstance(source, ModelRef) else source,
                "tokenizer": None if block is None else block.with_paths(change),
                "calibration": prompts,
                "aim": aim and aim.model_copy(update={"base": change(aim.base)}),
            }
        )

    def with_files(self, change: Callable[[str], str]) -> "Recipe":
        """Replace every path of a file of prompts by `change(path)`."""
        if self.calibration is None:
            return self
        files = tuple(file.with_file(change) for file in self.calibration)
        return self.model_copy(update={"calibration": files})

    def resolved(self, folder: Path, *, must_exist: bool = True) -> "Recipe":
        """Resolve relative paths against `folder`.

        Args:
            folder: holds the file that has the recipe.
            must_exist: False reads a recipe whose models are gone, which nothing can merge.

        Raises:
            InputError: a model's folder or a file of prompts is missing.
        """

        def absolute(ref: ModelRef) -> ModelRef:
            return ref.resolved(folder, must_exist=must_exist)

        recipe = self.with_paths(cache(absolute))  # each model once
        return recipe.with_files(lambda path: resolved_file(path, folder, must_exist=must_exist))

    def relative(self, folder: Path) -> "Recipe":
        """Write paths as a file in `folder` would: the inverse of `resolved`."""
        recipe = self.with_paths(cache(lambda ref: ref.relative(folder)))
        return recipe.with_files(lambda path: relative_file(path, folder))

    @field_validator("towers")
    @classmethod
    def _merged_is_nothing_said(cls, towers: Towers | None) -> Towers | None:
        return None if towers == "merge" else towers  # one hash for one model

    @model_validator(mode="after")
    def _buildable(self) -> "Recipe":
        if self.merge_method not in METHODS:
            raise ValueError(unknown("merge_method", self.merge_method, METHODS))
        if self.tokenizer is not None and self.tokenizer_source is not None:
            raise ValueError("give either tokenizer or tokenizer_source")
        template = self.chat_template
        if template is not None and template not in (AUTO, *CHAT_TEMPLATES) and "{" not in template:
            names = ", ".join((AUTO, *CHAT_TEMPLATES))
            raise ValueError(f"chat_template must be {names} or a Jinja template, got {template!r}")
        if all(source.n_layers == 0 for part in self.slices for source in part.sources):
            raise ValueError("a model needs layers, but every layer_range is empty")
        for parameters in self._all_parameters():
            for name, setting in parameters.items():
                _check_parameter(self.method, name, setting)
        for part in self.slices:
            self._check_inputs(part)
        if any(source.n_layers is None for part in self.slices for source in part.sources):
            self._check_whole_models(*self.slices)
        return self

    def _check_whole_models(self, part: Slice, *others: Slice) -> None:
        """Models without layer ranges are mergekit's `models` form, which has no slices."""
        if others:
            raise ValueError("every source of more than one slice needs a layer_range")
        if part.parameters or part.base_model is not None:
            raise ValueError(
                "a slice of whole models has no parameters or base_model of its own; "
                "give them to the recipe"
            )

    def _all_parameters(self) -> Iterator[Parameters]:
        yield self.parameters
        for part in self.slices:
            yield part.parameters
            for source in part.sources:
                yield source.parameters

    def _check_inputs(self, part: Slice) -> None:
        method, base = self.method, self.base_of(part)
        models = [source.model for source in part.sources]
        if method.needs_base and base is None:
            raise ValueError(f"{self.merge_method} needs a base_model; name the common ancestor")
        if base is not None and base not in models and not method.sets_base_apart:
            models.append(base)
        n = len([m for m in models if not (method.sets_base_apart and m == base)])
        low, high = method.n_models
        if not low <= n <= high:
            besides = " besides the base" if method.sets_base_apart else ""
            wanted = f"exactly {low}" if low == high else f"at least {low}"
            raise ValueError(f"{self.merge_method} takes {wanted} model{besides}, got {n}")


def _check_parameter(method: Method, name: str, setting: Setting) -> None:
    """Refuse values out of range, and names that no method has.

    A name of another method is unused.
    """
    parameter = method.parameter(name)
    if parameter is None:
        known = {p.name for row in METHODS.values() for p in row.parameters}
        if name not in known and name not in IGNORED:
            raise ValueError(unknown("parameter", name, [p.name for p in method.parameters]))
        return
    for value in leaves(setting):
        parameter.check(value)
