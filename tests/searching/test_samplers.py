"""Every sampler on the tiny family, by an evaluator that costs nothing."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from mergesearch.errors import InputError
from mergesearch.runs.told import LABEL, REFINES
from mergesearch.samplers import SAMPLERS, nsga
from mergesearch.searching.history import History, HistoryReader
from mergesearch.searching.policies import sampling
from mergesearch.searching.policies.sampling import n_startup, sampler_name
from mergesearch.searching.study import finished
from mergesearch.space import SearchSpace, suggest
from tests.searching.watch import (
    Killed,
    RecordingObserver,
    ended,
    goals,
    hash_evaluator,
    load,
    run,
    tried,
)

BY_NAME = list(SAMPLERS)
GENERATIONAL = [name for name in SAMPLERS if SAMPLERS[name].generational]
ONE_METHOD: dict[str, Any] = {"task_arithmetic": {}}


@pytest.fixture(autouse=True)
def _small_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nsga, "_POPULATION", 4)  # so that a short search has several


def space_for(family: Path, sampler: str, *, methods: Any = None, **search: Any) -> SearchSpace:
    """A choice of methods, but for samplers that take none or are slow at it."""
    methods = methods or (ONE_METHOD if sampler in ("cmaes", "gp") else None)
    changes = {"methods": methods} if methods else {}
    return load(family, search={"sampler": sampler, "trials": 20, **search}, **changes)


def searched(family: Path, name: str, space: SearchSpace, **candidates: Any) -> optuna.Study:
    (family / name).mkdir(exist_ok=True)
    return run(space, hash_evaluator(family / name, **candidates))


def drawn(study: optuna.Study) -> list[dict[str, Any]]:
    """What the sampler chose."""
    return [t.params for t in finished(study) if not {LABEL, REFINES} & t.user_attrs.keys()]


class Draws:
    """A trial whose process dies when it draws a number after so many."""

    def __init__(self, trial: optuna.Trial, n: int) -> None:
        self._trial = trial
        self._left = n

    def __getattr__(self, name: str) -> Any:
        if name.startswith("suggest_"):
            if not self._left:
                raise Killed
            self._left -= 1
        return getattr(self._trial, name)


def dies_drawing(n: int) -> Callable[..., Any]:
    return lambda space, trial, shape: suggest(space, Draws(trial, n), shape)  # type: ignore[arg-type]


def dies(*_: Any, **__: Any) -> None:
    raise Killed


@pytest.mark.parametrize("sampler", BY_NAME)
def test_a_search_killed_at_any_moment_comes_to_what_it_would_have_come_to(
    family: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    n_trials, startup = (12, 9) if sampler == "gp" else (20, 7)  # its fits are what takes time
    space = space_for(family, sampler, seed=3, refine=0.1, trials=n_trials, startup=startup)
    whole = tried(searched(family, "whole", space))
    assert len(whole) == n_trials
    if not sampler.startswith("nsga"):  # whose children may be copies of their parents
        assert len({str(trial) for trial in whole}) == n_trials
    (family / "parts").mkdir()

    def killed(n_trials: int, target: str, replacement: Any) -> None:
        """After some more trials by the first way, then in the next one by the second."""
        with pytest.raises(Killed):
            run(space, hash_evaluator(family / "parts"), RecordingObserver(kill_after=n_trials))
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(target, replacement)
            run(space, hash_evaluator(family / "parts"))

    killed(2, "mergesearch.searching.loop.suggest", dies_drawing(3))
    killed(1, "tests.searching.watch.HashEvaluator.blocks", dies)  # both are starting points
    killed(4, "mergesearch.searching.loop.suggest", dies_drawing(0))
    killed(1, "mergesearch.searching.loop.suggest", dies_drawing(3))
    killed(1, "tests.searching.watch.HashEvaluator.blocks", dies)
    killed(1, "optuna.Study.tell", dies)
    assert tried(run(space, hash_evaluator(family / "parts"))) == whole


@pytest.mark.parametrize("sampler", BY_NAME)
def test_another_seed_makes_another_search(family: Path, sampler: str) -> None:
    found = []
    for seed in (0, 1):
        space = space_for(family, sampler, seed=seed, refine=0, trials=9)
        found.append(drawn(searched(family, f"{seed}", space)))
    assert len(found[0]) >= 3
    assert not any(params in found[1] for params in found[0])


@pytest.mark.parametrize("sampler", [name for name in BY_NAME if name != "cmaes"])
def test_a_sampler_takes_several_objectives_constraints_and_a_choice_of_methods(
    family: Path, sampler: str
) -> None:
    stacks = {"stacking": {"depth": [2, 6], "segments": 2}, "linear": {}}
    settings = {"objectives": ["first", "size"], "constraints": ["second >= 0.3", "size <= 550"]}
    space = space_for(
        family, sampler, methods=stacks, start_from=[], trials=14, startup=10, **settings
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = searched(family, "run", space, tasks=("first", "second"))
    trials = finished(study)
    assert len(trials) == 14
    assert {trial.params["method"] for trial in trials} == {"stacking", "linear"}
    assert {tuple(trial.constraints) for trial in trials} == {("second >= 0.3", "size <= 550")}
    front = HistoryReader(study, goals("first", "size")).read().front
    assert len(front) >= 1
    assert {t.number for t in front} <= {t.number for t in study.best_trials}


def test_cmaes_is_refused_several_objectives_and_a_choice_of_methods(family: Path) -> None:
    with pytest.raises(InputError, match="sampler cmaes searches one objective"):
        space_for(family, "cmaes", objectives=["score", "size"])
    with pytest.raises(InputError, match="sampler cmaes searches one method"):
        load(family, search={"sampler": "cmaes"})


def test_cmaes_searches_beside_constraints_and_does_not_warn_of_each_trial(family: Path) -> None:
    space = space_for(family, "cmaes", constraints=["size <= 1K"], trials=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(drawn(searched(family, "run", space))) >= 3


@pytest.mark.parametrize("sampler", GENERATIONAL)
def test_starting_points_are_members_of_a_generation(family: Path, sampler: str) -> None:
    """Optuna would leave them out, since their parameters are queued and none is drawn."""
    study = searched(family, "run", space_for(family, sampler, methods=ONE_METHOD, refine=0))
    started = [trial for trial in finished(study) if LABEL in trial.user_attrs]
    assert len(started) == 5
    generations = [
        next((v for k, v in trial.system_attrs.items() if k.endswith("generation")), None)
        for trial in started[1:]  # before the first there is no space to draw from
    ]
    assert None not in generations


def test_points_of_qmc_are_those_of_one_sequence(family: Path) -> None:
    """Of four points in a row from a multiple of four on, each is in a quarter of its own."""
    methods = {"task_arithmetic": {"weight": [0.0, 1.0]}}
    space = space_for(family, "qmc", methods=methods, refine=0, trials=5 + 16)
    points = drawn(searched(family, "run", space))
    assert len(points) == 16
    for key in ("weight.one.0", "weight.two.1"):
        quarters = [int(4 * params[key]) for params in points]
        for i in range(0, 16, 4):
            assert sorted(quarters[i : i + 4]) == [0, 1, 2, 3]


def test_auto_is_a_gaussian_process_for_one_method_and_few_trials_else_tpe(family: Path) -> None:
    def chosen(**search: Any) -> str:
        return sampler_name(space_for(family, **{"sampler": "auto", **search}))

    assert chosen() == "tpe"
    assert chosen(methods=ONE_METHOD) == "gp"
    assert chosen(methods=ONE_METHOD, trials=sampling._GP_TRIALS) == "gp"
    assert chosen(methods=ONE_METHOD, trials=sampling._GP_TRIALS + 1) == "tpe"
    assert chosen(methods=ONE_METHOD, objectives=["score", "size"]) == "gp"
    for name in BY_NAME:
        assert chosen(sampler=name) == name


@pytest.mark.parametrize(
    ("search", "n_startup_trials"),
    [
        ({"trials": 100}, 30),  # ten for each of three methods
        ({"trials": 25}, 30),
        ({"trials": 24}, 10),  # a quarter is spent: no more than the first ten
        ({"trials": 100, "documents": 241}, 30),
        ({"trials": 100, "documents": 240}, 10),
        ({"trials": 100, "minutes": 13}, 30),
        ({"trials": 100, "documents": 1000, "minutes": 12}, 10),
        ({"trials": 24, "startup": 17}, 17),
    ],
)
def test_a_sampler_learns_after_ten_trials_a_method_or_a_quarter_of_the_nearest_limit(
    family: Path, search: dict[str, Any], n_startup_trials: int
) -> None:
    """Six trials of ten documents and half a minute each."""
    space = load(family, search=search)
    assert len(space.methods) == 3
    trials = [ended(i, 0.5, n_documents=10, minutes=0.5) for i in range(6)]
    assert n_startup(space, History(tuple(trials), goals("score"))) == n_startup_trials


def test_a_name_that_is_none_is_refused(family: Path) -> None:
    with pytest.raises(InputError, match="unknown sampler 'tpee'"):
        load(family, search={"sampler": "tpee"})
