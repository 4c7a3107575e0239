import json
import random
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mergesearch.api import search
from mergesearch.errors import CandidateError, InputError
from mergesearch.recipe import Recipe
from mergesearch.searching.policies.starts import starts
from mergesearch.searching.runs import open_run
from mergesearch.searching.study import ERROR, finished, open_study
from mergesearch.space import SearchSpace, Shape, suggest
from tests import tiny
from tests.searching import watch
from tests.searching.watch import Killed, RecordingObserver, hash_evaluator, load, running

SHAPE = Shape(n_layers=4)
ONE_METHOD: dict[str, Any] = {"task_arithmetic": {}}


def params(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in sorted(finished(study), key=lambda trial: trial.number)]


def run(
    space: SearchSpace, folder: Path, observer: RecordingObserver | None = None, fail: Any = None
) -> optuna.Study:
    """What a search does with its study, from opening it to its last trial."""
    folder.mkdir(exist_ok=True)
    study = open_study(folder, "study")
    watch.search(study, space, hash_evaluator(folder, fail), observer)
    return study


def killed(
    space: SearchSpace, folder: Path, observer: RecordingObserver | None = None, fail: Any = None
) -> None:
    with pytest.raises(Killed):
        run(space, folder, observer, fail)


def distinct(found: list[dict[str, Any]]) -> int:
    return len({str(sorted(trial.items())) for trial in found})


SAMPLERS = [("tpe", None), ("random", None), ("cmaes", ONE_METHOD)]


@pytest.mark.parametrize(("sampler", "methods"), SAMPLERS)
def test_a_search_stopped_between_trials_goes_on_as_it_would_have(
    family: Path, sampler: str, methods: Any
) -> None:
    changes = {"methods": methods} if methods else {}
    space = load(family, search={"sampler": sampler, "trials": 16, "seed": 3}, **changes)
    whole = params(run(space, family / "whole"))
    assert distinct(whole) == len(whole) == 16
    killed(space, family / "parts", RecordingObserver(kill_after=8))
    killed(space, family / "parts", RecordingObserver(kill_after=4))
    assert params(run(space, family / "parts")) == whole


@pytest.mark.parametrize(("sampler", "methods"), SAMPLERS)
def test_another_seed_makes_another_search(family: Path, sampler: str, methods: Any) -> None:
    changes = {"methods": methods} if methods else {}
    found = []
    for seed in (0, 1):
        settings = {"sampler": sampler, "trials": 10, "seed": seed, "start_from": []}
        space = load(family, search=settings, **changes)
        found.append(params(run(space, family / f"run-{seed}")))
    assert not any(trial in found[1] for trial in found[0])


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("n_drawn", [0, 1, 3])
@pytest.mark.parametrize("n_before", [1, 7])
def test_a_trial_killed_while_it_was_made_is_made_again(
    family: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, n_drawn: int, n_before: int
) -> None:
    space = load(family, search={"sampler": sampler, "trials": 12})
    labels = [start.label for start in starts(space, SHAPE)[0]]

    def dies(space: SearchSpace, trial: optuna.Trial, shape: Shape) -> Any:
        if trial.number == n_before:
            if n_drawn:
                trial.suggest_categorical("method", tuple(space.methods))
            for i in range(n_drawn - 1):
                trial.suggest_float(f"weight.one.{i}", 0, 1.5)
            raise Killed
        return suggest(space, trial, shape)

    with monkeypatch.context() as patched:
        patched.setattr("mergesearch.searching.loop.suggest", dies)
        killed(space, family / "run")
    study = run(space, family / "run")
    found = params(study)
    assert distinct(found) == len(found) == 12
    assert running(study) == []
    tried = {t.user_attrs["label"]: t.params for t in finished(study) if "label" in t.user_attrs}
    assert tried == {start.label: start.params for start in starts(space, SHAPE)[0]}
    assert sorted(tried) == sorted(labels)


