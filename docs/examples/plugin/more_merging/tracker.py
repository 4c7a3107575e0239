"""A tracker that writes a line of JSON for each trial."""

import json
from collections.abc import Mapping
from pathlib import Path

from mergesearch.tracking import TrackedRun, TrackerFactory


class _Lines:
    def __init__(self, run: TrackedRun) -> None:
        self._file = Path(f"{run.name}.jsonl")

    def log(self, values: Mapping[str, float], step: int) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"trial": step, **values}) + "\n")

    def finish(self, values: Mapping[str, float], files: Mapping[str, str]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(dict(values)) + "\n")


LINES = TrackerFactory(_Lines)
