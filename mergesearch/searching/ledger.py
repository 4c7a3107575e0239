"""The ledger: what each trial took of the budget."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.trial import Trial

from mergesearch.runs.told import DOCUMENTS, SECONDS, WORKERS
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.study import count_interrupted


class Ledger:
    """Charges seconds and documents to trials, whatever comes of them.

    Args:
        study: whose trials are charged.
        candidates: of the run, whose record counts documents.
        counts_documents: whether documents are budgeted: then those of trials that a kill
            interrupts are charged to the study when it is re-opened.
        n_workers: whose trials run beside each other, and share the minutes of the budget.
    """

    def __init__(
        self,
        study: optuna.Study,
        candidates: CandidateEvaluator,
        *,
        counts_documents: bool,
        n_workers: int = 1,
    ) -> None:
        self._study = study
        self._candidates = candidates
        self._counts_documents = counts_documents
        self._n_workers = n_workers

    def recover(self) -> None:
        """Charge what was scored for trials that a kill interrupted."""
        if self._counts_documents:
            count_interrupted(self._study, self._candidates.n_documents_known)

    @contextmanager
    def charge(self, trial: Trial, start: float, candidates: CandidateEvaluator) -> Iterator[None]:
        """Charge a trial with what happens until the block ends.

        Args:
            trial: just asked for.
            start: `time.perf_counter` when it was asked for, since a sampler takes its time, too.
            candidates: that score for it alone meanwhile.
        """
        n_before = candidates.n_documents_scored
        yield
        trial.set_user_attr(SECONDS, time.perf_counter() - start)
        trial.set_user_attr(DOCUMENTS, candidates.n_documents_scored - n_before)
        if self._n_workers > 1:
            trial.set_user_attr(WORKERS, self._n_workers)
