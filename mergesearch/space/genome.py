"""mergekit-evolve's genome files, read as search spaces.

A key means what mergekit 0.1.5 makes of it: its docs/evolve.md, and what it does where that is
silent. What has no meaning here is refused, with what to do instead.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from mergesearch.config import Config, parse, unknown
from mergesearch.methods import METHODS
from mergesearch.recipe import ModelRef, VocabularySource
from mergesearch.space.domains import Domain, Fixed, Range
from mergesearch.space.settings import RESERVED, Names
from mergesearch.tasks import Suite

#: The methods of genomes, each with what a search of its space can try first.
GENOME_METHODS: Mapping[str, tuple[str, ...]] = {
    "linear": ("parents", "uniform"),
    "task_arithmetic": ("parents", "uniform", "task_arithmetic"),
    "ties": ("parents",),
    "dare_ties": (),
    "slerp": (),
}
#: Those of them that normalize weights unless a genome says otherwise.
_NORMALIZED = ("linear", "ties", "dare_ties")
#: Not from 0 on, which no recipe takes: a weight of 0 says the same.
_DENSITY = Range(0.01, 1.0)


class Genome(Config):
    """The models, the method and the granularity: the key `genome`."""

    models: tuple[ModelRef, ...] = Field(min_length=1)
    merge_method: str
    base_model: ModelRef | None = None
    tokenizer_source: VocabularySource | None = None
    #: How many consecutive layers have one set of parameters; all of them where it is below 1.
    layer_granularity: int = 0
    #: Whether weights are divided by their sum; None leaves it to the method. slerp has none.
    normalize: bool | None = None
    #: slerp has no use for it either: whatever two weights are, its t lies between 0 and 1.
    allow_negative_weights: bool = False
    filters: tuple[str, ...] | None = None
    smooth: bool = False

    @field_validator("merge_method")
    @classmethod
    def _of_genomes(cls, name: str) -> str:
        if name in METHODS and name not in GENOME_METHODS:
            raise ValueError(
                f"mergekit-evolve searches {', '.join(GENOME_METHODS)}, got {name!r}; write a "
                "space, whose key methods takes every method"
            )
        if name not in GENOME_METHODS:
            raise ValueError(unknown("merge_method", name, GENOME_METHODS))
        return name

    @model_validator(mode="after")
    def _searchable(self) -> "Genome":
        method, base = self.merge_method, self.base_model
        if not self.has_base:
            self._check_models_alone()
        elif base is None:
            raise ValueError(f"{method} needs a base_model; name the models' common ancestor")
        elif set(self.models) == {base}:
            raise ValueError(f"models must name a model beside the base_model, got {base} alone")
        if method == "slerp":
            self._check_slerp()
        return self

    def _check_models_alone(self) -> None:
        """Refuse what a method without a base cannot use; mergekit-evolve's runs fail."""
        method, base = self.merge_method, self.base_model
        if base is not None and base not in self.models:
            raise ValueError(
                f"{method} merges models only, and base_model {base} is none of them; "
                "add it to models or leave it out"
            )
        if self.tokenizer_source is not None:
            raise ValueError(
                f"tokenizer_source goes with methods that have a base, not with {method}; leave it "
                "out, which merges models of one vocabulary"
            )

    def _check_slerp(self) -> None:
        if self.smooth or self.filters:
            raise ValueError(
                "slerp takes neither smooth nor filters, as in mergekit-evolve; write a space, "
                "whose granularity has both for every method"
            )
        if len(self.models) < 2:
            raise ValueError(f"slerp needs two models, got {len(self.models)}")
        if len(self.models) > 2 and self.layer_granularity > 0:
            raise ValueError(
                f"slerp of {len(self.models)} models chooses one pair for all layers, and "
                "layer_granularity would choose one a block; leave it out, or give two models"
            )

    @property
    def has_base(self) -> bool:
        """If it is deltas from the base that are merged."""
        return METHODS[self.merge_method].base == "required"

    @property
    def parents(self) -> dict[str, ModelRef]:
        """The models by name; without the base, whose delta is zero whatever its weight."""
        parents = [m for m in self.models if not (self.has_base and m == self.base_model)]
        return dict(zip(_names(parents), parents, strict=True))

    @property
    def varied(self) -> tuple[str, ...]:
        """The parameters that vary by block, filter and model beside the weights."""
        return ("density",) if METHODS[self.merge_method].parameter("density") else ()

    def domains(self) -> dict[str, Domain]:
        """Return the domains of parameters; for the others the method's ranges hold."""
        if self.merge_method == "slerp":
            # Of two weights the larger is mergekit-evolve's base, and t their softmax: together,
            # what lies between the first model at t = 0 and the second at t = 1.
            return {}
        normalize = self.merge_method in _NORMALIZED if self.normalize is None else self.normalize
        domains: dict[str, Domain] = {"normalize": Fixed(normalize)}
        if self.allow_negative_weights:
            weight = METHODS[self.merge_method].parameter("weight")
            assert weight and weight.search
            domains["weight"] = Range(-weight.search[1], weight.search[1])
        if self.has_base:
            domains["lambda"] = Fixed(1.0)
        if self.varied:
            domains["density"] = _DENSITY
        return domains


