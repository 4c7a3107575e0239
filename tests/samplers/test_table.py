import subprocess
import sys
from typing import Any

import optuna
import pytest

from mergesearch.errors import InputError
from mergesearch.samplers import SAMPLERS, Sampler, seed_of_trial
from mergesearch.samplers.trials import ERROR, finished, was_queued


def drawn(name: str, seed: int, n_before: int) -> dict[str, Any]:
    """What a sampler draws next, in a study of a few trials."""
    study = optuna.create_study()
    for i in range(3):
        study.enqueue_trial({"x": i / 3, "y": 1 - i / 3})
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1) * trial.suggest_float("y", 0, 1))
    study.sampler = SAMPLERS[name].make(seed, n_before, n_startup=2)
    trial = study.ask()
    return {key: trial.suggest_float(key, 0, 1) for key in ("x", "y")}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_draws_the_same_whenever_it_is_made_with_the_same_numbers(name: str) -> None:
    once = drawn(name, 1, 3)
    assert drawn(name, 1, 3) == once
    assert all(0 <= value <= 1 for value in once.values())


def test_the_table_loads_no_optuna() -> None:
    code = "import sys, mergesearch.samplers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"optuna", "torch", "scipy"} & set(done.stdout.split())


def test_a_factory_is_a_function_or_says_where_one_is() -> None:
    with pytest.raises(ValueError, match=r"function or 'module:function', got 'mine\.make'"):
        Sampler("mine.make")
    own = Sampler(lambda seed, n_before, n_startup: optuna.samplers.RandomSampler(seed))
    assert isinstance(own.make(0, 0, 10), optuna.samplers.RandomSampler)


def test_each_trial_of_each_study_has_a_seed_of_its_own() -> None:
    seeds = {seed_of_trial(seed, n) for seed in range(20) for n in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_trials_that_count_are_scored_ones_and_those_whose_candidate_failed() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    queued, failed, interrupted, _running = (study.ask() for _ in range(4))
    failed.set_user_attr(ERROR, "NaN")
    study.tell(queued, 0.0)
    for trial in (failed, interrupted):
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert [trial.number for trial in finished(study)] == [0, 1]
    assert [was_queued(trial) for trial in finished(study)] == [True, False]


def test_a_factory_that_cannot_be_imported_is_one_line() -> None:
    lost = Sampler("no_such_package:make")
    with pytest.raises(InputError, match=r"^sampler 'no_such_package:make' cannot be imported: "):
        lost.make(seed=0, n_before=0, n_startup=10)
