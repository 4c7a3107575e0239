"""The search-space YAML."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mergesearch.config import Config, parse, read_yaml, unknown
from mergesearch.errors import InputError
from mergesearch.methods import METHODS
from mergesearch.recipe import (
    ModelRef,
    Recipe,
    Towers,
    VocabularySource,
    resolved_file,
    soup_recipe,
    task_arithmetic_recipe,
)
from mergesearch.samplers import SAMPLERS
from mergesearch.space.calibrating import AimSettings, Prompts
from mergesearch.space.choices import (
    GREEDY_SOUP,
    LEARNED,
    STACKING,
    Spec,
    as_specs,
    default_methods,
)
from mergesearch.space.domains import Domain
from mergesearch.space.genome import is_genome, space_of_genome
from mergesearch.space.learned import Learned
from mergesearch.space.lines import ALPHA
from mergesearch.space.settings import (
    AUTO,
    BEST_PARENT,
    RESERVED,
    Granularity,
    SearchSettings,
    number_or_name,
)
from mergesearch.space.stacking import Stacking
from mergesearch.tasks import Suite, load_suite

Methods = Annotated[Mapping[str, Spec], BeforeValidator(as_specs)]


class SearchSpace(Config):
    """The models that may be merged, the methods, and the suite that scores them.

    >>> from pathlib import Path
    >>> from mergesearch import SearchSpace
    >>> space = SearchSpace.load(Path("space.yaml"))
    >>> list(space.parents), list(space.methods), space.search.trials
    (['one', 'two'], ['linear', 'task_arithmetic', 'ties'], 8)
    """

    base: ModelRef | None = None
    parents: Mapping[str, ModelRef] = Field(min_length=1)
    #: How many of the parents go into one candidate, at least and at most; None means all of them.
    subset: tuple[int, int] | None = None
    granularity: Granularity = Granularity()
    #: What may be tried; where none is named, `default_methods`.
    methods: Methods
    #: Whose vocabulary every candidate has: the base's, all models', or that of one model, a parent
    #: by its name; None means that the models' must not differ.
    tokenizer_source: VocabularySource | None = None
    #: Vision and audio towers of every candidate; see the recipe's.
    towers: Towers | None = None
    #: Prompts for methods that look at what models compute: a file (a text a line, or JSONL) for
    #: each parent; or "learn", as None means where a method needs some: documents of the suite, of
    #: its learn tasks or that its search tasks' limits leave over, each task's for its expert.
    calibration: Prompts | None = None
    #: What is done with the candidates of every method, but stacks, soups and learned ones:
    #: Activation-Informed Merging.
    aim: AimSettings | None = None
    #: A file, or the suite itself; None is for learning from prompts alone.
    suite: Suite | Path | None = None
    search: SearchSettings = SearchSettings()

    @classmethod
    def load(cls, path: Path) -> "SearchSpace":
        """Read a space, or a genome file of mergekit-evolve.

        Relative paths in it resolve against its own folder.

        Raises:
            InputError: as `file: key: what is wrong`.
        """
        path = Path(path)
        data = read_yaml(path)
        if is_genome(data):
            data = space_of_genome(data, str(path))
        return resolve(parse(cls, data, str(path)), path)

    def load_suite(self) -> Suite:
        """Return the suite, read from its file where it is in one.

        Raises:
            InputError: the space names none, or the file is not a valid suite.
        """
        if self.suite is None:
            raise InputError(
                "the space names no suite, on which candidates are scored; add suite: FILE.yaml"
            )
        return self.suite if isinstance(self.suite, Suite) else load_suite(self.suite)

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Every model, the base first."""
        return tuple(ref for ref in (self.base, *self.parents.values()) if ref is not None)

    def soup(self, models: Sequence[ModelRef] | None = None) -> Recipe:
        """Make the plain mean of some models, in the vocabulary of all candidates.

        Args:
            models: what goes in; None is every parent.
        """
        chosen = list(self.parents.values()) if models is None else models
        return self.with_towers(soup_recipe(chosen, self.tokenizer_source, self.models))

    def task_arithmetic(self, scale: float) -> Recipe:
        """Add every parent's task vector to the base at one scale; there must be a base."""
        assert self.base is not None
        parents = list(self.parents.values())
        recipe = task_arithmetic_recipe(self.base, parents, scale, self.tokenizer_source)
        return self.with_towers(recipe)

    def with_towers(self, recipe: Recipe) -> Recipe:
        """Let a recipe do with towers what the space says."""
        return recipe.model_copy(update={"towers": self.towers}) if self.towers else recipe

    @model_validator(mode="before")
    @classmethod
    def _with_methods(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "methods" in data:
            return data
        return {**data, "methods": default_methods(has_base=data.get("base") is not None)}

    @field_validator("parents")
    @classmethod
    def _plain_names(cls, parents: Mapping[str, ModelRef]) -> Mapping[str, ModelRef]:
        for name in parents:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"a parent's name is letters, digits, _ and -, got {name!r}")
            if name in RESERVED:
                raise ValueError(f"a parent must not be named {name!r}; {RESERVED[name]}")
        seen: dict[ModelRef, str] = {}
        for name, ref in parents.items():
            if ref in seen:
                raise ValueError(f"{seen[ref]} and {name} are the same model, {ref}")
            seen[ref] = name
        return parents

    @model_validator(mode="after")
    def _searchable(self) -> "SearchSpace":
        if self.base is not None and self.base in self.parents.values():
            raise ValueError(f"the base {self.base} must not be one of the parents as well")
        if self.tokenizer_source is not None:
            self._check_vocabulary()
        if self.subset is not None:
            self._check_subset(*self.subset)
        self._check_granularity()
        fewest = len(self.parents) if self.subset is None else self.subset[0]
        for name in self.domains:
            chosen = METHODS[name].n_chosen
            if (chosen or fewest) < METHODS[name].n_models[0] or len(self.parents) < chosen:
                least = chosen or METHODS[name].n_models[0]
                got = len(self.parents) if chosen else fewest
                raise ValueError(f"{name} needs at least {least} parents, got {got}")
            if METHODS[name].base == "required" and self.base is None:
                raise ValueError(f"{name} needs a base; name the common ancestor of the parents")
            if METHODS[name].needs_adapters:
                self._check_adapters(name)
        if (learned := self.learned) is not None:
            self.check_learned(learned)
        self._check_calibration()
        self._check_sampler()
        self._check_constraints()
        return self

    def _check_adapters(self, name: str) -> None:
        """Refuse a method of adapters where a parent is none, or one of another base."""
        for parent, ref in self.parents.items():
            if ref.lora is None or self.base is None or ref.model != self.base.model:
                raise ValueError(
                    f"{name} merges LoRA adapters of the base (base+adapter), but {parent} is "
                    f"{ref}; drop {name}, or take the method without core_"
                )

    @property
    def domains(self) -> dict[str, Mapping[str, Domain]]:
        """The methods of the space that merge tensors, with what their parameters may be."""
        specs = self.methods.items()
        return {k: v for k, v in specs if k in METHODS and isinstance(v, Mapping)}

    @property
    def stacking(self) -> Stacking | None:
        """The space's settings of stacks, if it has them."""
        spec = self.methods.get(STACKING)
        return spec if isinstance(spec, Stacking) else None

    @property
    def learned(self) -> Learned | None:
        """The space's settings of what is learned, if it has them."""
        spec = self.methods.get(LEARNED)
        return spec if isinstance(spec, Learned) else None

    def check_learned(self, learned: Learned) -> None:
        """Refuse to learn of a method that cannot merge all of the parents.

        Raises:
            ValueError: it cannot, or needs a base.
        """
        name, method, n = learned.of, learned.method, len(self.parents)
        if method.base == "required" and self.base is None:
            raise ValueError(
                f"learned: {name} needs a base; name the common ancestor of the parents"
            )
        least, most = method.n_models
        n_merged = n - (method.base == "first")
        if not least <= n_merged <= most:
            takes = str(method.n_chosen) if method.n_chosen else f"{least} or more"
            raise ValueError(
                f"learned: {name} must take all {n} parents, but it takes {takes}; learn of "
                "another method"
            )
        if self.tokenizer_source is not None and method.base != "required":
            raise ValueError(
                f"learned: all candidates must have one vocabulary, which {name} has no base for; "
                "learn of task_arithmetic, or drop tokenizer_source"
            )

    def _check_calibration(self) -> None:
        if isinstance(self.calibration, Mapping):
            for name in self.calibration:
                if name not in self.parents:
                    raise ValueError(f"calibration: {unknown('parent', name, self.parents)}")
        if self.aim is not None and self.base is None:
            raise ValueError("aim needs a base; name the common ancestor of the parents")

    def _check_vocabulary(self) -> None:
        if self.base is None:
            raise ValueError(
                f"tokenizer_source {self.tokenizer_source} needs a base; name the model whose "
                "tokens come first"
            )
        if self.subset is not None:
            raise ValueError(
                "all candidates must have one vocabulary, but subset leaves parents out; drop it "
                "or tokenizer_source"
            )
        for name in self.methods:
            if name not in (GREEDY_SOUP, LEARNED) and not _takes_all(name):
                raise ValueError(
                    f"all candidates must have one vocabulary, but {name} merges models of its own "
                    "choice; drop it or tokenizer_source"
                )

    def _check_subset(self, least: int, most: int) -> None:
        if not 1 <= least <= most <= len(self.parents):
            raise ValueError(
                f"subset is how many of the {len(self.parents)} parents go in, at least and at "
                f"most, got [{least}, {most}]"
            )
        for name in self.methods:
            chosen = self._n_chosen(name)
            if chosen is not None and not least <= chosen[0] <= chosen[1] <= most:
                n = f"{chosen[0]} to {chosen[1]}" if chosen[0] < chosen[1] else chosen[0]
                raise ValueError(
                    f"{name} merges {n} of the parents, by its own choice, but subset is "
                    f"[{least}, {most}]; drop {name} or widen subset"
                )

    def _n_chosen(self, name: str) -> tuple[int, int] | None:
        """Return how many parents a method chooses, from and to; None: subset does."""
        if name == GREEDY_SOUP:
            return 1, len(self.parents)
        if name == LEARNED:
            return len(self.parents), len(self.parents)
        if (stacking := self.stacking) and name == STACKING:
            return 1, min(stacking.segments, len(self.parents))
        n = METHODS[name].n_chosen
        return (n, n) if n else None

    def _check_granularity(self) -> None:
        """Refuse to vary what no method of the space has."""
        known = {p.name: p for name in self.domains for p in METHODS[name].parameters}
        lists = {"by_block": known, "per_parent": {n: p for n, p in known.items() if p.per_model}}
        for key, allowed in lists.items():
            for name in getattr(self.granularity, key):
                if name not in allowed:
                    raise ValueError(f"granularity.{key}: {unknown('parameter', name, allowed)}")
        if self.granularity.smooth and any(ALPHA in domains for domains in self.domains.values()):
            raise ValueError(
                "granularity: smooth and a method's lines both interpolate over the depth; leave "
                "one of them out"
            )
        for name in self.granularity.by_block:
            if self.granularity.smooth and known[name].kind is int:
                raise ValueError(
                    f"granularity: smooth interpolates what varies by block, but {name} is a whole "
                    f"number; leave {name} out of by_block, or smooth out"
                )

    def _check_sampler(self) -> None:
        """Refuse what the sampler's row says that it cannot search."""
        name = self.search.sampler
        if name == AUTO:
            return
        sampler = SAMPLERS[name]
        if len(self.methods) > 1 and not sampler.conditional:
            raise ValueError(
                f"sampler {name} searches one method, since it draws categorical choices at "
                f"random; got {', '.join(self.methods)}: keep one, or use tpe"
            )
        if len(self.search.objectives) > 1 and not sampler.several_objectives:
            raise ValueError(
                f"sampler {name} searches one objective, got "
                f"{', '.join(self.search.objectives)}: keep one, or use nsga2"
            )

    def _check_constraints(self) -> None:
        """Refuse bounds that name nothing, or may be a number as well as a parent."""
        for constraint in self.search.constraints:
            bound = constraint.bound
            if isinstance(bound, str) and bound not in (BEST_PARENT, *self.parents):
                raise ValueError(
                    f"search.constraints: {constraint}: "
                    + unknown("bound", bound, ["a number", BEST_PARENT, *self.parents])
                )
            for name in self.parents:
                if isinstance(bound, float) and bound == number_or_name(name):
                    raise ValueError(
                        f"search.constraints: {constraint}: the bound may be a number or the "
                        f"parent {name!r}; rename the parent"
                    )


