"""The models of one or more runs, as a leaderboard shows them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mergesearch.errors import InputError
from mergesearch.objectives import OBJECTIVES, SCORE, Measured, objective_of
from mergesearch.recipe import Recipe
from mergesearch.runs import Record, identity_of
from mergesearch.scores import Interval, Resampled, Scores, resampled


@dataclass(frozen=True)
class Entry:
    """One model of a run."""

    #: The folder of its run, resolved: one path a run.
    run: Path
    label: str
    #: "winner", "front", "finalist", "learned", "soup", "reference", "parent" or "base".
    role: str
    recipe: Recipe
    digest: str
    #: On the whole search split; None where it was not scored there.
    search: Scores | None
    #: On the held-out split; None where the suite has none, or it was not scored there.
    held_out: Scores | None
    #: None where the record does not say.
    n_parameters: int | None = None
    #: What the run was searched for: "score", "size", tasks or groups of tasks.
    objectives: tuple[str, ...] = (SCORE,)
    #: The constraints of the search that it breaks on the whole search split.
    broken: tuple[str, ...] = ()
    #: Tasks whose benchmark's test set the run was searched on, with its name: their numbers are
    #: no estimate of ability.
    spoiled: Mapping[str, str] = field(default_factory=dict)
    #: Tasks whose search documents coefficients were learned from: these scores say less.
    learned_from: tuple[str, ...] = ()
    #: Fields in which the run's models differ, a line each.
    differences: tuple[str, ...] = ()
    #: By task the data set on the hub that its documents are of, and the subset, if they are.
    datasets: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    #: The deciding score under a bootstrap over documents; None where there is none, and where a
    #: task's own aggregation is out of reach.
    resampled: Resampled | None = field(default=None, repr=False)

    @property
    def deciding(self) -> Scores | None:
        """The scores that rank it: held-out where there are any."""
        return self.held_out or self.search

    def is_spoiled(self, scores: Scores | None) -> bool:
        """Say if a total of this entry rests on a spoiled task."""
        return scores is not None and any(task.id.task in self.spoiled for task in scores.tasks)

    def part(self, name: str) -> Scores | None:
        """Its scores on the tasks of the whole search split that a name stands for."""
        part = objective_of(name).part
        scores = part(self.search) if part and self.search else None
        return scores if scores and scores.tasks else None

    def value(self, objective: str) -> float | None:
        """Its value in an objective, by the whole search split; None where unknown."""
        row, scores = objective_of(objective), self.search
        if not row.from_documents:
            if self.n_parameters is None:
                return None
            return row.report(Measured(self.recipe, scores or Scores(()), self.n_parameters))
        if scores is None or (part := self.part(objective)) is None:
            return None
        if objective in OBJECTIVES:
            return row.report(Measured(self.recipe, scores, self.n_parameters or 0))
        is_task = objective == part.tasks[0].id.task
        return part.tasks[0].value if is_task else part.total

    @property
    def interval(self) -> Interval | None:
        """The deciding score with its 95 % interval, if it was resampled."""
        return self.resampled.interval if self.resampled else None


def entries_of(run: Path) -> list[Entry]:
    """Read the models of a run, the best on held-out first, what was not chosen last.

    Raises:
        InputError: the folder is no run folder.
    """
    return ranked(_with_resamples(_entries(run)))


def _entries(run: Path) -> list[Entry]:
    """Read the models of a run as the record has them, the winner first."""
    objectives = _objectives(run)
    record = Record(run, writable=False)
    folder, entries = run.resolve(), []
    for row in record.rows:
        digest = record.digest_of(row.recipe_hash) or ""
        entries.append(
            Entry(
                folder,
                row.label,
                row.role,
                record.recipe(row.recipe_hash),
                record.tensors_of(row.recipe_hash) or "",
                record.scores(digest, "search_full"),
                record.scores(digest, "held_out"),
                record.n_parameters(row.recipe_hash),
                objectives,
                row.broken,
                record.suite.searched_benchmarks,
                tuple(dict.fromkeys(task for one in record.passes for task in one.searched)),
                record.differences,
                record.suite.datasets,
            )
        )
    return entries


def _with_resamples(entries: list[Entry]) -> list[Entry]:
    """Resample the deciding scores of what is to be shown, all by one drawing."""
    scored = {n: entry.deciding for n, entry in enumerate(entries) if entry.deciding}
    by_number = dict(zip(scored, resampled(list(scored.values())), strict=True))
    return [replace(entry, resampled=by_number.get(n)) for n, entry in enumerate(entries)]


def _objectives(run: Path) -> tuple[str, ...]:
    """Return the objectives of a run, whether it has been searched or not."""
    return tuple(identity_of(run)["space"].get("search", {}).get("objectives", (SCORE,)))


def run_labels(entries: Iterable[Entry]) -> dict[Path, str]:
    """Name each run of these entries: the shortest end of its path that no other has."""
    return path_labels(dict.fromkeys(entry.run for entry in entries))


def path_labels(runs: Iterable[Path]) -> dict[Path, str]:
    """Name folders, resolved, each by the shortest end of its path that no other has."""
    paths = list(runs)
    return {path: _own_end(path, [other for other in paths if other != path]) for path in paths}


def _own_end(path: Path, others: list[Path]) -> str:
    for n in range(1, len(path.parts)):
        end = path.parts[-n:]
        if all(other.parts[-n:] != end for other in others):
            return str(Path(*end))
    return str(path)


def ranked(entries: list[Entry]) -> list[Entry]:
    """Entries from the best to the worst: held-out first, those without it after.

    With these are finalists that did not win: whichever is chosen by held-out, it overrates.
    """

    def rank(entry: Entry) -> tuple[bool, bool, float]:
        total = entry.deciding.total if entry.deciding else 0.0
        return entry.held_out is None or entry.role == "finalist", entry.deciding is None, -total

    return sorted(entries, key=rank)


def front_of(run: Path) -> list[Entry]:
    """Read the front of a run: models that no other beats in all objectives.

    The winner is the first.

    Raises:
        InputError: the folder is no run folder, or has no front.
    """
    objectives = _objectives(run)
    if len(objectives) == 1:  # nor will it ever have one: objectives are what makes a run this run
        raise InputError(
            f"{run} has no front: it was searched for one objective, {objectives[0]}; name several "
            "under search.objectives, and give --out another name"
        )
    front = [entry for entry in _entries(run) if entry.role in ("winner", "front")]
    if not front:
        raise InputError(
            f"{run} has no front yet; search its space to the end: mergesearch search SPACE.yaml "
            f"--out {run}"
        )
    return _with_resamples(front)


def remarks(entries: list[Entry]) -> list[str]:
    """List what is to be said of the models of a leaderboard beside its cautions."""
    return [remark for remark in (_incomparable(entries), _differing(entries)) if remark]


def _differing(entries: list[Entry]) -> str:
    """Say in what the models of runs differ, although they were merged.

    Empty where it is in nothing.
    """
    labels = run_labels(entries)
    found = {entry.run: entry.differences for entry in entries if entry.differences}
    return " ".join(
        f"The models{f' of run {labels[run]}' if len(labels) > 1 else ''} differ: "
        f"{'; '.join(differences)}."
        for run, differences in found.items()
    )


def _incomparable(entries: list[Entry]) -> str:
    """Say that runs' totals are of unlike tasks, weights or documents.

    Empty where they are of the same.
    """
    labels = run_labels(entries)
    asked: dict[Path, frozenset[object]] = {}
    for entry in entries:  # a run's best first
        if (scores := entry.deciding) and entry.run not in asked:
            asked[entry.run] = frozenset(
                (t.id, t.weight, frozenset(t.doc_ids)) for t in scores.tasks
            )
    if len(set(asked.values())) < 2:
        return ""
    return (
        f"The runs {', '.join(labels[run] for run in asked)} have scores of unlike tasks, weights "
        "or documents: their totals do not compare."
    )


def caution(entries: list[Entry]) -> str:
    """Warn of runs that searched on a benchmark's test set, or learned from it.

    Empty where there is none.
    """
    spoiled = {entry.run: dict.fromkeys(entry.spoiled.values()) for entry in entries}
    labels = run_labels(entries)
    several = len(labels) > 1
    learned = {entry.run: entry.learned_from for entry in entries if entry.learned_from}
    lines = [
        f"{f'Run {labels[run]} learned' if several else 'Learned'} from documents that candidates "
        f"are scored on, of {', '.join(tasks)}: search scores are no estimate of ability."
        for run, tasks in learned.items()
    ]
    lines += [
        f"{f'Run {labels[run]} was searched' if several else 'Searched'} on the test set of "
        f"{', '.join(names)}: the search scores are no estimate of ability, and held-out numbers "
        f"on the same benchmark are contaminated."
        for run, names in spoiled.items()
        if names
    ]
    return " ".join(lines)
