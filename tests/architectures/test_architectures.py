"""A sample of the architectures; `make architectures` examines all of them."""

import json
from pathlib import Path

import pytest

from tests.architectures.examine import COLUMNS, WORKS, Outcome, examine
from tests.architectures.shrink import KINDS
from tests.architectures.table import document

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "benchmarks" / "architectures.json"
#: Dense, fused experts, latent attention, another name of the head, towers, state spaces, hybrid.
SAMPLE = ("llama", "qwen3_moe", "deepseek_v3", "gpt_neox", "llama4", "mamba2", "granitemoehybrid")


def kept() -> list[Outcome]:
    """What the last run over all of them came to."""
    return [Outcome(**outcome) for outcome in json.loads(RESULTS.read_text())]


@pytest.mark.parametrize("kind", SAMPLE)
@pytest.mark.filterwarnings("ignore")
def test_an_architecture_works_from_end_to_end(kind: str, tmp_path: Path) -> None:
    outcome = examine(kind, tmp_path)
    assert not outcome.not_made
    assert outcome.columns == dict.fromkeys(COLUMNS, WORKS)


@pytest.mark.filterwarnings("ignore")
def test_an_encoder_decoder_is_merged_and_its_scores_are_refused_with_a_reason(
    tmp_path: Path,
) -> None:
    outcome = examine("bart", tmp_path)
    assert outcome.columns["linear"].startswith("merged, not scored: only models that continue a")
    assert outcome.columns["scores"].startswith("refused: only models that continue a text")


def test_the_page_is_made_of_what_was_measured_and_the_sample_works_there() -> None:
    outcomes = kept()
    assert (ROOT / "docs" / "architectures.md").read_text() == document(outcomes)
    assert len(outcomes) > 150 and {outcome.kind for outcome in outcomes} <= set(KINDS)
    assert {outcome.kind for outcome in outcomes if outcome.works} >= set(SAMPLE)
    columns = [text for outcome in outcomes for text in outcome.columns.values()]
    known = (WORKS, "refused: ", "merged, not scored: ", "lm-eval itself fails")
    assert [text for text in columns if not text.startswith(known)] == []  # no traceback
