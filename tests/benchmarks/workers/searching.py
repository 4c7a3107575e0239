"""Searches of a space that a benchmark starts as a user would, waits for, and looks into."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from optuna import Study

from mergesearch.searching import prepare
from mergesearch.searching.runs import study_name
from mergesearch.searching.study import open_study
from mergesearch.space import SearchSpace
from tests.searching.test_kill import n_ended

#: Seconds in which a search must go on after a kill.
_PATIENCE = 300.0
#: Seconds between two looks at a run, which read its files on the cores that are measured.
_LOOK = 0.5


def write_space(folder: Path, space: SearchSpace, settings: Mapping[str, Any]) -> SearchSpace:
    """Write a space that is searched in another way into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    search = space.search.model_copy(update=dict(settings))
    data = space.model_copy(update={"search": search}).model_dump(mode="json", exclude_unset=True)
    (folder / "space.yaml").write_text(yaml.safe_dump(_as_written(data), sort_keys=False))
    return SearchSpace.load(folder / "space.yaml")


def _as_written(data: Any) -> Any:
    """Write domains as a space has them: a value, a range or a list."""
    match data:
        case {"low": low, "high": high}:
            return [low, high]
        case {"values": values}:
            return list(values)
        case {"value": value}:
            return value
        case dict():
            return {key: _as_written(value) for key, value in data.items()}
        case list():
            return [_as_written(value) for value in data]
    return data


def start(folder: Path, n_workers: int) -> subprocess.Popen[bytes]:
    """Start a search of a folder's space by workers of one thread each."""
    command = [sys.executable, "-m", "mergesearch", "search", str(folder / "space.yaml")]
    command += ["--out", str(folder / "run"), "--device", "cpu", "--workers", str(n_workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said)


def end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a search ends, and raise what it said where it failed."""
    if process.wait():
        raise RuntimeError((folder / "said").read_text()[-3000:])


def wait(
    process: subprocess.Popen[bytes],
    folder: Path,
    holds: Callable[[], object],
    patience: float = _PATIENCE,
) -> None:
    """Wait until something holds of a search that goes on, `patience` seconds at most.

    Raises:
        RuntimeError: the search has ended, or it does not come to it in time.
    """
    deadline = time.monotonic() + patience
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((folder / "said").read_text()[-3000:])
        time.sleep(_LOOK)


def has_ended(folder: Path, n: int) -> bool:
    """Say if so many trials of a folder's run have ended."""
    return n_ended(folder) >= n


def study_of(folder: Path) -> Study:
    """Open the study of a folder's run."""
    space = SearchSpace.load(folder / "space.yaml")
    return open_study(folder / "run", study_name(prepare(space), folder / "run"))
