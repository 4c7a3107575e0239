"""The record of a run: suite, candidates, values, trials and leaderboard."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import RLock
from typing import Any

from mergesearch.errors import InputError
from mergesearch.files import drop_torn_line
from mergesearch.recipe import Recipe, read_recipe, write_recipe
from mergesearch.runs.documents import Documents
from mergesearch.runs.entries import (
    LeaderboardRow,
    SoupStep,
    SuiteEntry,
    TaskEntry,
    values_are_enough,
)
from mergesearch.runs.passes import PassEntry
from mergesearch.runs.process import Process
from mergesearch.runs.trials import TrialRecord
from mergesearch.scores import Scores, TaskScore

_FILE = "record.jsonl"
#: The roles that the candidates of a search have on the leaderboard.
_BEST = ("winner", "front", "finalist")


class Record:
    """The record of a run, read at once and then written entry by entry.

    Every entry is a line of JSON that is on disk before `add_*` returns; a line torn by a kill is
    dropped the next time the run is opened. Scores of documents are kept beside it.

    Args:
        folder: the run's folder.
        writable: False for reading a run that another process may hold.

    Raises:
        InputError: a file of the record is damaged.
    """

    def __init__(self, folder: Path, *, writable: bool = True) -> None:
        self.folder = folder
        self._writable = writable
        #: Held while an entry is written: threads of one process share a record.
        self._lock = RLock()
        self._path = folder / _FILE
        self._digests: dict[str, str] = {}
        self._recipes: dict[str, str] = {}
        self._read: dict[str, Recipe] = {}
        self._n_parameters: dict[str, int | None] = {}
        #: By the hashes of tensors and task, and the number of documents.
        self._values: dict[tuple[str, str, int], float] = {}
        self._rows: dict[str, LeaderboardRow] = {}
        self._trials: dict[tuple[str, int], TrialRecord] = {}
        #: Every pass of learned coefficients, as they ended.
        self.passes: tuple[PassEntry, ...] = ()
        #: Of trajectories that have ended early the reason, by key.
        self.ends: dict[str, str] = {}
        #: Answers of passes that came to nothing, with which trajectories ended.
        self._n_answers_lost = 0
        #: Answers that statistics for merges took, by the statistics' key.
        self.statistics: dict[str, int] = {}
        #: What the run's candidates are scored on, as last set.
        self.suite = SuiteEntry()
        self.soup: tuple[SoupStep, ...] = ()
        #: Fields in which the run's models differ, a line each, as last set.
        self.differences: tuple[str, ...] = ()
        #: Hashes of what the run's models generate with, in their order, as last set.
        self.generation: tuple[str, ...] = ()
        #: Of each model a hash of a sample of its weights.
        self.weights: tuple[str, ...] = ()
        #: True where models of different functions were allowed.
        self.allow_mismatch = False
        #: What has worked on the run, each change of command, versions or hardware once.
        self.processes: tuple[Process, ...] = ()
        self._stop: tuple[int, str] | None = None
        for entry in self._entries(repair=writable):
            self._take(entry)
        # after the entries, which are written after the scores that they rest on
        self.documents = Documents(folder, writable=writable)
        self._n_beside_at_open = self.n_answers_beside

    def digest(self, recipe: Recipe) -> str | None:
        """Look up the hash of a recipe's tensors, if it was merged before."""
        return self._digests.get(recipe.hash)

    def digest_of(self, recipe_hash: str) -> str | None:
        """Look up the hash of tensors by the recipe's hash."""
        return self._digests.get(recipe_hash)

    def tensors_of(self, recipe_hash: str) -> str | None:
        """Look up the same without the mark of a candidate that generates otherwise."""
        digest = self._digests.get(recipe_hash)
        return None if digest is None else digest.partition("+")[0]

    def recipe(self, recipe_hash: str) -> Recipe:
        """Read a recipe that was merged before, its paths absolute.

        What only reads a run, such as a report, needs none of its models to be there.

        Raises:
            InputError: a model of a writable record's is gone, or the record has lost the recipe.
        """
        if recipe_hash not in self._read:
            if recipe_hash not in self._recipes:
                raise InputError(
                    f"{self._path} has no candidate {recipe_hash[:12]}, which the run has scored: "
                    "it was cut or emptied; restore it from a copy, or give --out another name"
                )
            text = self._recipes[recipe_hash]
            recipe = read_recipe(text, f"{self._path}")
            self._read[recipe_hash] = recipe.resolved(self.folder, must_exist=self._writable)
        return self._read[recipe_hash]

    def n_parameters(self, recipe_hash: str) -> int | None:
        """Look up how many parameters a recipe's model has; None where it is not said."""
        return self._n_parameters.get(recipe_hash)

    @property
    def recipe_hashes(self) -> tuple[str, ...]:
        """Every recipe that was merged, in order."""
        return tuple(self._recipes)

    def scores(self, digest: str, split: str) -> Scores | None:
        """Return a model's scores on a split; None where not all of it was scored."""
        entries = self.suite.splits.get(split, ())
        tasks = tuple(score for task in entries if (score := self._score(digest, task)) is not None)
        return Scores(tasks) if tasks and len(tasks) == len(entries) else None

    @property
    def rows(self) -> tuple[LeaderboardRow, ...]:
        """The leaderboard's models, scored on the present suite, as last entered."""
        return tuple(self._rows.values())

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial that has ended of the search for the suite's objective, by number."""
        ours = self.suite.objective
        return tuple(self._trials[key] for key in sorted(self._trials) if key[0] == ours)

    def add_candidate(self, recipe: Recipe, digest: str, n_parameters: int | None = None) -> None:
        """Remember a merged recipe, and the hash and number of its tensors' entries, once."""
        entry = {"hash": recipe.hash, "digest": digest, "n_parameters": n_parameters}
        text = write_recipe(recipe, self.folder)
        with self._lock:
            if recipe.hash not in self._digests:
                self._append({"kind": "candidate", **entry, "recipe": text})

    def set_suite(self, suite: SuiteEntry) -> None:
        """Set what candidates are scored on; a leaderboard of another suite is void."""
        if suite != self.suite:
            self._append({"kind": "suite", "splits": suite.json()})

    def set_parents(
        self,
        differences: tuple[str, ...],
        generation: tuple[str, ...],
        weights: tuple[str, ...],
        *,
        allow_mismatch: bool,
    ) -> None:
        """Set the models' differences, if some are allowed, ways to generate, and weights."""
        known = self.differences, self.generation, self.weights, self.allow_mismatch
        if (differences, generation, weights, allow_mismatch) != known:
            entry = {"differences": differences, "generation": generation, "weights": weights}
            self._append({"kind": "parents", **entry, "allow_mismatch": allow_mismatch})

    def add_process(self, process: Process) -> None:
        """Remember what works on the run from now on, unless it is the last one's like."""
        if self.processes[-1:] != (process,):
            self._append({"kind": "process", **asdict(process)})

    def set_stop(self, reason: str) -> None:
        """Remember why the search has ended, for as long as no further trial is made."""
        if self.stop_reason != reason:
            self._append({"kind": "stop", "n_trials": len(self.trials), "reason": reason})

    @property
    def stop_reason(self) -> str | None:
        """The reason for which the search has ended; None where it has not."""
        if self._stop is None or self._stop[0] != len(self.trials):
            return None
        return self._stop[1]

    def add_scores(self, digest: str, scores: Scores) -> None:
        """Remember a model's values of tasks whose aggregation a reader may lack."""
        for task in scores.tasks:
            key = digest, task.id.fingerprint, len(task.doc_ids)
            if not values_are_enough(task.id.aggregation) and key not in self._values:
                self._append({"kind": "value", "key": key, "value": task.value})

    def add_row(self, row: LeaderboardRow) -> None:
        """Put a model on the leaderboard, in the place of one with the same label."""
        if self._rows.get(row.label) != row:
            self._append({"kind": "row", **asdict(row)})

    def add_trial(self, trial: TrialRecord) -> None:
        """Remember a trial that has ended of the search for the suite's objective, once."""
        objective = self.suite.objective
        if (objective, trial.number) not in self._trials:
            self._append({"kind": "trial", "objective": objective, "trial": trial.as_entry()})

    def add_pass(self, entry: PassEntry) -> None:
        """Remember a pass of learned coefficients."""
        self._append({"kind": "pass", **asdict(entry)})

    def set_end(self, key: str, reason: str, n_answers: int) -> None:
        """Remember that a trajectory of learned coefficients ends, and the reason.

        Args:
            key: of the trajectory.
            reason: for people.
            n_answers: that a pass took which came to nothing.
        """
        self._append({"kind": "end", "key": key, "reason": reason, "n_answers": n_answers})

    @property
    def n_answers_learning(self) -> int:
        """Answers that learning took: a forward and backward pass counts as three."""
        return sum(entry.n_answers for entry in self.passes) + self._n_answers_lost

    @property
    def n_answers_beside(self) -> int:
        """Answers that learning took, and statistics for merges."""
        return self.n_answers_learning + sum(self.statistics.values())

    def add_statistics(self, key: str, n_answers: int) -> bool:
        """Remember that statistics for merges were computed; False where it was known."""
        with self._lock:
            is_new = key not in self.statistics
            if is_new:
                self._append({"kind": "statistics", "key": key, "n_answers": n_answers})
            return is_new

    @property
    def n_answers_added(self) -> int:
        """Answers of scoring, learning and statistics since the record was opened."""
        return self.documents.n_added + self.n_answers_beside - self._n_beside_at_open

    def set_best(self, rows: Sequence[LeaderboardRow]) -> None:
        """Put a search's winner, front and finalists on the leaderboard, for its last."""
        if [row for row in self.rows if row.role in _BEST] != list(rows):
            self._append({"kind": "best", "rows": [asdict(row) for row in rows]})

    def set_soup(self, steps: tuple[SoupStep, ...]) -> None:
        """Remember how the greedy soup was made."""
        if steps != self.soup:
            self._append({"kind": "soup", "steps": [asdict(step) for step in steps]})

    def _score(self, digest: str, task: TaskEntry) -> TaskScore | None:
        value = self._values.get((digest, task.id.fingerprint, task.n_documents))
        return task.score(self.documents.known(digest, task.id.fingerprint), value)

    def _append(self, entry: dict[str, Any]) -> None:
        with self._lock:
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise InputError(
                    f"cannot write {self._path}: {error.strerror}; make room and run the same "
                    "command again to go on"
                ) from None
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        match entry["kind"]:
            case "candidate":
                self._digests[entry["hash"]] = entry["digest"]
                self._recipes[entry["hash"]] = entry["recipe"]
                self._n_parameters[entry["hash"]] = entry.get("n_parameters")
            case "suite":
                self.suite = SuiteEntry.from_json(entry["splits"])
                self._rows.clear()
            case "parents":
                self.differences = tuple(entry["differences"])
                self.generation = tuple(entry.get("generation", ()))
                self.weights = tuple(entry.get("weights", ()))  # which older runs do not have
                self.allow_mismatch = entry["allow_mismatch"]
            case "value":
                digest, fingerprint, n_documents = entry["key"]
                self._values[digest, fingerprint, n_documents] = entry["value"]
            case "row":
                self._set_row(entry)
            case "best":
                others = {k: row for k, row in self._rows.items() if row.role not in _BEST}
                self._rows.clear()
                for row in entry["rows"]:
                    self._set_row(row)
                self._rows |= others
            case "trial":
                trial = TrialRecord.from_entry(entry["trial"])
                self._trials[entry["objective"], trial.number] = trial
            case "pass":
                fields = {key: value for key, value in entry.items() if key != "kind"}
                fields["searched"] = tuple(fields["searched"])
                self.passes = (*self.passes, PassEntry(**fields))
            case "statistics":
                self.statistics[entry["key"]] = entry["n_answers"]
            case "end":
                self.ends[entry["key"]] = entry["reason"]
                self._n_answers_lost += entry.get("n_answers", 0)
            case "process":
                process = {key: value for key, value in entry.items() if key != "kind"}
                self.processes = (*self.processes, Process(**process))
            case "stop":
                self._stop = entry["n_trials"], entry["reason"]
            case "soup":
                self.soup = tuple(
                    SoupStep(s["model"], tuple(s["ingredients"]), s["score"], s["kept"])
                    for s in entry["steps"]
                )

    def _set_row(self, entry: dict[str, Any]) -> None:
        broken = tuple(entry.get("broken", ()))
        row = LeaderboardRow(entry["label"], entry["role"], entry["recipe_hash"], broken)
        self._rows[row.label] = row

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