def resolve(space: SearchSpace, path: Path) -> SearchSpace:
    """Make the paths of a space absolute, which are relative to the file that gave it.

    Raises:
        InputError: one of them leads nowhere.
    """
    folder = path.parent
    try:
        if isinstance(space.suite, Suite):
            suite: Suite | Path | None = space.suite.resolved(folder, "suite")
        elif space.suite is None:
            suite = None
        else:
            suite = (folder / space.suite).resolve()
            if not suite.is_file():
                raise InputError(f"suite: no such file: {suite}")
        resolved = {
            "base": space.base and space.base.resolved(folder),
            "parents": {n: ref.resolved(folder) for n, ref in space.parents.items()},
            "tokenizer_source": _vocabulary(space, folder),
            "calibration": _prompts(space, folder),
            "suite": suite,
        }
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # again, since two spellings may lead to one folder
    return parse(SearchSpace, {**dict(space), **resolved}, str(path))


def _prompts(space: SearchSpace, folder: Path) -> Prompts | None:
    """Find the files of prompts.

    Raises:
        InputError: one is missing.
    """
    if not isinstance(space.calibration, Mapping):
        return space.calibration
    return {n: Path(resolved_file(str(p), folder)) for n, p in space.calibration.items()}


def _vocabulary(space: SearchSpace, folder: Path) -> VocabularySource | None:
    """Find the model whose tokenizer is named: a parent, or a folder."""
    source = space.tokenizer_source
    if not isinstance(source, ModelRef):
        return source
    return space.parents.get(str(source), source).resolved(folder)


def _takes_all(name: str) -> bool:
    """Say if a method's candidates can name the base and every parent."""
    method = METHODS.get(name)
    if method is None:
        return False
    return name == "linear" or (method.base == "required" and not method.n_chosen)
