"""The plan of a merged model: a job for each of its tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from mergesearch.methods import Method
from mergesearch.recipe import ModelRef


@dataclass(frozen=True)
class Input:
    """One tensor of one parent."""

    model: ModelRef
    name: str


@dataclass(frozen=True)
class Held:
    """A bound on the change of a base's tensor, by channel; see `recipe.Aim`."""

    base: Input
    omega: float


@dataclass(frozen=True)
class Job:
    """The inputs, method and arguments that one tensor of the merged model is made of."""

    name: str
    method: Method
    base: Input | None
    models: tuple[Input, ...]
    #: Keyword arguments of the method's function.
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype
    #: Its first entry in the flattened model, and how many entries that has.
    flat_range: tuple[int, int] = (0, 1)
    #: Holds the result to a base's tensor, after the method.
    held: Held | None = None

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Every tensor that it reads, each once."""
        bases = [self.base, self.held.base if self.held else None]
        return tuple(dict.fromkeys(i for i in (*bases, *self.models) if i is not None))

    @property
    def n_entries(self) -> int:
        """The count of the result's entries."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """The size of the result."""
        return self.n_entries * self.dtype.itemsize


@dataclass(frozen=True)
class Buffer:
    """A tensor that is copied as it is stored: a mask, or positions."""

    name: str
    source: Input
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        """The size of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """Everything that is known of a merged model before a weight is read."""

    jobs: tuple[Job, ...]
    #: The merged model's `config.json`.
    config: Mapping[str, Any]
    #: Its `generation_config.json`; None where it has none, and its `config.json` says as much.
    generation: Mapping[str, Any] | None = None
    #: The recipe's seed, for methods that draw random numbers.
    seed: int = 0
    #: Tensors that are not written: transformers ties or computes them, or has no place for them.
    left_out: tuple[str, ...] = ()
    #: Tensors of the first model that a checkpoint has as well, and that are no parameters.
    buffers: tuple[Buffer, ...] = ()
    #: Whether a layer stands where it stands in no parent.
    is_stack: bool = False

    def with_arguments(self, arguments: Mapping[str, Mapping[str, Any]]) -> "Plan":
        """Change arguments of some jobs.

        Args:
            arguments: by the job's name and the argument's.
        """
        jobs = (
            replace(job, arguments={**job.arguments, **arguments.get(job.name, {})})
            for job in self.jobs
        )
        return replace(self, jobs=tuple(jobs))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, by name."""
        return {job.name: job.shape for job in self.jobs}

    @property
    def n_entries(self) -> int:
        """The count of the merged model's parameters, repeated layers each time."""
        return sum(job.n_entries for job in self.jobs)

    @property
    def n_bytes(self) -> int:
        """The size of the merged model's weights."""
        return sum(job.n_bytes for job in self.jobs)
