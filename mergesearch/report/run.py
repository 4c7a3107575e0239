"""A run as the page and the plots see it: all that its folder has, read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mergesearch.errors import InputError
from mergesearch.logs import quiet_optuna
from mergesearch.objectives import SCORE
from mergesearch.recipe import ModelRef, Recipe
from mergesearch.report.entries import Entry, entries_of
from mergesearch.runs import Contrast, Record, TrialRecord, identity_of, read_contrasts

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"


def damaged(journal: Path) -> InputError:
    """Say that a journal cannot be read."""
    return InputError(
        f"{journal} is damaged: a line of it is no operation of a study; restore it from a copy, "
        "or move it away: the record has the trials but for costs and parameters"
    )


@dataclass(frozen=True, eq=False)
class RunView:
    """A run that may be complete, under way, or one that a kill has ended."""

    folder: Path
    #: Names it beside other runs.
    label: str
    record: Record
    #: The best first; none before the winner is confirmed.
    entries: Sequence[Entry]
    #: The space that was searched, as the folder has it.
    space: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, label: str | None = None) -> Self:
        """Read a run's folder, which another process may be writing.

        Raises:
            InputError: it is no run folder, or is damaged.
        """
        space = identity_of(folder)["space"]
        record = Record(folder, writable=False)
        return cls(folder, label or folder.resolve().name, record, entries_of(folder), space)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of what was searched for."""
        return tuple(self.space.get("search", {}).get("objectives", (SCORE,)))

    @cached_property
    def study(self) -> "optuna.Study | None":
        """The Optuna study of the present suite; None where no journal has one.

        Raises:
            InputError: the journal is damaged.
        """
        path = self.folder / JOURNAL
        if not path.exists() or path.stat().st_size == 0:
            return None  # soups and learned merges have none, and --storage keeps it elsewhere
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        quiet_optuna()
        ours = f"-{self.record.suite.objective}"
        try:
            storage = JournalStorage(JournalFileBackend(str(path)))
            names = [n for n in optuna.get_all_study_names(storage) if n.endswith(ours)]
            return optuna.load_study(study_name=names[0], storage=storage) if names else None
        except (ValueError, KeyError, TypeError):
            raise damaged(path) from None

    @cached_property
    def method_study(self) -> "optuna.Study | None":
        """The scored trials of the best one's method, which share parameters."""
        if self.study is None or not self.best_trials:
            return None
        import optuna

        trials = self.study.get_trials(deepcopy=False)
        best = next(t for t in trials if t.number == self.best_trials[0].number)
        method, scored = best.params.get("method"), {t.number for t in self.best_trials}
        study = optuna.create_study(directions=self.study.directions)
        study.add_trials(
            t for t in trials if t.number in scored and t.params.get("method") == method
        )
        return study

    @cached_property
    def trials(self) -> Sequence[TrialRecord]:
        """The trials that have ended; without a study they lack costs and parameters."""
        if self.study is None:
            return self.record.trials
        from mergesearch.runs.told import record_of
        from mergesearch.samplers.trials import finished

        method = next(iter(self.space["methods"]))
        trials = [record_of(trial, self.objectives, method) for trial in finished(self.study)]
        known = {None, *self.record.recipe_hashes}
        while len(known) > 1 and trials and trials[-1].recipe_hash not in known:
            trials.pop()  # it has ended since the record was read
        return trials

    @cached_property
    def best_trials(self) -> Sequence[TrialRecord]:
        """Scored trials, the best first; whole ones that keep the constraints lead."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return sorted(scored, key=lambda t: (not t.feasible, t.share < 1, -(t.score or 0.0)))

    @property
    def merge(self) -> Entry | None:
        """The model that the run is about: the winner, or what was learned or made a soup."""
        roles = ("winner", "learned", "soup")
        return next((e for role in roles for e in self.entries if e.role == role), None)

    @property
    def rival(self) -> Entry | None:
        """The best parent by what decides."""
        return next((e for e in self.entries if e.role in ("parent", "base")), None)

    @cached_property
    def best_recipe(self) -> Recipe | None:
        """The recipe of the winner, or for want of one that of the best trial so far."""
        if self.merge is not None:
            return self.merge.recipe
        hashes = (trial.recipe_hash for trial in self.best_trials)
        return next((self.record.recipe(key) for key in hashes if key is not None), None)

    @cached_property
    def contrasts(self) -> Sequence[Contrast]:
        """Documents of largest change in words, if they are the present winner's."""
        labels = {e.label for e in (self.merge, self.rival) if e is not None}
        # as the record has it, which a moved folder does not change
        pair = {row.label: row.recipe_hash for row in self.record.rows if row.label in labels}
        return [c for c in read_contrasts(self.folder) if c.recipes == pair]

    def name_of(self, model: ModelRef) -> str:
        """Name a model as the space does, one that it does not name by its folder."""
        return self._names.get(model, str(model).rpartition("/")[2])

    @cached_property
    def _names(self) -> Mapping[ModelRef, str]:
        base = {"base": self.space["base"]} if self.space.get("base") else {}
        texts = {**base, **self.space.get("parents", {})}
        refs = {name: ModelRef.model_validate(text) for name, text in texts.items()}
        return {ref.resolved(self.folder, must_exist=False): name for name, ref in refs.items()}