@pytest.mark.parametrize("number", [0, 4, 8])
def test_a_trial_killed_while_it_was_scored_is_scored_again(family: Path, number: int) -> None:
    space = load(family, search={"trials": 12})
    whole = run(space, family / "whole")

    def dies(_: Recipe) -> None:
        raise Killed

    observer = RecordingObserver(kill_after=number) if number else None
    if observer:
        killed(space, family / "run", observer)
    killed(space, family / "run", fail=dies)
    study = open_study(family / "run", "study")
    assert running(study) == []
    interrupted = whole.trials[number]
    fixed = [t.system_attrs["fixed_params"] for t in study.get_trials(states=(TrialState.WAITING,))]
    # a starting point is queued again, what the sampler drew it draws again
    assert fixed == ([interrupted.params] if "label" in interrupted.user_attrs else [])
    assert params(run(space, family / "run")) == params(whole)


def test_a_trial_killed_again_and_again_is_queued_once(family: Path) -> None:
    space = load(family, search={"trials": 8})

    def dies(_: Recipe) -> None:
        raise Killed

    for _ in range(4):
        killed(space, family / "run", fail=dies)
    found = params(run(space, family / "run"))
    assert distinct(found) == len(found) == 8


def test_a_failed_trial_counts_and_is_not_tried_again(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = load(family, search={"trials": 8})
    tried: list[str] = []

    def fails(recipe: Recipe) -> None:
        tried.append(recipe.hash)
        if recipe.merge_method == "linear":
            raise CandidateError("NaN in a tensor")

    # killed when the trial has its reason, and before the study is told
    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "tell", _killed_instead)
        killed(space, family / "run", fail=fails)
    study = run(space, family / "run", fail=fails)
    assert len(finished(study)) == 8
    assert distinct(params(study)) == 8
    assert len(set(tried)) == len(tried)
    failed = [t for t in finished(study) if t.state == TrialState.FAIL]
    assert {t.user_attrs[ERROR] for t in failed} == {"NaN in a tensor"}
    assert all(t.params["method"] == "linear" for t in failed)
    entries = hash_evaluator(family / "run").record.trials
    assert [e.error for e in entries if e.score is None] == ["NaN in a tensor"] * len(failed)


def _killed_instead(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_trial_killed_when_it_was_scored_and_not_told_costs_nothing(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = load(family, search={"trials": 8})
    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "tell", _killed_instead)
        killed(space, family / "run")
    observer = RecordingObserver()
    run(space, family / "run", observer)
    assert [e.n_documents for e in observer.trials if e.method == "linear (uniform soup)"] == [0]
    assert sum(e.n_documents for e in observer.trials) == 7


def test_a_trial_that_the_record_lacks_is_entered_when_the_run_is_opened(family: Path) -> None:
    space = load(family, search={"trials": 8})
    run(space, family / "run")
    record = family / "run" / "record.jsonl"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:-2]))  # the trial, and why the search ended
    assert len(hash_evaluator(family / "run").record.trials) == 7
    run(space, family / "run")
    assert len(hash_evaluator(family / "run").record.trials) == 8
    assert record.read_text() == "".join(lines)


def test_a_journal_cut_in_its_last_line_is_opened_again(family: Path) -> None:
    space = load(family, search={"trials": 8})
    killed(space, family / "run", RecordingObserver(kill_after=7))
    journal = family / "run" / "journal.log"
    whole = journal.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    cuts = random.Random(0).sample(range(last + 1, len(whole)), 5)
    for cut in [last + 1, *cuts, len(whole) - 1]:
        journal.write_bytes(whole[:cut])
        study = run(space, family / "run")
        assert distinct(params(study)) == len(params(study)) == 8
        assert running(study) == []


def test_a_lock_that_an_earlier_version_left_on_the_journal_holds_nobody_up(family: Path) -> None:
    space = load(family, search={"trials": 4})
    killed(space, family / "run", RecordingObserver(kill_after=2))
    (family / "run" / "journal.log.lock").symlink_to(family / "run" / "journal.log")
    assert len(params(run(space, family / "run"))) == 4


