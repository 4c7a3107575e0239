"""What a leaderboard shows: the models of one or more runs, and how they compare."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mergesearch.errors import InputError
from mergesearch.objectives import OBJECTIVES, SCORE, Measured, objective_of
from mergesearch.recipe import Recipe
from mergesearch.runs import Record, identity_of
from mergesearch.scores import Interval, Scores, interval, paired_difference


@dataclass(frozen=True)
class Entry:
    """One model of a run."""

    #: The folder of its run, resolved: one path a run.
    run: Path
    label: str
    #: "winner", "front", "finalist", "soup", "reference", "parent" or "base".
    role: str
    recipe: Recipe
    digest: str
    #: On the whole search split; None where it was not scored there.
    search: Scores | None
    #: On the held-out split; None where the suite has none, or for a finalist that did not win.
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

    @property
    def deciding(self) -> Scores | None:
        """The scores that rank it: held-out where there are any."""
        return self.held_out or self.search

    def is_spoiled(self, scores: Scores | None) -> bool:
        """Whether a total of this entry rests on a spoiled task."""
        return scores is not None and any(task.id.task in self.spoiled for task in scores.tasks)

    def part(self, name: str) -> Scores | None:
        """Its scores on the tasks of the whole search split that a name stands for."""
        part = objective_of(name).part
        found = part(self.search) if part and self.search else None
        return found if found and found.tasks else None

    def value(self, objective: str) -> float | None:
        """What it is worth in an objective, by the whole search split; None where unknown."""
        row, scores = objective_of(objective), self.search
        if not row.from_documents:
            if self.n_parameters is None:
                return None
            return row.report(Measured(self.recipe, scores or Scores(()), self.n_parameters))
        if scores is None or (found := self.part(objective)) is None:
            return None
        if objective in OBJECTIVES:
            return row.report(Measured(self.recipe, scores, self.n_parameters or 0))
        is_task = objective == found.tasks[0].id.task
        return found.tasks[0].value if is_task else found.total

    @property
    def interval(self) -> Interval | None:
        """The deciding score with its 95 % interval, by a bootstrap over documents.

        None too where a task's own aggregation is out of reach.
        """
        try:
            return interval(self.deciding) if self.deciding else None
        except InputError:
            return None


def entries_of(run: Path) -> list[Entry]:
    """The models of a run, from the best to the worst on held-out; unjudged ones last.

    Raises:
        InputError: the folder is no run folder.
    """
    return ranked(_entries(run))


def _entries(run: Path) -> list[Entry]:
    """The models of a run as the record has them, the winner first."""
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
                digest,
                record.scores(digest, "search_full"),
                record.scores(digest, "held_out"),
                record.n_parameters(row.recipe_hash),
                objectives,
                row.broken,
                record.suite.searched_benchmarks,
            )
        )
    return entries


def _objectives(run: Path) -> tuple[str, ...]:
    """What the space of a run is searched for, whether it has been or not."""
    return tuple(identity_of(run)["space"].get("search", {}).get("objectives", (SCORE,)))


def run_labels(entries: Iterable[Entry]) -> dict[Path, str]:
    """What to call each run of these entries: the shortest end of its path that no other has."""
    runs = dict.fromkeys(entry.run for entry in entries)
    return {run: _own_end(run, [other for other in runs if other != run]) for run in runs}


def _own_end(path: Path, others: list[Path]) -> str:
    for n in range(1, len(path.parts)):
        end = path.parts[-n:]
        if all(other.parts[-n:] != end for other in others):
            return str(Path(*end))
    return str(path)


def ranked(entries: list[Entry]) -> list[Entry]:
    """Entries from the best to the worst: held-out first, those without it after."""

    def place(entry: Entry) -> tuple[bool, bool, float]:
        total = entry.deciding.total if entry.deciding else 0.0
        return entry.held_out is None, entry.deciding is None, -total

    return sorted(entries, key=place)


def front_of(run: Path) -> list[Entry]:
    """The models of a run that none of its others beats in all objectives; the winner first.

    Raises:
        InputError: the folder is no run folder, or has no front.
    """
    objectives = _objectives(run)
    if len(objectives) == 1:  # nor will it ever have one: objectives are what makes a run this run
        raise InputError(
            f"{run} has no front: it was searched for one objective, {objectives[0]}; name several "
            "under search.objectives, and give --out another name"
        )
    found = [entry for entry in _entries(run) if entry.role in ("winner", "front")]
    if not found:
        raise InputError(
            f"{run} has no front yet; search its space to the end: mergesearch search SPACE.yaml "
            f"--out {run}"
        )
    return found


def caution(entries: list[Entry]) -> str:
    """What to know before reading the numbers of runs that were searched on a benchmark's test set.

    Empty where there is none.
    """
    spoiled = {entry.run: dict.fromkeys(entry.spoiled.values()) for entry in entries}
    labels = run_labels(entries)
    several = len(labels) > 1
    return " ".join(
        f"{f'Run {labels[run]} was searched' if several else 'Searched'} on the test set of "
        f"{', '.join(names)}: the search scores are no estimate of ability, and held-out numbers "
        f"on the same benchmark are contaminated."
        for run, names in spoiled.items()
        if names
    )


def verdict(entries: list[Entry]) -> str:
    """Whether the best merge of a run beats its best parent and its uniform soup beyond noise.

    It begins with a caution where the run was searched on a benchmark's test set, and ends with
    how many models are on the front of a search for several objectives.
    """
    judged = [entry for entry in entries if entry.deciding]
    merges = [e for e in judged if e.role == "winner"] or [e for e in judged if e.role == "soup"]
    parents = [e for e in judged if e.role in ("parent", "base")]
    lines = [caution(entries)]
    if merges and parents:
        best = merges[0]
        if best.broken:
            lines.append(
                "No finalist keeps every constraint on the whole search split: the winner breaks "
                f"{' and '.join(best.broken)}."
            )
        rivals = [parents[0], *(e for e in judged if e.label == "uniform soup" and e is not best)]
        lines += [_comparison(best, rival) for rival in rivals]
        if n := sum(entry.role == "front" for entry in entries):
            lines.append(f"{n + 1} models are on the front of {' and '.join(best.objectives)}.")
    else:
        lines.append("Nothing to compare yet: the run has no judged winner.")
    return " ".join(filter(None, lines))


def _comparison(best: Entry, rival: Entry) -> str:
    assert best.deciding and rival.deciding
    kind = "held-out" if best.held_out and rival.held_out else "the search split"
    name = f"the best parent, {rival.label}," if rival.role == "parent" else f"the {rival.label}"
    try:
        difference = paired_difference(best.deciding, rival.deciding)
    except InputError as error:
        ahead = f"{best.deciding.total - rival.deciding.total:+.3f}"
        name = name.rstrip(",")
        return f"The {best.label} is {ahead} from {name} on {kind}, beyond noise or not: {error}."
    numbers = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] on {kind}"
    if difference.low > 0:
        return f"The {best.label} beats {name} by {numbers}."
    if difference.high < 0:
        return f"The {best.label} is WORSE than {name.rstrip(',')}: {numbers}."
    return f"The {best.label} does NOT beat {name} beyond noise: {numbers}."
