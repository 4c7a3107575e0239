"""Trackers beside a search: what they are told, and that none stops it."""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mergesearch.errors import InputError
from mergesearch.searching import Limit, Observers, Silent, TrialRecord
from mergesearch.tracking import TRACKERS, Tracking, observer
from tests.report.hand_made import make_run, right
from tests.searching.watch import RecordingObserver

CONFIG = {"base": "models/base", "search": {"trials": 3}}
LIMIT = Limit("trials", 1, 3)
TRIALS = (
    TrialRecord(0, "linear", "a", 0.5, objectives={"score": 0.5, "size": 10}, n_documents=20),
    TrialRecord(1, "ties", None, None, error="the merged tensor has NaN", seconds=2.0),
)


class Fake(ModuleType):
    """A tracker's module that remembers what it is asked, and may break."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.breaks: str | None = None
        self.error: BaseException | None = None
        self.hangs: str | None = None
        self.summary = SimpleNamespace(update=lambda values: self.note("summary", values))
        self.id = "key"

    def note(self, what: str, value: Any) -> "Fake":
        if what == self.breaks:
            raise self.error or ConnectionError(f"{what} is out of reach\nand more")
        if what == self.hangs:
            time.sleep(60)
        self.calls.append((what, value))
        return self

    def init(self, **how: Any) -> "Fake":
        return self.note("init", how)

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.note("log", (dict(values), step))

    log_metrics = log

    def set_experiment(self, name: str) -> None:
        self.note("experiment", name)

    def start_run(self, **how: Any) -> None:
        self.note("init", how)

    def log_dict(self, values: Any, name: str) -> None:
        self.note("config", values)

    def log_text(self, text: str, name: str) -> None:
        self.note("file", name)

    def save(self, file: Path, project: str) -> None:
        self.note("file", file.name)

    def Artifact(self, name: str, type: str) -> Any:
        from contextlib import nullcontext

        def new_file(name: str, **_: Any) -> Any:
            self.note("file", name)
            return nullcontext(SimpleNamespace(write=lambda text: None))

        return SimpleNamespace(new_file=new_file)

    def log_artifact(self, artifact: Any) -> None:
        self.note("artifact", None)

    def finish(self) -> None:
        self.note("finish", None)

    end_run = finish

    def told(self, what: str) -> list[Any]:
        return [value for name, value in self.calls if name == what]


@pytest.fixture(params=["wandb", "trackio", "mlflow"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fake:
    module = Fake(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(
        tmp_path / "run",
        [("one", "parent", right(60), right(50)), ("winner", "winner", right(90), right(80))],
    )


def test_a_tracker_is_told_of_trials_the_winner_and_the_report(fake: Fake, run: Path) -> None:
    said: list[str] = []
    with Tracking([fake.__name__], run, CONFIG, said.append) as tracking:
        for trial in TRIALS:
            tracking.trial(trial, LIMIT, 0.5)
    assert said == []
    logged = fake.told("log")
    assert logged[0][1] == 0
    assert logged[0][0] == {
        "score": 0.5,
        "best": 0.5,
        "share": 1.0,
        "documents": 20.0,
        "seconds": 0.0,
        "objectives/score": 0.5,
        "objectives/size": 10.0,
    }
    assert logged[1] == ({"best": 0.5, "documents": 0.0, "seconds": 2.0}, 1)
    ends = [*fake.told("summary"), *(values for values, step in logged if step is None)]
    assert ends == [
        {
            "winner/search/score": 0.9,
            "winner/search/dev": 0.9,
            "winner/held_out/score": 0.8,
            "winner/held_out/test": 0.8,
        }
    ]
    names = [name.removeprefix("run-").split("-", 1)[-1] for name in fake.told("file")]
    assert sorted(names) == ["leaderboard.json", "report.html"]
    assert fake.calls[-1][0] == "finish"


def test_two_runs_of_a_project_of_trackio_keep_a_page_each(
    monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    module = Fake("trackio")
    monkeypatch.setitem(sys.modules, "trackio", module)
    other = run.parent / "elsewhere" / run.name
    shutil.copytree(run, other)
    for folder in (run, other):
        with Tracking(["trackio"], folder, CONFIG, print):
            pass
    assert len(set(module.told("file"))) == 4


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_the_package_itself_takes_what_it_is_told(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is installed: its files, without a network or an account."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("HOME", str(tmp_path))
    pytest.importorskip(name)  # which reads those
    said: list[str] = []
    with Tracking([name], run, CONFIG, said.append) as tracking:
        for trial in TRIALS:
            tracking.trial(trial, LIMIT, 0.5)
    assert said == []
    kept = {"wandb": "wandb/offline-run-*", "trackio": "trackio/media/**/*report.html"}
    assert list(tmp_path.glob(kept.get(name, "mlruns/**/report.html")))


@pytest.mark.parametrize("breaks", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_one_line_and_then_silent(
    fake: Fake, run: Path, breaks: str
) -> None:
    said: list[str] = []
    fake.breaks = breaks
    with Tracking([fake.__name__], run, CONFIG, said.append) as tracking:
        for trial in TRIALS:
            tracking.trial(trial, LIMIT, 0.5)
    reason = f"{breaks} is out of reach"
    assert said == [f"{fake.__name__} fails, and is told nothing more: {reason}"]


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_tracker_that_hangs_is_not_waited_for(
    fake: Fake, run: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "PATIENCE", 0.1)
    said: list[str] = []
    fake.hangs = where
    with Tracking([fake.__name__], run, CONFIG, said.append) as tracking:
        for trial in TRIALS:
            tracking.trial(trial, LIMIT, 0.5)
    assert said == [f"{fake.__name__} fails, and is told nothing more: no answer for 0 s"]


@pytest.mark.parametrize("error", [SystemExit("not logged in"), ImportError("no such symbol")])
def test_a_tracker_that_exits_or_is_broken_does_not_stop_the_search(
    fake: Fake, run: Path, error: BaseException
) -> None:
    said: list[str] = []
    fake.breaks, fake.error = "init", error
    with Tracking([fake.__name__], run, CONFIG, said.append) as tracking:
        tracking.trial(TRIALS[0], LIMIT, 0.5)
    assert said == [f"{fake.__name__} fails, and is told nothing more: {error}"]


def test_a_search_that_is_stopped_ends_the_trackers_run_without_a_winner(
    fake: Fake, run: Path
) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        Tracking([fake.__name__], run, CONFIG, print),
    ):
        raise KeyboardInterrupt
    assert fake.calls[-1][0] == "finish"
    assert not any("winner/search/score" in values for values, _ in fake.told("log"))


def test_one_that_fails_leaves_the_others_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = {name: Fake(name) for name in ("wandb", "mlflow")}
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    fakes["wandb"].breaks = "log"
    with Tracking(["wandb", "mlflow", "wandb"], run, CONFIG, lambda _: None) as tracking:
        tracking.trial(TRIALS[0], LIMIT, 0.5)
    assert len(fakes["mlflow"].told("log")) == 2
    assert len(fakes["wandb"].told("init")) == 1


def test_what_is_no_tracker_or_not_installed_is_said_before_the_search(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="unknown tracker 'wandv'; did you mean 'wandb'"):
        Tracking(["wandv"], run, CONFIG, print)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"--track wandb needs its package: pip install 'merges"):
        Tracking(["wandb"], run, CONFIG, print)
    assert TRACKERS.own == ("wandb", "trackio", "mlflow")


def test_observers_are_all_told_of_all() -> None:
    one, other = RecordingObserver(), RecordingObserver()
    observers = Observers(one, Silent(), other)
    observers.stage("a stage")
    observers.trial(TRIALS[0], LIMIT, None)
    observers.learning(1, 2)
    assert one.stages == other.stages == ["a stage"]
    assert one.trials == other.trials == [TRIALS[0]]
