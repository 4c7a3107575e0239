"""Candidates are merged and scored once, whoever asks for them again."""

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from mergesearch.evaluation import Evaluator
from mergesearch.exporting import write_checkpoint
from mergesearch.merging import LiveModel
from mergesearch.parents import Parents, tokenizer_of
from mergesearch.recipe import Recipe, read_recipe
from mergesearch.runs import Record
from mergesearch.searching.candidates import CandidateEvaluator
from mergesearch.tasks import load_suite
from mergesearch.workers import LocalWorker

SLERP = "{merge_method: slerp, base_model: one, models: [{model: two}], parameters: {t: %s}}"


def evaluator_of(family: Path, recipe: Recipe, folder: Path) -> CandidateEvaluator:
    parents = Parents(recipe.models)
    evaluator = Evaluator(load_suite(family / "suite.yaml"), tokenizer_of(parents))
    worker = LocalWorker(parents, evaluator, torch.device("cpu"))
    return CandidateEvaluator(parents, evaluator, Record(folder), worker)


def live_model(candidates: CandidateEvaluator) -> PreTrainedModel:
    assert isinstance(candidates.worker, LocalWorker)
    return candidates.worker._live.model


def test_to_ask_whether_it_is_scored_merges_nothing(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (read_recipe(SLERP % t).resolved(family / "models") for t in (0.2, 0.7))
    merged: list[str] = []
    become = LiveModel.become

    def counted(self: LiveModel, recipe: Recipe) -> str:
        merged.append(recipe.hash)
        return become(self, recipe)

    monkeypatch.setattr(LiveModel, "become", counted)
    candidates = evaluator_of(family, one, tmp_path)
    digest = candidates.merge(one)
    assert candidates.merge(one) == digest  # known from the record
    assert not candidates.is_scored(digest)
    assert merged == [one.hash]
    assert candidates.score(one).digest == digest
    assert candidates.is_scored(digest)
    assert not candidates.is_scored(digest, "held_out")
    candidates.merge(two)
    assert candidates.score(one).digest == digest  # all of it is known
    assert merged == [one.hash, two.hash]
    candidates.score(one, "held_out")
    assert merged == [one.hash, two.hash, one.hash]
    again = evaluator_of(family, one, tmp_path)
    assert again.is_scored(again.merge(one), "held_out")
    assert len(merged) == 3


def test_the_same_tensors_that_generate_otherwise_are_another_candidate(
    family: Path, tmp_path: Path
) -> None:
    """Equal tensors, but another first model, and with it another `generation_config.json`."""
    text = "{merge_method: linear, models: [{model: %s, parameters: {weight: %d}}, %s]}"
    mixed = text % ("one", 0, "{model: two, parameters: {weight: 1}}")
    both, alone = (
        read_recipe(one).resolved(family / "models")
        for one in (mixed, "{merge_method: passthrough, models: [{model: two}]}")
    )
    for name in ("plain", "marked"):
        (tmp_path / name).mkdir()
    plain = evaluator_of(family, both, tmp_path / "plain")
    assert plain.merge(both) == plain.merge(alone)
    settings = {"eos_token_id": [2, 7], "repetition_penalty": 1.2}
    (family / "models/two/generation_config.json").write_text(json.dumps(settings))
    candidates = evaluator_of(family, both, tmp_path / "marked")
    first = candidates.score(both).digest
    second = candidates.merge(alone)
    assert first == plain.merge(both) != second
    assert live_model(candidates).generation_config.eos_token_id == [2, 7]
    assert not candidates.is_scored(second)
    assert candidates.score(alone).digest == second == candidates.merge(alone)
    tensors = candidates.record.tensors_of(alone.hash)
    assert tensors == candidates.record.tensors_of(both.hash) == first
    write_checkpoint(alone, tmp_path / "out", expected_digest=tensors)
    assert json.loads((tmp_path / "out/generation_config.json").read_text()) == settings
    candidates.merge(both)
    candidates.score(both, "held_out")
    assert live_model(candidates).generation_config.eos_token_id == 2
