"""Runs with a search behind them, written by hand: trials in a journal, a front, odd names."""

import json
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from mergesearch.diagnosis import Diagnosis, Pair, Part
from mergesearch.runs import Contrast, Example, Record, write_contrasts
from mergesearch.runs.told import DOCUMENTS, RECIPE, SECONDS, SHARE, TOTAL
from tests.report.hand_made import Model, make_run, right

#: A name that would leave its place, if a page let it.
ODD = "</script><script>document.title = 'taken'</script>🦙&amp;"

MODELS: list[Model] = [
    ("winner", "winner", right(90), right(80)),
    ("finalist 2", "finalist", right(85), None),
    ("one", "parent", right(60), right(50)),
    ("two", "parent", right(30), right(40)),
]


def run_of(folder: Path, n_trials: int, models: list[Model] = MODELS) -> Path:
    """A finished run whose search had so many trials, every fourth of them stopped early."""
    run = make_run(folder, models)
    about = json.loads((run / "run.json").read_text())
    about["space"] |= {"methods": {"linear": {}, "ties": {}}, "base": None, "parents": {}}
    (run / "run.json").write_text(json.dumps(about))
    record = Record(run)
    storage = JournalStorage(JournalFileBackend(str(run / "journal.log")))
    name = f"run-0-{record.suite.objective}"
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    study.add_trials(trials(n_trials, record.recipe_hashes[0]))
    return run


def trials(n: int, recipe_hash: str) -> Iterator[optuna.trial.FrozenTrial]:
    unit = FloatDistribution(0.0, 1.0)
    space: dict[str, BaseDistribution] = {f"weight.{k}": unit for k in range(6)} | {
        "method": CategoricalDistribution(["linear", "ties"])
    }
    for i in range(n):
        score = 0.5 + 0.4 * ((i * 37) % 101) / 101
        params = {f"weight.{k}": ((i + 1) * (k + 3) % 97) / 97 for k in range(6)}
        share = 1.0 if i % 4 else 0.25
        costs = {DOCUMENTS: int(100 * share), SECONDS: 1.5}
        yield create_trial(
            state=TrialState.COMPLETE,
            value=score,
            params=params | {"method": ("linear", "ties")[i % 2]},
            distributions=space,
            user_attrs={RECIPE: recipe_hash, TOTAL: score, SHARE: share, **costs},
        )


def with_texts(run: Path, ours: str, theirs: str, text: str) -> None:
    """Give a run the texts of two documents of either split, as the end of a search does."""
    record = Record(run, writable=False)
    hashes = {row.label: row.recipe_hash for row in record.rows}
    recipes = {label: hashes[label] for label in (ours, theirs)}
    answers = {ours: text, theirs: "other"}
    examples = tuple(Example("dev", i, f"prompt {text}", text, answers) for i in range(2))
    write_contrasts(run, [Contrast(s, recipes, examples) for s in ("search_full", "held_out")])


def diagnosis(*sizes: float) -> Diagnosis:
    """A diagnosis of two parents with one group in layers of such deltas."""
    pair = Pair(
        first="one", second="two", cosine=0.25, shared=4, opposite=2, overlap=0.5, chance=0.1
    )
    parts = tuple(
        Part(
            layer=layer,
            group="mlp",
            n_entries=9,
            base=1.0,
            deltas={"one": size, "two": 0.5},
            ranks={"one": 2.0, "two": 1.0},
            pairs=(pair,),
        )
        for layer, size in enumerate(sizes)
    )
    n = len(sizes)
    blocks = tuple((layer, layer + 1) for layer in range(n))
    return Diagnosis(parents=("one", "two"), n_layers=n, blocks=blocks, parts=parts)
