"""The proposer: which trial comes next."""

from collections.abc import Callable

import optuna
from optuna.trial import Trial, TrialState

from mergesearch.runs.told import LABEL, REFINES
from mergesearch.searching.history import History
from mergesearch.searching.policies.refining import neighbour
from mergesearch.searching.policies.sampling import n_startup, sampler_of
from mergesearch.searching.policies.starts import Start, starts
from mergesearch.searching.policies.stopping import nearest_limit
from mergesearch.space import SearchSpace, Shape


class Proposer:
    """Proposes trials: queued, starting points, refinements, or the sampler's choice.

    All follow from the trials that have ended, so that after a kill the same one is next.

    Args:
        study: where trials are asked for.
        space: what may be proposed.
        shape: of the models.
    """

    def __init__(self, study: optuna.Study, space: SearchSpace, shape: Shape) -> None:
        self._study = study
        self._space = space
        self._settings = space.search
        self._sampler = sampler_of(space)
        points, left_out = starts(space, shape)
        self._starts = points
        #: The labels of starting points that the space does not hold.
        self.left_out = tuple(left_out)

    def ask(self, history: History, waits: Callable[[Start], bool] = lambda _: False) -> Trial:
        """Ask the study for the next trial.

        Args:
            history: the trials that have ended, and how many are under way.
            waits: says if a starting point had to wait for a trial under way; others come first.
        """
        if not self._has_waiting():
            self._queue(history, waits)
        n_before, startup = history.n_asked, n_startup(self._space, history)
        self._study.sampler = self._sampler.make(self._settings.seed, n_before, startup)
        trial = self._study.ask()
        if self._sampler.generational:
            _ = trial.relative_params  # by which a queued trial joins a generation, too
        return trial

    def _queue(self, history: History, waits: Callable[[Start], bool]) -> None:
        """Queue the next starting point, or near the end of the budget a refinement.

        They are queued one by one, so that one that a kill interrupts comes next again.
        """
        for point in [start for start in self._starts if not waits(start)]:
            self._starts.remove(point)
            label = {LABEL: point.label}
            self._study.enqueue_trial(point.params, user_attrs=label, skip_if_exists=True)
            if self._has_waiting():
                return
        spent = nearest_limit(self._settings, history).share
        if history.front and spent >= 1 - self._settings.refine:
            params = neighbour(history, self._settings.seed)
            if params is not None:
                self._study.enqueue_trial(params, user_attrs={REFINES: True})

    def _has_waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
