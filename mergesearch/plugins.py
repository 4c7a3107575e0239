"""Tables that other packages add rows to, by entry points."""

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from mergesearch.errors import InputError

_log = logging.getLogger(__name__)

RowT = TypeVar("RowT")


class Table(Mapping[str, RowT]):
    """Rows by name: our own, and those that installed packages add.

    A package adds a row by an entry point of the table's group, whose name is the row's and whose
    object is the row. Ours come first, and no package replaces one. The entry points are looked up
    when a name is asked for that is not ours, or when all names are; a row is loaded when it is
    asked for.

        [project.entry-points."mergesearch.methods"]
        my_merge = "my_package:MY_MERGE"

    Args:
        group: of the entry points, such as "mergesearch.methods".
        kind: that every row must be of.
        rows: our own.
    """

    def __init__(self, group: str, kind: type[RowT], rows: Mapping[str, RowT]) -> None:
        self._group = group
        self._kind = kind
        self._rows = dict(rows)
        self._failures: dict[str, str] = {}

    def __getitem__(self, name: str) -> RowT:
        """The row of a name.

        Raises:
            KeyError: there is none.
            InputError: a package has one that cannot be loaded.
        """
        if name not in self._rows:
            if name in self._failures:
                raise InputError(self._failures[name])
            self._rows[name] = self._load(self._found[name])
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        """The names of the rows that can be had; one that cannot be is said once, in a line."""
        for name in self._found:
            if name not in self._rows and name not in self._failures:
                try:
                    self[name]
                except InputError as error:
                    _log.warning("%s", error)
        yield from self._rows

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._found

    @cached_property
    def _found(self) -> Mapping[str, EntryPoint]:
        """What packages offer, by name; of two packages with one name the first."""
        found: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self._group):
            if entry.name not in self._rows:
                found.setdefault(entry.name, entry)
        return found

    def _load(self, entry: EntryPoint) -> RowT:
        try:
            row = entry.load()
        except Exception as error:  # whatever the other package raises
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise self._failed(entry, f"cannot be loaded: {reason}") from error
        if not isinstance(row, self._kind):
            what = f"must be a {self._kind.__name__}, got a {type(row).__name__}"
            raise self._failed(entry, what)
        return row

    def _failed(self, entry: EntryPoint, what: str) -> InputError:
        package = f" of {entry.dist.name}" if entry.dist else ""
        message = f"plugin {entry.name!r}{package} ({self._group} = {entry.value}) {what}"
        self._failures[entry.name] = f"{message}; mend or uninstall it"
        return InputError(self._failures[entry.name])