def test_a_trial_left_running_does_not_repel_the_sampler(family: Path) -> None:
    space = load(family, search={"trials": 3})
    (family / "run").mkdir()
    study = open_study(family / "run", "study")
    study.ask({"method": optuna.distributions.CategoricalDistribution(list(space.methods))})
    assert running(study) == [0]
    assert running(open_study(family / "run", "study")) == []
    assert len(params(run(load(family, search={"trials": 3}), family / "run"))) == 3


def test_studies_of_two_runs_share_a_database(family: Path) -> None:
    url = f"sqlite:///{family / 'studies.db'}"
    for name in ("a", "b"):
        (family / name).mkdir()
        space = load(family, search={"trials": 3})
        study = open_study(family / name, name, url)
        watch.search(study, space, hash_evaluator(family / name))
        assert len(finished(study)) == 3
    assert not (family / "a" / "journal.log").exists()


def test_a_study_in_a_database_goes_with_its_run_folder(family: Path) -> None:
    url = f"sqlite:///{family / 'studies.db'}"
    space = load(family, search={"trials": 2})
    search(space, family / "run", storage=url, device="cpu")
    search(space, family / "run", storage=url, device="cpu")
    shutil.rmtree(family / "run")
    for trials in (2, 4):
        with pytest.raises(InputError, match=r"2 candidates that .* does not know") as caught:
            search(
                load(family, search={"trials": trials}),
                family / "run",
                storage=url,
                device="cpu",
            )
        assert "take another name for the run folder" in str(caught.value)


def test_a_database_that_cannot_be_opened_is_named(family: Path) -> None:
    for url in ("nonsense", f"sqlite:///{family / 'no' / 'such' / 'folder' / 'x.db'}"):
        with pytest.raises(InputError, match=r"--storage .*: cannot be opened: ") as caught:
            open_study(family, "study", url)
        assert "\n" not in str(caught.value)


def test_starts_outside_the_space_are_said_once(family: Path) -> None:
    space = load(family, methods={"linear": {"weight": [0.2, 0.8]}}, search={"trials": 2})
    first, second = RecordingObserver(), RecordingObserver()
    run(space, family / "run", first)
    run(space, family / "run", second)
    assert first.stages[0] == (
        "not in this space, so not tried first: task arithmetic at 0.3, task arithmetic at 0.5, "
        "task arithmetic at 1, one, two"
    )
    assert len(first.stages) == 2
    assert second.stages == ["the search ends: the budget of 2 trials is spent"]


def test_weights_that_change_between_sittings_are_noticed(family: Path) -> None:
    base, one, adapter = (family / "models" / name for name in ("base", "one", "adapter"))
    tiny.adapter(adapter, base, seed=3)
    settings, out = adapter / "adapter_config.json", family / "run"
    space = load(family)
    parents = {"adapted": f"{base}+{adapter}", **space.parents}
    space = SearchSpace.model_validate({**dict(space), "parents": parents})

    def open_again(refused: str | None = None) -> None:
        changed = rf"^the weights of .*{refused} have changed since"
        refusal = pytest.raises(InputError, match=changed) if refused else nullcontext()
        with refusal, open_run(space, out):
            pass

    open_again()
    record = (out / "record.jsonl").read_text()
    before = json.loads(settings.read_text())
    settings.write_text(json.dumps(before | {"base_model_name_or_path": "elsewhere"}))
    open_again()
    settings.write_text(json.dumps(before | {"lora_alpha": 3}))
    open_again(refused="adapter")
    tiny.adapter(adapter, base, seed=4)
    open_again(refused="adapter")
    tiny.adapter(adapter, base, seed=3)
    open_again()
    tiny.llama(one, 77, base=base)
    open_again(refused="one")
    assert (out / "record.jsonl").read_text() == record
