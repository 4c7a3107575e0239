"""Several merges in one file, as mergekit-multi has them: stages of one result."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import yaml

from mergesearch.config import parse_yaml, read_text
from mergesearch.errors import InputError
from mergesearch.recipe.calibration import resolved_file
from mergesearch.recipe.documents import documents
from mergesearch.recipe.mergekit_yaml import load_recipe, recipe_from, write_recipe
from mergesearch.recipe.model import Recipe
from mergesearch.recipe.reference import ModelRef

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One merge, whose result others may name as a model."""

    #: None for a result that nothing names.
    name: str | None
    #: Its paths are resolved, but for the names of stages.
    recipe: Recipe

    def __str__(self) -> str:
        return "the result" if self.name is None else repr(self.name)

    def makes(self, ref: ModelRef) -> bool:
        """Tell if a reference, its adapter aside, is to what this stage makes."""
        return self.name in (str(ref), str(ref.model))


def load_stages(path: Path) -> tuple[Stage, ...]:
    """Read the merges of a mergekit YAML file, each after those that it needs.

    The last one is the result: the document without a name, or else the last of the file. What it
    does not need is left out, which is said.

    Raises:
        InputError: the file is missing, a document is no recipe, a model folder is missing, or the
            documents' names are not each its own or go in a circle.
    """
    text = read_text(path)
    if len(parts := documents(text)) < 2:
        return (Stage(None, load_recipe(path)),)
    read = [_read(part, f"{path}: document {i}") for i, part in enumerate(parts, start=1)]
    names = [stage.name for stage in read]
    if twice := [name for name in names if names.count(name) > 1]:
        which = "without a name" if twice[0] is None else f"of the name {twice[0]!r}"
        raise InputError(
            f"{path}: one document at most may be {which}, got {names.count(twice[0])}; "
            "name each that is not the result, and no two alike"
        )
    stages = [Stage(s.name, _resolved(s.recipe, read, path.parent)) for s in read]
    needs = {i: set(_needs(stage.recipe, stages)) for i, stage in enumerate(stages)}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " needs ".join(str(stages[i]) for i in reversed(error.args[1]))
        raise InputError(f"{path}: the documents go in a circle: {circle}") from None
    result = names.index(None) if None in names else len(names) - 1
    wanted = {result}
    for i in reversed(order):
        wanted |= needs[i] if i in wanted else set()
    for i in sorted(set(order) - wanted):
        _log.warning("%s: %s is left out: the result does not need it", path, stages[i])
    return tuple(stages[i] for i in order if i in wanted)


def write_stages(stages: Sequence[Stage], folder: Path | None = None) -> str:
    """Write merges as YAML that mergekit-multi runs and `load_stages` reads back.

    Args:
        stages: what to write.
        folder: the folder the text will be put in; local paths are written relative to it.
    """
    heads = ["" if s.name is None else yaml.safe_dump({"name": s.name}) for s in stages]
    texts = (write_recipe(stage.recipe, folder) for stage in stages)
    return "---\n".join(head + text for head, text in zip(heads, texts, strict=True))


def renamed(text: str, change: Callable[[ModelRef], ModelRef], where: str = "recipe") -> str:
    """Write a file's merges with other names of its models; those of its stages stay.

    Args:
        text: YAML of one merge or several, whose paths are not resolved.
        change: gives the name of each model.
        where: what to call the text in an error.

    Raises:
        InputError: it holds no recipe.
    """
    stages = [_read(part, where) for part in documents(text)]

    def named(ref: ModelRef) -> ModelRef:
        return ref if any(stage.makes(ref) for stage in stages) else change(ref)

    return write_stages([Stage(s.name, s.recipe.with_paths(named)) for s in stages])


def references(recipe: Recipe) -> tuple[ModelRef, ...]:
    """List every reference of a recipe, tokenizers included."""
    found: list[ModelRef] = []

    def seen(ref: ModelRef) -> ModelRef:
        found.append(ref)
        return ref

    recipe.with_paths(seen)
    return tuple(dict.fromkeys(found))


def _read(text: str, where: str) -> Stage:
    data = parse_yaml(text, where)
    name = data.pop("name", None)
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise InputError(f"{where}: name must be a text that other documents name, got {name!r}")
    return Stage(name, recipe_from(data, text, where))


def _resolved(recipe: Recipe, stages: Sequence[Stage], folder: Path) -> Recipe:
    """Resolve paths that are of no stage: a stage's name comes before a folder's."""

    def change(ref: ModelRef) -> ModelRef:
        if not any(stage.makes(ref) for stage in stages):
            return ref.resolved(folder)
        return ref.model_copy(update={"lora": ref.lora and ref.lora.resolved(folder)})

    return recipe.with_paths(change).with_files(lambda path: resolved_file(path, folder))


def _needs(recipe: Recipe, stages: Sequence[Stage]) -> Iterator[int]:
    """List the places of the stages that a recipe names."""
    for ref in references(recipe):
        yield from (i for i, stage in enumerate(stages) if stage.makes(ref))
