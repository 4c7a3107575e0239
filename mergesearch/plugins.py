"""Tables that other packages add rows to, by entry points."""

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from mergesearch.errors import InputError

_log = logging.getLogger(__name__)

RowT = TypeVar("RowT")


def check_reference(key: str, value: object) -> None:
    """Refuse a text that is no "module:name".

    Raises:
        ValueError: it is none; what is no text is left alone.
    """
    if isinstance(value, str) and value.count(":") != 1:
        raise ValueError(f"{key} must be a function or 'module:function', got {value!r}")


def imported(reference: str, kind: str, package: str | None = None) -> Any:
    """Import the object that "module:name" refers to.

    Args:
        reference: a module that begins with a dot is one of the package's.
        kind: of the object, for the error.
        package: the name of that package.

    Raises:
        InputError: there is no such object, or its module cannot be imported.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module, package=package), name)
    except Exception as error:  # whatever another package's module raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{kind} {reference!r} cannot be imported: {reason}; mend the package that declares it"
        ) from error


class Table(Mapping[str, RowT]):
    """Rows by name: the project's own, and those that installed packages add.

    A package adds a row by an entry point of the table's group, whose name is the row's and whose
    object is the row:

        [project.entry-points."mergesearch.methods"]
        my_merge = "my_package:MY_MERGE"

    The project's own rows come first, and no package replaces one. Entry points are looked up when
    a name is asked for that is not the project's own, or when all names are; a row is loaded when
    it is asked for. One that cannot be loaded is left out of the names, but is `in` the table: to
    ask for it raises.

        >>> from mergesearch.methods import METHODS
        >>> METHODS["ties"].source
        'arXiv:2306.01708'
        >>> "no_such_method" in METHODS
        False

    Args:
        group: the group of the entry points, such as "mergesearch.methods".
        kind: the class that every row is an instance of.
        rows: the project's own.
    """

    def __init__(self, group: str, kind: type[RowT], rows: Mapping[str, RowT]) -> None:
        self._group = group
        self._kind = kind
        self._own = dict(rows)
        self._loaded: dict[str, RowT] = {}
        self._failures: dict[str, str] = {}

    def __getitem__(self, name: str) -> RowT:
        """Row of a name.

        Raises:
            KeyError: there is none.
            InputError: a package has one that cannot be loaded.
        """
        if name in self._own:
            return self._own[name]
        if name in self._failures:
            raise InputError(self._failures[name])
        if name not in self._loaded:
            self._loaded[name] = self._load(self._entries[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the rows that load, the project's own first.

        Those of packages come after them, in alphabetical order; a row that does not load is
        logged once, in a line.
        """
        yield from self._own
        for name in self._entries:
            if name not in self._failures:
                try:
                    self[name]
                except InputError as error:
                    _log.warning("%s", error)
                else:
                    yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._entries

    def __repr__(self) -> str:
        return f"Table({self._group!r}: {', '.join(self)})"

    @property
    def own(self) -> tuple[str, ...]:
        """The names of the project's own rows, for which no package is looked up."""
        return tuple(self._own)

    @cached_property
    def _entries(self) -> Mapping[str, EntryPoint]:
        """The entry points of packages by name, each name's first, in the order of names."""
        entries: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self._group):
            if entry.name in self._own or entry.name in entries:
                taken = "the project has" if entry.name in self._own else "another package has"
                _log.warning(
                    "%s is ignored: %s a row of that name; rename it", self._label(entry), taken
                )
            else:
                entries[entry.name] = entry
        return dict(sorted(entries.items()))

    def _load(self, entry: EntryPoint) -> RowT:
        try:
            row = entry.load()
        except Exception as error:  # whatever the other package raises
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise self._failed(entry, f"cannot be loaded: {reason}") from error
        if not isinstance(row, self._kind):
            rule = f"must be a {self._kind.__name__}, got a {type(row).__name__}"
            raise self._failed(entry, rule)
        return row

    def _failed(self, entry: EntryPoint, problem: str) -> InputError:
        self._failures[entry.name] = f"{self._label(entry)} {problem}; mend or uninstall it"
        return InputError(self._failures[entry.name])

    def _label(self, entry: EntryPoint) -> str:
        package = f" of {entry.dist.name}" if entry.dist else ""
        return f"plugin {entry.name!r}{package} ({self._group} = {entry.value})"
