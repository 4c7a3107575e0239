"""The settings of a space: its granularity, constraints, and the search."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mergesearch.config import Config, unknown
from mergesearch.objectives import OBJECTIVES, SCORE
from mergesearch.samplers import SAMPLERS

#: The sampler that is chosen by the space.
AUTO = "auto"
#: What stands for the best of the parents in a constraint.
BEST_PARENT = "parents"
#: Names that no parent may have, each with why or what to do instead.
RESERVED = {
    "base": "give the base by the key base",
    BEST_PARENT: "in a constraint it stands for the best of them; rename it",
    "winner": "so the leaderboard calls the best of the search; rename it",
}

_CONSTRAINT = re.compile(r"\s*(?P<what>[^<>=\s]+)\s*(?P<relation><=|>=)\s*(?P<bound>[^<>=\s]+)\s*")
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | tuple[str, ...])
]


class Granularity(Config):
    """The parts of a model over which parameters vary.

    Weights, and the few other parameters that may (a slerp's t), vary by block of layers and by
    group of tensors. A group's name is a part of tensor names, such as self_attn; tensors in no
    group share one more set. A group outside the layers (embed_tokens, lm_head) has one set for the
    whole model. With `smooth` the values are interpolated between the blocks.
    """

    #: Parts of the depth, as equal as whole layers allow.
    blocks: int = Field(default=1, ge=1)
    #: Layers of a block, in place of `blocks`; the last block may have fewer.
    layers_per_block: int | None = Field(default=None, ge=1)
    groups: Names = ()
    smooth: bool = False
    #: Further parameters that vary by block and group: density, gamma, …
    by_block: Names = ()
    #: Parameters of which each parent has its own; otherwise only weights differ by parent.
    per_parent: Names = ()

    @model_validator(mode="after")
    def _one_measure(self) -> "Granularity":
        if self.layers_per_block is not None and self.blocks > 1:
            raise ValueError(
                f"give blocks or layers_per_block, got both ({self.blocks} and "
                f"{self.layers_per_block})"
            )
        return self


class Constraint(Config):
    """A bound that the winner must keep: `size <= 150M`, `sst2_dev >= sentiment`.

    Written as one string.
    """

    shorthand: ClassVar = {
        "type": "string",
        "pattern": "^" + re.sub(r"\?P<\w+>", "", _CONSTRAINT.pattern) + "$",
    }
    written: ClassVar = "text, as in 'size <= 150M'"

    what: str
    relation: Literal["<=", ">="]
    #: A number, the name of a parent (its own value), or "parents" (the best of theirs).
    bound: float | str

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, raw: Any) -> Any:
        if not isinstance(raw, str):
            return raw
        parts = _CONSTRAINT.fullmatch(raw)
        if parts is None:
            raise ValueError(
                f"a constraint is written as in 'size <= 150M' or 'some_task >= parents', got "
                f"{raw!r}"
            )
        return {**parts.groupdict(), "bound": number_or_name(parts["bound"])}

    def __str__(self) -> str:
        # as many digits as it takes to tell bounds apart, of sizes too
        bound = f"{self.bound:.15g}" if isinstance(self.bound, float) else self.bound
        return f"{self.what} {self.relation} {bound}"


class SearchSettings(Config):
    """The sampler, budget and aims of a search."""

    #: A row of `SAMPLERS`, or "auto".
    sampler: str = AUTO
    #: Trials drawn at random before `tpe` and `gp` learn from them; None means ten a method, but
    #: beyond ten no more than a quarter of whichever limit of the budget is nearest.
    startup: int | None = Field(default=None, ge=1)
    #: The budget: whichever is spent first ends the search.
    trials: int = Field(default=100, ge=1)
    documents: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    #: Trials without an improvement beyond noise after which the search ends; None never ends it.
    patience: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    #: What is tried first: coefficients that are learned, single parents, the uniform soup, task
    #: arithmetic at a few scales; weights by norms of task vectors, T: |T|^2 (MetaGPT,
    #: arXiv:2406.11385), 1 / |T| (NAN, arXiv:2505.16148), each as a part of all parents'.
    start_from: tuple[
        Literal["learned", "parents", "uniform", "task_arithmetic", "metagpt", "nan"], ...
    ] = (
        "learned",
        "parents",
        "uniform",
        "task_arithmetic",
    )
    #: Share of the budget, at its end, that goes into small steps from the best.
    refine: float = Field(default=0.2, ge=0, le=1)
    #: Whether candidates that will not beat the best are stopped early.
    racing: bool = True
    #: Rows of `OBJECTIVES`: "score" (the suite's total), "size" (number of parameters), …; or tasks
    #: of the suite.
    objectives: Annotated[Names, Field(min_length=1)] = (SCORE,)
    constraints: tuple[Constraint, ...] = ()

    @field_validator("sampler")
    @classmethod
    def _known_sampler(cls, name: str) -> str:
        if name != AUTO and name not in SAMPLERS:
            raise ValueError(unknown("sampler", name, [AUTO, *SAMPLERS]))
        return name

    @field_validator("objectives")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"an objective may be named once, got {', '.join(names)}")
        if all(name in OBJECTIVES and not OBJECTIVES[name].from_documents for name in names):
            raise ValueError(
                f"the {' and '.join(names)} alone is no objective; add score or a task"
            )
        return names


def number_or_name(text: str) -> float | str:
    """Read a number, with K, M or B for thousands, millions, billions; or a name."""
    digits, factor = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1)
    try:
        return float(digits) * factor
    except ValueError:
        return text
