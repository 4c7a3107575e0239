"""The seam between a search and the trackers of experiments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

#: The project, or experiment, that runs are of.
PROJECT = "mergesearch"


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers know it."""

    #: Of its folder.
    name: str
    #: The same whenever a search goes on in the same folder, and another folder's is another.
    key: str
    #: The space, with texts and numbers as YAML has them.
    config: Mapping[str, Any]


class Tracker(Protocol):
    """One run of one tracker; whatever it raises ends it, and not the search."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take the numbers of a trial.

        Args:
            values: by name.
            step: the trial's number.
        """

    def finish(self, values: Mapping[str, float], files: Mapping[str, str]) -> None:
        """Take what the search came to, and end.

        Args:
            values: by name; none where the search did not come to its end.
            files: texts by file name.
        """


@dataclass(frozen=True)
class TrackerFactory:
    """A row of the table of trackers.

    >>> from mergesearch.tracking import TrackerFactory
    >>> from mergesearch.tracking.mlflow import MlflowTracker
    >>> row = TrackerFactory(MlflowTracker)
    """

    #: Opens a tracker; a ModuleNotFoundError says that its package is not installed.
    open: Callable[[TrackedRun], Tracker]
