"""What a search knows of its trials, read as they end."""

import random
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import Trial, TrialState

from mergesearch.runs.told import scored_attributes
from mergesearch.samplers.trials import ERROR
from mergesearch.searching.history import HistoryReader
from mergesearch.searching.study import open_study
from tests.searching.watch import goals


def end_somehow(study: optuna.Study, trial: Trial, chance: random.Random) -> None:
    """Score a trial, let its candidate fail, or interrupt it."""
    outcome = chance.choice(["scored", "scored", "failed", "interrupted"])
    if outcome == "scored":
        score = chance.random()
        for key, value in scored_attributes("recipe", score, chance.choice([0.5, 1.0])).items():
            trial.set_user_attr(key, value)
        study.tell(trial, [score])
        return
    if outcome == "failed":
        trial.set_user_attr(ERROR, "not finite")
    study.tell(trial, state=TrialState.FAIL)


def test_what_is_read_bit_by_bit_is_what_is_read_at_once(tmp_path: Path) -> None:
    chance, of = random.Random(0), goals("score")
    study = open_study(tmp_path, "study")
    reader = HistoryReader(study, of, "linear")
    under_way: list[Trial] = []
    for _ in range(150):
        if under_way and chance.random() < 0.5:
            end_somehow(study, under_way.pop(chance.randrange(len(under_way))), chance)
        else:
            under_way.append(study.ask({"weight": FloatDistribution(0, 1)}))
        if chance.random() < 0.7:
            now, anew = reader.read(), HistoryReader(study, of, "linear").read()
            assert now.trials == anew.trials
            assert now.front == anew.front
    assert len({trial.share for trial in reader.read().scored}) == 2


def test_a_journal_that_is_read_anew_has_the_trials_of_who_wrote_it(tmp_path: Path) -> None:
    chance = random.Random(1)
    study = open_study(tmp_path, "study")
    for _ in range(10):
        end_somehow(study, study.ask({"weight": FloatDistribution(0, 1)}), chance)
    again = open_study(tmp_path, "study")
    assert again.trials == study.trials
    end_somehow(again, again.ask(), chance)
    assert len(again.trials) == 11
