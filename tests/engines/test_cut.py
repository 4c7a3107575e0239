"""Texts that only the token limit ended, from the engine to the run's folder."""

from pathlib import Path

from mergesearch.requests import Generation, Written
from mergesearch.runs import Documents
from mergesearch.scores import DocumentScore
from tests import tiny


def test_an_engine_says_which_texts_only_the_limit_ended(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from mergesearch.engines import engine_of

    engine = engine_of(tiny.tokenizer())
    engine.load(AutoModelForCausalLM.from_pretrained(tiny.llama(tmp_path / "one", 1)))
    (whole,) = engine.answer([Generation("w1 w2", {"until": ["none"], "max_gen_toks": 6})])
    assert isinstance(whole, Written) and whole.cut
    end = whole.split()[2]
    (ended,) = engine.answer([Generation("w1 w2", {"until": [end], "max_gen_toks": 6})])
    assert isinstance(ended, Written) and not ended.cut
    assert end not in ended.split()


def test_the_share_is_kept_beside_the_scores(tmp_path: Path) -> None:
    scores = {0: DocumentScore(1.0, None, 0.0), 3: DocumentScore(0.0, None, 0.5)}
    plain = {1: DocumentScore(1.0, 0.25)}
    documents = Documents(tmp_path)
    documents.add("d", "written", scores)
    documents.add("d", "chosen", plain)
    again = Documents(tmp_path, writable=False)
    assert again.known("d", "written") == scores
    assert again.known("d", "chosen") == plain
