"""What a run knows: candidates, their scores and their places, in one append-only file."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.evaluation import TaskScore
from mergesearch.recipe import Recipe, read_recipe, write_recipe

_FILE = "record.jsonl"


@dataclass(frozen=True)
class Row:
    """A model that the leaderboard shows."""

    label: str
    #: "winner", "finalist", "soup", "reference", "parent" or "base".
    role: str
    recipe_hash: str


@dataclass(frozen=True)
class SoupStep:
    """One model tried in a greedy soup."""

    model: str
    #: The models of the soup that was scored.
    ingredients: tuple[str, ...]
    score: float
    kept: bool


@dataclass(frozen=True)
class TrialEntry:
    """A trial that has ended."""

    number: int
    method: str
    #: None where the candidate failed.
    recipe_hash: str | None
    score: float | None
    error: str | None = None


class Record:
    """The record of a run, read at once and then written entry by entry.

    Every entry is a line of JSON that is on disk before `add_*` returns; a line torn by a kill is
    dropped the next time the run is opened.

    Args:
        folder: the run's folder.
        writable: False for reading a run that another process may hold.
    """

    def __init__(self, folder: Path, *, writable: bool = True) -> None:
        self.folder = folder
        self._path = folder / _FILE
        self._digests: dict[str, str] = {}
        self._recipes: dict[str, str] = {}
        self._scores: dict[tuple[str, str], TaskScore] = {}
        self._rows: dict[str, Row] = {}
        self._trials: dict[int, TrialEntry] = {}
        self.soup: tuple[SoupStep, ...] = ()
        for entry in self._entries(repair=writable):
            self._take(entry)

    def digest(self, recipe: Recipe) -> str | None:
        """The hash of a recipe's tensors, if it was merged before."""
        return self._digests.get(recipe.hash)

    def digest_of(self, recipe_hash: str) -> str | None:
        """The same by the recipe's hash."""
        return self._digests.get(recipe_hash)

    def recipe(self, recipe_hash: str) -> Recipe:
        """A recipe that was merged before, its paths absolute."""
        text = self._recipes[recipe_hash]
        return read_recipe(text, f"{self._path}").resolved(self.folder)

    @property
    def recipe_hashes(self) -> tuple[str, ...]:
        """Every recipe that was merged, in order."""
        return tuple(self._recipes)

    def score(self, digest: str, fingerprint: str) -> TaskScore | None:
        """What a model scored on a task, if it was."""
        return self._scores.get((digest, fingerprint))

    def scores_of(self, digest: str) -> dict[str, TaskScore]:
        """Everything a model scored, by the task's fingerprint."""
        return {task: score for (model, task), score in self._scores.items() if model == digest}

    @property
    def rows(self) -> tuple[Row, ...]:
        """The leaderboard's models, as last entered."""
        return tuple(self._rows.values())

    @property
    def trials(self) -> tuple[TrialEntry, ...]:
        """Every trial that has ended, by number."""
        return tuple(self._trials[number] for number in sorted(self._trials))

    def add_candidate(self, recipe: Recipe, digest: str) -> None:
        """Remember a merged recipe and the hash of its tensors."""
        text = write_recipe(recipe, self.folder)
        self._append({"kind": "candidate", "hash": recipe.hash, "digest": digest, "recipe": text})

    def add_score(self, digest: str, score: TaskScore) -> None:
        """Remember what a model scored on a task."""
        self._append({"kind": "score", "digest": digest, "score": score.to_json()})

    def add_row(self, row: Row) -> None:
        """Put a model on the leaderboard, in the place of one with the same label."""
        if self._rows.get(row.label) != row:
            self._append({"kind": "row", **asdict(row)})

    def add_trial(self, trial: TrialEntry) -> None:
        """Remember a trial that has ended, once."""
        if trial.number not in self._trials:
            self._append({"kind": "trial", **asdict(trial)})

    def set_soup(self, steps: tuple[SoupStep, ...]) -> None:
        """Remember how the greedy soup was made."""
        if steps != self.soup:
            self._append({"kind": "soup", "steps": [asdict(step) for step in steps]})

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"cannot write {self._path}: {error.strerror}; make room and run the same command "
                "again to go on"
            ) from None
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        match entry["kind"]:
            case "candidate":
                self._digests[entry["hash"]] = entry["digest"]
                self._recipes[entry["hash"]] = entry["recipe"]
            case "score":
                score = TaskScore.from_json(entry["score"])
                self._scores[entry["digest"], score.fingerprint] = score
            case "row":
                row = Row(entry["label"], entry["role"], entry["recipe_hash"])
                self._rows[row.label] = row
            case "trial":
                fields = {key: value for key, value in entry.items() if key != "kind"}
                self._trials[entry["number"]] = TrialEntry(**fields)
            case "soup":
                self.soup = tuple(
                    SoupStep(s["model"], tuple(s["ingredients"]), s["score"], s["kept"])
                    for s in entry["steps"]
                )

    def _entries(self, *, repair: bool) -> Iterator[dict[str, Any]]:
        if repair:
            drop_torn_line(self._path)
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return  # being written by another process
                try:
                    yield json.loads(line)
                except ValueError:
                    raise InputError(
                        f"{self._path}, line {number}: not an entry of a record; "
                        "restore the file, or give --out another name"
                    ) from None


def drop_torn_line(path: Path) -> None:
    """Cut what follows the last newline of a file of lines: what a kill left half written."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
