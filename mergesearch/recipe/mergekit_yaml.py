"""Reading and writing recipes as mergekit configurations.

What mergekit has no key for (the seed, and towers) stands in a comment that starts with
`# mergesearch:`, which mergekit skips and `read_recipe` reads.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from mergesearch.config import parse, parse_yaml, read_text
from mergesearch.errors import InputError
from mergesearch.recipe.anchors import without_holders
from mergesearch.recipe.documents import documents
from mergesearch.recipe.model import Recipe
from mergesearch.recipe.spelling import respelled

#: Keys that mergekit knows and a recipe has in another form, or not.
_OTHER_KEYS = ("models", "modules", "experts", "gate_mode")
_NOTE = re.compile(r"^# mergesearch: (.*)$", re.MULTILINE)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a mergekit YAML file.

    Relative model paths resolve against its folder.

    Raises:
        InputError: the file is missing or is no recipe, or a model folder is missing.
    """
    return read_recipe(read_text(path), str(path)).resolved(path.parent)


def read_recipe(text: str, where: str = "recipe") -> Recipe:
    """Read the recipe that a mergekit YAML text states.

    Args:
        text: YAML in mergekit's `models` or `slices` form.
        where: what to call the text in an error.

    Raises:
        InputError: as `where: key: what is wrong`.
    """
    text, *others = documents(text)
    if others:
        raise InputError(
            f"{where}: {1 + len(others)} documents, as mergekit-multi has them, and one recipe is "
            "needed here; `mergesearch merge` takes such a file and writes its result"
        )
    return recipe_from(parse_yaml(text, where), text, where)


def recipe_from(data: dict[str, Any], text: str, where: str) -> Recipe:
    """Make the recipe that a document states.

    Args:
        data: the document's mapping.
        text: the document, whose comments are read.
        where: what to call it in an error.

    Raises:
        InputError: as `where: key: what is wrong`.
    """
    try:
        data = _without_nulls(data)
    except RecursionError:
        raise InputError(
            f"{where}: a part of it holds itself: an alias within its anchor"
        ) from None
    data = respelled(without_holders(data, text, [*Recipe.model_fields, *_OTHER_KEYS]), where)
    if "modules" in data:
        raise InputError(f"{where}: the modules form is not supported; write models or slices")
    _flatten_tokenizer(data, where)
    if ("models" in data) == ("slices" in data):
        raise InputError(f"{where}: give either models or slices, and one of them")
    if "models" in data:
        models = data.pop("models")
        if not isinstance(models, list) or not models:
            raise InputError(f"{where}: models must be a list of at least one model")
        data["slices"] = [{"sources": models}]
    elif any("layer_range" not in source for source in _sources(data["slices"])):
        raise InputError(f"{where}: slices: every source needs a layer_range: [first, end]")
    note = _NOTE.search(text)
    extra = parse_yaml(note.group(1), f"{where}: comment") if note else {}
    return parse(Recipe, {**data, **_without_nulls(extra)}, where)


def write_recipe(recipe: Recipe, folder: Path | None = None) -> str:
    """Write a recipe as YAML that `mergekit-yaml` runs and `read_recipe` reads back.

    Args:
        recipe: what to write.
        folder: the folder the text will be put in; local paths are written relative to it.
    """
    if folder is not None:
        recipe = recipe.relative(folder)
    data = recipe.model_dump(mode="json", exclude_defaults=True)
    seed, towers = data.pop("seed", 0), data.pop("towers", None)
    parts = data.pop("slices")
    if all(source.layer_range is None for part in recipe.slices for source in part.sources):
        data["models"] = parts[0]["sources"]
    else:
        data["slices"] = parts
    body = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100)
    said = [f"seed: {seed}"] if recipe.method.random or seed else []
    said += [f"towers: {towers}"] if towers else []  # mergekit merges them like all else
    beyond = recipe.beyond_mergekit
    head = f"# mergekit {' and '.join(beyond)}: only mergesearch merges this\n" if beyond else ""
    note = f"# mergesearch: {{{', '.join(said)}}}\n" if said else ""
    return head + note + body


def _flatten_tokenizer(data: dict[str, Any], where: str) -> None:
    """Put a tokenizer block that says no more than its source under tokenizer_source."""
    block = data.get("tokenizer")
    if block is None or "tokenizer_source" in data:
        return
    if not isinstance(block, dict):
        raise InputError(f"{where}: tokenizer must be a mapping, e.g. {{source: union}}")
    said = {key: value for key, value in block.items() if value != {}}
    if not said.keys() - {"source"}:
        del data["tokenizer"]
        data["tokenizer_source"] = said.get("source", "union")  # mergekit's default


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Lists of scalars on one line, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        flow = all(isinstance(item, bool | int | float | str) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _Dumper.represent_list)


def _sources(slices: Any) -> list[dict[str, Any]]:
    """List the sources of well-formed slices; the model refuses the others."""
    parts = slices if isinstance(slices, list) else []
    lists = [part.get("sources") for part in parts if isinstance(part, dict)]
    return [
        s for sources in lists if isinstance(sources, list) for s in sources if isinstance(s, dict)
    ]


def _without_nulls(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nulls(value) for key, value in data.items() if value is not None}
    if isinstance(data, list):
        return [_without_nulls(item) for item in data]
    return data