class GenomeTask(Config):
    """One lm-eval task and its weight; its name alone where the rest is left out."""

    shorthand: ClassVar = {"type": "string"}
    written: ClassVar = "a task's name"

    name: str = Field(min_length=1)
    weight: float = 1.0
    metric: str = "acc,none"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, raw: Any) -> Any:
        return {"name": raw} if isinstance(raw, str) else raw

    @field_validator("weight")
    @classmethod
    def _positive(cls, weight: float) -> float:
        if weight < 0:
            raise ValueError(
                f"a weight must be above 0, since the task itself says whether lower is better, "
                f"got {weight:g}; write {-weight:g}"
            )
        if weight == 0:
            raise ValueError("a weight must be above 0, got 0; leave the task out")
        return weight


class GenomeFile(Config):
    """A genome file: mergekit-evolve's keys, and three of a suite that it passes over."""

    genome: Genome
    tasks: tuple[GenomeTask, ...] = Field(min_length=1)
    #: Score the first so many documents of each of the tasks.
    limit: int | None = Field(default=None, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0)
    shuffle: bool = False
    #: Begin at random points, and not at known ones.
    random_init: bool = False
    apply_chat_template: bool = True
    fewshot_as_multiturn: bool = True
    #: Folders of task YAMLs, in place of the option --task-search-path.
    include_path: Names = ()
    #: Tasks that score the winner alone, on all of their documents.
    held_out: tuple[GenomeTask, ...] = ()
    #: In place of the option --i-understand-the-depths-of-the-evils-i-am-unleashing.
    allow_benchmarks: bool = False

    @model_validator(mode="after")
    def _same_documents(self) -> "GenomeFile":
        # without a limit all documents are scored, whose order is of no account
        if self.shuffle and self.limit is not None:
            raise ValueError(
                f"shuffle with limit: {self.limit} scores other documents in every process, which "
                "leaves candidates that cannot be compared; leave shuffle out, which takes the "
                "first documents, or shuffle the task's data once"
            )
        return self

    def suite(self, where: str) -> Suite:
        """Make a suite of the tasks."""
        searched = [self._spec(task) | {"limit": self.limit} for task in self.tasks]
        suite = {
            "include_path": self.include_path,
            "search": searched,
            "held_out": [self._spec(task) for task in self.held_out],
            "allow_benchmarks": self.allow_benchmarks,
        }
        return parse(Suite, suite, where)

    def _spec(self, task: GenomeTask) -> dict[str, Any]:
        return {
            "task": task.name,
            "metric": task.metric,
            "weight": task.weight,
            "num_fewshot": self.num_fewshot,
            "apply_chat_template": self.apply_chat_template,
            "fewshot_as_multiturn": self.fewshot_as_multiturn,
        }


def is_genome(data: Mapping[str, Any]) -> bool:
    """Say if a YAML file's mapping is a genome file, and not a space."""
    return "genome" in data


def space_of_genome(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the keys of the space that a genome file means.

    Args:
        data: what the file holds.
        where: what to call it in an error, usually its path.

    Raises:
        InputError: as `where: key: what is wrong`.
    """
    file = parse(GenomeFile, data, where)
    genome = file.genome
    return {
        "base": genome.base_model if genome.has_base else None,
        "parents": genome.parents,
        "granularity": {
            "layers_per_block": max(genome.layer_granularity, 0) or None,
            "groups": genome.filters or (),
            "smooth": genome.smooth,
            "by_block": genome.varied,
            "per_parent": genome.varied,
        },
        "methods": {genome.merge_method: genome.domains()},
        "tokenizer_source": genome.tokenizer_source,
        "suite": file.suite(where),
        "search": {"start_from": () if file.random_init else GENOME_METHODS[genome.merge_method]},
    }


def _names(models: Sequence[ModelRef]) -> list[str]:
    """Name each model: by as much of the end of its reference as tells them all apart."""
    parts = [
        [plain for part in re.split(r"[/+]", str(model)) if (plain := _plain(part))]
        for model in models
    ]
    for n in range(1, max(map(len, parts), default=0) + 1):
        names = ["-".join(of[-n:]) for of in parts]
        if len({"", *RESERVED, *names}) == 1 + len(RESERVED) + len(names):
            return names
    return [f"model-{i}" for i in range(1, len(models) + 1)]


def _plain(part: str) -> str:
    """Letters, digits, _ and -, and - for whatever else there is."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-")
