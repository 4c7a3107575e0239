"""The formats that a leaderboard is written in: a file and a row each."""

from collections.abc import Callable
from dataclasses import dataclass

from mergesearch.config import unknown
from mergesearch.errors import InputError
from mergesearch.plugins import Table
from mergesearch.report.csv import to_csv
from mergesearch.report.entries import Entry
from mergesearch.report.json import to_json
from mergesearch.report.markdown import markdown


@dataclass(frozen=True)
class ReportFormat:
    """A format of leaderboards.

    >>> from mergesearch.report import ReportFormat
    >>> labels = ReportFormat(lambda entries: " > ".join(entry.label for entry in entries))
    """

    #: From models, the best first, to a text.
    write: Callable[[list[Entry]], str]


REPORTS = Table(
    "mergesearch.reports",
    ReportFormat,
    {"md": ReportFormat(markdown), "csv": ReportFormat(to_csv), "json": ReportFormat(to_json)},
)
"""Every format by its name on the command line."""


def leaderboard(entries: list[Entry], form: str = "md") -> str:
    """Write a leaderboard in one of the formats of `REPORTS`.

    Raises:
        InputError: there is no such format.
    """
    return format_of(form).write(entries)


def format_of(name: str) -> ReportFormat:
    """Return the format of a name.

    Raises:
        InputError: there is none, or a package's cannot be loaded.
    """
    if name not in REPORTS:
        raise InputError(unknown("format", name, REPORTS))
    return REPORTS[name]
