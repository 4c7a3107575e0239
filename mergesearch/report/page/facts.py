"""Facts of a run in words: its budget, its end, and what its numbers rest on."""

from collections.abc import Sequence
from dataclasses import dataclass

from mergesearch.report.page.contrast import SPLITS
from mergesearch.report.run import RunView
from mergesearch.scores import Scores


@dataclass(frozen=True)
class Cut:
    """The share of a task's texts that only the token limit ended."""

    model: str
    split: str
    task: str
    #: In [0, 1].
    share: float


def spent(run: RunView) -> list[tuple[str, str]]:
    """List what the search took, and why it stopped."""
    trials = run.trials
    failed = sum(trial.score is None for trial in trials)
    stopped = sum(trial.score is not None and trial.share < 1 for trial in trials)
    facts = [("Trials", f"{len(trials):,}")] if trials else []
    if stopped:
        facts.append(("Stopped early", f"{stopped:,}"))
    if failed:
        facts.append(("Failed", f"{failed:,}"))
    if n_documents := sum(trial.n_documents for trial in trials):
        facts.append(("Documents answered", f"{n_documents:,}"))
    # trials are charged with both
    of_which, beside = ("of which in", "of which for") if n_documents else ("Answers in",) * 2
    if n_learned := run.record.n_answers_learning:
        facts.append((f"{of_which} learning", f"{n_learned:,}"))
    if n_statistics := sum(run.record.statistics.values()):
        facts.append((f"{beside} statistics", f"{n_statistics:,}"))
    if seconds := sum(trial.seconds for trial in trials):
        facts.append(("Time in trials", _time(seconds)))
    return facts


def ending(run: RunView) -> str:
    """Say why the search stopped."""
    if not run.trials:
        return "No search has been made in this folder."
    if reason := run.record.stop_reason:
        return f"The search ended: {reason}."
    if run.merge is None:
        return "The search is under way, or was interrupted: the same command again goes on."
    return "Why the search ended is not on record."


def cuts(run: RunView) -> list[Cut]:
    """List the share of cut texts of every model and task that writes any."""
    return [
        Cut(entry.label, name, task.id.task, sum(known) / len(known))
        for entry in run.entries
        for name, scores in zip(SPLITS.values(), (entry.search, entry.held_out), strict=True)
        for task in (scores.tasks if scores else ())
        if (known := [d.cut for d in task.documents if d.cut is not None])
    ]


def origins(run: RunView, *, commands: bool = True) -> list[tuple[str, str]]:
    """List what made the run: commands, versions and hardware, the last first.

    Args:
        run: of a search, or what else made a model.
        commands: list them, with whatever paths they have.
    """
    if not run.record.processes:
        return []
    last, *before = run.record.processes[::-1]
    facts = [("Command", last.command)] if commands else []
    facts += [("Command before", process.command) for process in before[:3] if commands]
    facts.append(("Versions", ", ".join(f"{k} {v}" for k, v in last.versions.items())))
    return facts + [(name.capitalize(), text) for name, text in last.hardware.items() if text]


def hashes(run: RunView) -> list[tuple[str, str, str, int, int]]:
    """List each model's hashes, and its documents scored on either split."""
    return [
        (e.label, e.recipe.hash, e.digest, _n_documents(e.search), _n_documents(e.held_out))
        for e in run.entries
    ]


def fingerprints(run: RunView) -> Sequence[tuple[str, str, str, int, str]]:
    """List the suite's tasks: split, name, metric, documents, fingerprint."""
    return [
        (SPLITS[split], t.id.task, t.id.metric, t.n_documents, t.id.fingerprint)
        for split, tasks in run.record.suite.splits.items()
        if split in SPLITS
        for t in tasks
    ]


def _n_documents(scores: Scores | None) -> int:
    return scores.n_documents if scores else 0


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
