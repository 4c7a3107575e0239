import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file

from mergesearch.api import search, soup
from mergesearch.errors import CandidateError, InputError, MergesearchError
from mergesearch.evaluation import Evaluator, Turn
from mergesearch.parents import Parents, load_tokenizer
from mergesearch.recipe import Recipe, Slice, Source, soup_recipe
from mergesearch.report import entries_of
from mergesearch.runs import Record
from mergesearch.runs.told import RECIPE
from mergesearch.searching import Limit
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.searching.runs import open_run, study_name, suite_entry
from mergesearch.searching.setup import prepare
from mergesearch.searching.study import finished, open_study
from mergesearch.space import SearchSpace
from mergesearch.workers import LocalWorker
from tests import tiny
from tests.searching.watch import RecordingObserver, load, running


@pytest.fixture
def n_scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many documents a model has really answered so far."""
    answered: list[int] = []
    original = Turn.score_documents

    def counted(turn: Any, task: Any, doc_ids: Any) -> Any:
        answered.extend(doc_ids)
        return original(turn, task, doc_ids)

    monkeypatch.setattr(Turn, "score_documents", counted)
    return lambda: len(answered)


def poison(folder: Path, name: str) -> None:
    """Give a parent weights that are finite, and from which no finite logits follow."""
    path = folder / "models" / name / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], 3e38)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_search_spends_its_budget_and_scores_its_winner_beside_the_others(
    searched: Path,
) -> None:
    run = searched / "run"
    record = Record(run, writable=False)
    assert [trial.number for trial in record.trials] == list(range(8))
    assert all(trial.error is None for trial in record.trials)
    labels = {row.label: row.role for row in record.rows}
    (arithmetic,) = (label for label in labels if label.startswith("task arithmetic, λ = "))
    assert labels == {
        "winner": "winner",
        "finalist 2": "finalist",
        "finalist 3": "finalist",
        "finalist 4": "finalist",
        "finalist 5": "finalist",
        "base": "base",
        "one": "parent",
        "two": "parent",
        "uniform soup": "reference",
        arithmetic: "reference",
    }
    for entry in entries_of(run):
        assert entry.search is not None
        assert [len(task.doc_ids) for task in entry.search.tasks] == [12, 12]  # limit: 8 is lifted
        assert entry.held_out is not None
        assert [task.id.task for task in entry.held_out.tasks] == ["third"]


def test_the_winner_is_the_best_finalist_on_the_whole_search_split(searched: Path) -> None:
    entries = {entry.label: entry for entry in entries_of(searched / "run")}
    totals = [
        entries[label].search.total  # type: ignore[union-attr]
        for label in ("winner", "finalist 2", "finalist 3")
    ]
    assert totals == sorted(totals, reverse=True)
    digests = {entries[label].digest for label in ("winner", "finalist 2", "finalist 3")}
    assert len(digests) == 3


def test_the_best_task_arithmetic_is_chosen_on_the_search_split(searched: Path) -> None:
    run = searched / "run"
    record = Record(run, writable=False)
    tried = {trial.method.rpartition(" at ")[2].rstrip(")"): trial.score for trial in record.trials}
    scores = {scale: tried[scale] for scale in ("0.3", "0.5", "1")}
    (row,) = (row for row in record.rows if row.label.startswith("task arithmetic"))
    assert scores[row.label.rpartition(" ")[2]] == max(score or 0 for score in scores.values())


def test_a_trials_score_is_the_weighted_mean_of_its_tasks(searched: Path) -> None:
    record = Record(searched / "run", writable=False)
    for trial in record.trials:
        scores = record.scores(record.digest_of(trial.recipe_hash or "") or "", "search")
        assert scores is not None
        first, second = scores.tasks
        assert (len(first.doc_ids), len(second.doc_ids)) == (12, 8)
        assert trial.score == pytest.approx((first.value + 2 * second.value) / 3)


def test_the_same_command_again_changes_nothing_and_scores_nothing(
    searched: Path, n_scored: Callable[[], int]
) -> None:
    run = searched / "run"
    space = SearchSpace.load(searched / "space.yaml")
    search(space, run, device="cpu")  # what a copy of the folder makes new: absolute paths
    name = study_name(prepare(space), run)
    before = (run / "record.jsonl").read_bytes(), open_study(run, name).trials
    observer = RecordingObserver()
    search(space, run, device="cpu", observer=observer)
    assert n_scored() == 0
    assert observer.trials == []
    assert ((run / "record.jsonl").read_bytes(), open_study(run, name).trials) == before


def test_a_run_that_is_renamed_is_the_same_run(searched: Path) -> None:
    (searched / "run").rename(searched / "renamed")
    observer = RecordingObserver()
    search(SearchSpace.load(searched / "space.yaml"), searched / "renamed", observer=observer)
    assert observer.trials == []


def test_more_trials_go_on_where_the_search_ended(searched: Path) -> None:
    run = searched / "run"
    before = Record(run, writable=False).trials
    observer = RecordingObserver()
    search(load(searched, search={"trials": 11}), run, device="cpu", observer=observer)
    after = Record(run, writable=False).trials
    assert [(t.number, t.score) for t in after[:8]] == [(t.number, t.score) for t in before]
    assert [trial.number for trial in after] == list(range(11))
    assert [trial.number for trial in observer.trials] == [8, 9, 10]
    assert observer.limits == [Limit("trials", n, 11) for n in (9, 10, 11)]


def test_fewer_trials_than_were_run_are_no_error(searched: Path) -> None:
    search(load(searched, search={"trials": 2}), searched / "run", device="cpu")
    assert len(Record(searched / "run", writable=False).trials) == 8


def test_a_run_of_another_space_is_refused(searched: Path) -> None:
    run = searched / "run"
    before = (run / "record.jsonl").read_bytes()
    space = load(searched, methods={"linear": {}, "ties": {}})
    with pytest.raises(InputError, match="was made by another space") as caught:
        search(space, run, device="cpu")
    assert "space.methods.task_arithmetic was" in str(caught.value)
    assert (run / "record.jsonl").read_bytes() == before


def candidates_of(folder: Path, record: Record) -> tuple[CandidateEvaluator, SearchSpace]:
    space = SearchSpace.load(folder / "space.yaml")
    evaluator = Evaluator(space.load_suite(), load_tokenizer(folder / "models" / "base"))
    parents = Parents(space.models)
    worker = LocalWorker(parents, evaluator, torch.device("cpu"))
    return CandidateEvaluator(parents, evaluator, record, worker), space


def test_a_recipe_and_tensors_seen_before_cost_nothing(family: Path, tmp_path: Path) -> None:
    candidates, space = candidates_of(family, Record(tmp_path))
    one, two = space.parents.values()
    first = candidates.score(soup_recipe([one]))
    assert candidates.n_documents_scored == 12 + 8
    sources = (
        Source(model=one, parameters={"weight": 0.5}),
        Source(model=two, parameters={"weight": 0.0}),
    )
    other = Recipe(merge_method="linear", slices=(Slice(sources=sources),))
    assert other.hash != soup_recipe([one]).hash
    for recipe in (soup_recipe([one]), other, other):
        again = candidates.score(recipe)
        assert (again.digest, again.total) == (first.digest, first.total)
        assert [t.values for t in again.scores.tasks] == [t.values for t in first.scores.tasks]
    assert candidates.n_documents_scored == 12 + 8
    candidates.score(other, full=True)  # only what the limit left out
    assert candidates.n_documents_scored == 12 + 12


def test_a_recipe_is_scored_block_by_block_as_far_as_it_is_asked_for(
    family: Path, tmp_path: Path, n_scored: Callable[[], int]
) -> None:
    candidates, space = candidates_of(family, Record(tmp_path))
    recipe = soup_recipe([space.parents["one"]])
    blocks = candidates.blocks(recipe, n_blocks=4)
    for n in (5, 10):
        candidate = next(blocks)
        assert candidate.scores.n_documents == candidates.n_documents_scored == n_scored() == n
    another, _ = candidates_of(family, Record(tmp_path))
    *some, last = another.blocks(recipe, n_blocks=4)
    assert [candidate.scores.n_documents for candidate in some] == [5, 10, 15]
    assert n_scored() == 12 + 8
    again = another.score(recipe)
    assert (again.digest, again.total) == (last.digest, last.total)
    assert n_scored() == 12 + 8


def test_a_value_that_documents_do_not_give_is_kept_with_the_last_block(
    family: Path, tmp_path: Path
) -> None:
    median = {"metric": "acc", "aggregation": "median", "higher_is_better": True}
    tiny.task(family / "tasks", "first", metric_list=[median])
    record = Record(tmp_path)
    candidates, space = candidates_of(family, record)
    record.set_suite(suite_entry(candidates.evaluator))
    blocks = candidates.blocks(soup_recipe([space.parents["one"]]), n_blocks=2)
    digest = next(blocks).digest
    assert record.scores(digest, "search") is None
    (last,) = blocks
    for opened in (record, Record(tmp_path, writable=False)):
        found = opened.scores(digest, "search")
        assert found is not None
        assert [task.value for task in found.tasks] == [task.value for task in last.scores.tasks]


def test_blocks_of_one_recipe_are_never_scored_with_the_weights_of_another(
    family: Path, tmp_path: Path
) -> None:
    (tmp_path / "alone").mkdir()
    candidates, space = candidates_of(family, Record(tmp_path))
    one, two = (soup_recipe([ref]) for ref in space.parents.values())
    *_, last = candidates.blocks(two)
    whole = candidates.blocks(one)
    next(whole)
    assert candidates.score(two).total == last.total  # known, so that nothing is merged
    next(whole)
    candidates.score(two, "held_out")  # merged between two blocks of the other
    *_, found = whole
    alone, _ = candidates_of(family, Record(tmp_path / "alone"))
    expected = alone.score(one).scores
    assert [task.values for task in found.scores.tasks] == [t.values for t in expected.tasks]
    done = candidates.blocks(one)
    next(done)
    candidates.score(two, full=True)
    assert sum(1 for _ in done) == 4  # nothing is missing


def test_a_model_is_scored_with_its_own_weights_whatever_was_scored_before(
    family: Path, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    alone, space = candidates_of(family, Record(folders[0]))
    one, two = (soup_recipe([ref]) for ref in space.parents.values())
    expected = alone.score(one, "held_out").scores
    candidates, _ = candidates_of(family, Record(folders[1]))
    candidates.score(one)
    candidates.score(two)
    candidates.score(two, full=True)
    assert candidates.score(one, "held_out").scores == expected


def test_a_parent_that_changes_during_a_run_is_noticed(family: Path, tmp_path: Path) -> None:
    candidates, space = candidates_of(family, Record(tmp_path))
    recipe = soup_recipe([space.parents["one"]])
    candidates.score(recipe)
    tiny.llama(family / "models" / "one", 77, base=family / "models" / "base")
    changed, _ = candidates_of(family, Record(tmp_path))
    with pytest.raises(InputError, match="has changed since"):
        changed.score(recipe, "held_out")
    known = Record(tmp_path).documents.of(candidates.score(recipe).digest)
    assert [len(known.known(task)) for task in changed.evaluator.tasks("search")] == [12, 8]
    assert [len(known.known(task)) for task in changed.evaluator.tasks("held_out")] == [0]


def test_settings_of_generation_that_change_between_sittings_are_noticed(family: Path) -> None:
    space, out = load(family), family / "run"
    file = family / "models" / "one" / "generation_config.json"
    with open_run(space, out):
        pass
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"transformers_version": "5.99"}))
    with open_run(space, out):
        pass
    record = (out / "record.jsonl").read_text()
    file.write_text(json.dumps(settings | {"repetition_penalty": 1.3}))
    with (
        pytest.raises(InputError, match=r"config\.json of .*one has changed since .*run"),
        open_run(space, out),
    ):
        pass
    assert (out / "record.jsonl").read_text() == record


def test_a_candidate_without_finite_scores_fails_its_trial_and_no_other(family: Path) -> None:
    poison(family, "two")
    observer = RecordingObserver()
    outcome = search(
        load(family, search={"trials": 8}), family / "run", device="cpu", observer=observer
    )
    failed = {trial.method: trial.error for trial in observer.trials if trial.score is None}
    assert {"linear (two)", "linear (uniform soup)"} <= set(failed)
    assert all(failed.values()), failed
    record = Record(family / "run")
    assert len(record.trials) == 8
    assert [t.error for t in record.trials if t.score is None] == list(failed.values())
    assert outcome.best.recipe.models[0] == load(family).parents["one"]
    labels = {row.label for row in record.rows}
    assert {"winner", "one", "base"} <= labels
    assert not {"two", "uniform soup"} & labels
    assert any(line.startswith("two is not on the leaderboard: ") for line in observer.stages)


def test_a_search_in_which_every_candidate_fails_has_no_winner(family: Path) -> None:
    for name in ("one", "two"):
        poison(family, name)
    space = load(family, methods={"linear": {"weight": [0.5, 1]}}, search={"trials": 3})
    with pytest.raises(MergesearchError, match="every candidate failed") as caught:
        search(space, family / "run", device="cpu")
    assert caught.value.exit_code == 1
    record = Record(family / "run")
    assert [trial.score for trial in record.trials] == [None] * 3
    assert record.rows == ()


def test_a_finalist_that_fails_on_the_whole_split_is_out(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CandidateEvaluator.score
    winner: list[str] = []

    def score(
        self: CandidateEvaluator, recipe: Recipe, split: str = "search", *, full: bool = False
    ) -> Any:
        if full and (not winner or recipe.hash == winner[0]):
            winner.append(recipe.hash)
            raise CandidateError("log-likelihood is nan")
        return original(self, recipe, split, full=full)

    monkeypatch.setattr(CandidateEvaluator, "score", score)
    outcome = search(load(family, search={"trials": 4}), family / "run", device="cpu")
    assert outcome.best.recipe.hash != winner[0]


def test_a_lower_perplexity_is_a_better_one(family: Path) -> None:
    documents = [{"text": " ".join(tiny.WORDS[i : i + 8])} for i in range(6)]
    tiny.write_task(
        family / "tasks",
        "surprise",
        documents,
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_choice=None,
        doc_to_target="{{text}}",
        metric_list=[{"metric": "word_perplexity"}],
    )
    (family / "suite.yaml").write_text(
        "include_path: tasks\nsearch: [{task: surprise, metric: word_perplexity}]\n"
    )
    run = family / "run"
    outcome = search(load(family, search={"trials": 8}), run, device="cpu")
    record = Record(run)
    perplexities = {}
    for trial in record.trials:
        scores = record.scores(record.digest_of(trial.recipe_hash or "") or "", "search")
        assert scores is not None
        (score,) = scores.tasks
        assert trial.score == -score.value < -1
        perplexities[trial.number] = score.value
    assert len(set(perplexities.values())) == 8
    (best,) = outcome.best.scores.tasks
    assert best.value == min(perplexities.values())
    assert not best.id.higher_is_better
    shown = [entry.search.tasks[0].value for entry in entries_of(run) if entry.search]
    assert shown == sorted(shown)


@pytest.mark.parametrize("greedy", [True, False])
def test_a_soup_is_scored_beside_the_parents(family: Path, greedy: bool) -> None:
    run = family / "run"
    observer = RecordingObserver()
    outcome = soup(load(family), run, greedy=greedy, device="cpu", observer=observer)
    record = Record(run)
    roles = {row.label: row.role for row in record.rows}
    label = "greedy soup" if greedy else "uniform soup"
    assert roles[label] == "soup"
    assert {"base", "one", "two", "uniform soup"} <= set(roles)
    assert len(record.soup) == (2 if greedy else 0)
    for entry in entries_of(run):
        assert entry.search and entry.held_out
    assert outcome.best.recipe.merge_method == "linear"
    if greedy:
        for step in record.soup:
            word = "kept" if step.kept else "dropped"
            line = f"{' + '.join(step.ingredients)}: {step.score:.4f} ({word} {step.model})"
            assert line in observer.stages


def test_a_soup_in_the_folder_of_a_search_uses_its_scores(
    searched: Path, n_scored: Callable[[], int]
) -> None:
    run, space = searched / "run", SearchSpace.load(searched / "space.yaml")
    soup(space, run, greedy=False, device="cpu")
    assert n_scored() == 0
    assert len(Record(run).trials) == 8


def test_the_order_of_a_greedy_soup_is_searched_as_a_method(family: Path) -> None:
    space = load(family, methods={"greedy_soup": {}}, search={"trials": 4, "start_from": []})
    observer = RecordingObserver()
    outcome = search(space, family / "run", device="cpu", observer=observer)
    assert len(observer.trials) == 4
    assert sum(trial.n_documents == 0 for trial in observer.trials) >= 2  # two orders there are
    assert outcome.best.recipe.merge_method == "linear"


def test_the_study_of_a_finished_search_has_a_recipe_for_each_scored_trial(
    searched: Path,
) -> None:
    run = searched / "run"
    space = SearchSpace.load(searched / "space.yaml")
    study = open_study(run, study_name(prepare(space), run))
    assert running(study) == []
    assert len(finished(study)) == 8
    record = Record(run)
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        assert record.digest_of(trial.user_attrs[RECIPE])
