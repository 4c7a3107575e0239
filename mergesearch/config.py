"""YAML at the edge: read once, checked strictly, frozen from then on."""

import difflib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mergesearch.errors import InputError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Config(BaseModel):
    """Base of configuration models: frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    #: The JSON schema of what may be written in place of the keys, if something may.
    shorthand: ClassVar[dict[str, Any] | None] = None
    #: The name, in errors, of what is written for it.
    written: ClassVar[str] = "a mapping of keys"

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    message = unknown("key", key, cls.model_fields)
                    raise PydanticCustomError("unknown_key", "{message}", {"message": message})
        elif not isinstance(data, cls):
            raise PydanticCustomError("wrong_type", "must be {written}", {"written": cls.written})
        return data

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy, some fields changed; what was derived from those before is left behind."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        keys = handler(core_schema)
        return {"anyOf": [cls.shorthand, keys]} if cls.shorthand else keys


ConfigT = TypeVar("ConfigT", bound=Config)


class _StrictLoader(yaml.SafeLoader):
    """`safe_load` that refuses a key given twice; YAML would drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a scalar", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def unknown(noun: str, name: object, known: Iterable[str]) -> str:
    """Write a line for an unknown name: the nearest known one, then all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {noun} {name!r}; {hint}available: {', '.join(known)}"


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InputError: the file is missing, is a folder, or is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read {path}: {reason}") from None


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Return the mapping that a YAML text holds.

    Args:
        text: YAML.
        where: what to call the text in an error, usually its path.

    Raises:
        InputError: the text is not YAML, gives a key twice, or is not a mapping.
    """
    try:
        data = yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{where}{line}: not valid YAML: {problem}") from None
    except (ValueError, LookupError, AttributeError, RecursionError) as error:
        # what PyYAML's constructors let through, e.g. for the date 2026-99-99 or !!bool x
        raise InputError(f"{where}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{where}: must be a mapping of keys, got {type(data).__name__}")
    return data


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file's mapping; `parse_yaml` and `read_text` say what they refuse."""
    return parse_yaml(read_text(path), str(path))


def parse(cls: type[ConfigT], data: object, where: str) -> ConfigT:
    """Validate data as a configuration model.

    Raises:
        InputError: the first thing that is wrong, as `where: key.path: what`.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(_written_keys(first["loc"], data))
        raise InputError(": ".join(filter(None, [where, key, _in_our_words(first)]))) from None


#: What is wrong, by pydantic's types of errors; in braces what their context has.
_WORDS: Mapping[str, str] = {
    "missing": "is missing",
    "string_type": "must be text",
    "path_type": "must be a path",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys",
    "mapping_type": "must be a mapping of keys",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must have at least {min_length} characters",
}


def _in_our_words(error: "ErrorDetails") -> str:
    """Say what is wrong: a validator's own words, or a rule and the value."""
    kind, got = error["type"], error["input"]
    if kind in ("unknown_key", "value_error"):
        return error["msg"].removeprefix("Value error, ")
    if kind == "missing":
        return _WORDS[kind]
    rule = error["msg"] if kind == "wrong_type" else _WORDS.get(kind, "is not valid")
    return f"{rule.format(**error.get('ctx', {}))}, got {got!r}"


def _written_keys(location: Sequence[int | str], data: object) -> Iterator[str]:
    """Take the keys of a location that the data have, and a last one that they lack.

    The others name alternatives, and fields of what a shorthand stands for.
    """
    for number, part in enumerate(location, start=1):
        if isinstance(data, Mapping) and (part in data or number == len(location)):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        elif isinstance(data, BaseModel) and hasattr(data, str(part)):
            data = getattr(data, str(part))
        else:
            continue
        yield str(part)
