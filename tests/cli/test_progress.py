"""The lines of trials."""

from dataclasses import replace

import pytest

from mergesearch.cli.progress import Progress
from mergesearch.searching import Limit, TrialRecord

TRIAL = TrialRecord(7, "ties (refined)", "hash", 0.53125, n_documents=300, seconds=4.21)
LIMIT = Limit("trials", 8, 42)


@pytest.mark.parametrize(
    ("trial", "limit", "best", "line"),
    [
        (
            TRIAL,
            LIMIT,
            0.5833,
            "trial   7  [ 8/42]   0.5312  best 0.5833    4.2 s  ties (refined)",
        ),
        (
            TRIAL,
            Limit("documents", 900, 30_000),
            0.5833,
            "trial   7  [   900/30,000 documents]   0.5312  best 0.5833    4.2 s  ties (refined)",
        ),
        (
            TRIAL,
            Limit("minutes", 1.25, 60.0),
            0.5833,
            "trial   7  [ 1.2/60.0 minutes]   0.5312  best 0.5833    4.2 s  ties (refined)",
        ),
        (
            replace(TRIAL, share=0.25, n_documents=75),
            LIMIT,
            0.5833,
            "trial   7  [ 8/42]  ~0.5312  best 0.5833    4.2 s  ties (refined), stopped at 25 %",
        ),
        (
            replace(TRIAL, n_documents=0),
            LIMIT,
            0.5833,
            "trial   7  [ 8/42]   0.5312  best 0.5833    4.2 s  ties (refined), known already",
        ),
        (
            replace(TRIAL, violations={"size <= 1000": 0.1, "first >= one": 1.0, "second": 0.0}),
            LIMIT,
            0.5833,
            "trial   7  [ 8/42]   0.5312  best 0.5833    4.2 s  ties (refined), breaks size <= 1000"
            ", breaks first >= one",
        ),
        (
            replace(TRIAL, score=None, n_documents=0, error="weights have NaN"),
            LIMIT,
            None,
            "trial   7  [ 8/42]   failed  best none    4.2 s  ties (refined): weights have NaN",
        ),
    ],
)
def test_a_trial_is_a_line(
    trial: TrialRecord,
    limit: Limit,
    best: float | None,
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Progress() as progress:
        progress.trial(trial, limit, best)
    assert capsys.readouterr().err == f"{line}\n"
