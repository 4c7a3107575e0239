"""The lines of trials."""

from dataclasses import replace

import pytest

from mergesearch.cli.progress import Progress
from mergesearch.searching import Limit, TrialEvent

EVENT = TrialEvent(
    number=7,
    limit=Limit("trials", 8, 42),
    what="ties (refined)",
    score=0.53125,
    best=0.5833,
    share=1.0,
    n_documents=300,
    seconds=4.21,
)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (EVENT, "trial   7  [ 8/42]   0.5312  best 0.5833    4.2 s  ties (refined)"),
        (
            replace(EVENT, limit=Limit("documents", 900, 30_000)),
            "trial   7  [   900/30,000 documents]   0.5312  best 0.5833    4.2 s  ties (refined)",
        ),
        (
            replace(EVENT, limit=Limit("minutes", 1.25, 60.0)),
            "trial   7  [ 1.2/60.0 minutes]   0.5312  best 0.5833    4.2 s  ties (refined)",
        ),
        (
            replace(EVENT, share=0.25, n_documents=75),
            "trial   7  [ 8/42]  ~0.5312  best 0.5833    4.2 s  ties (refined), stopped at 25 %",
        ),
        (
            replace(EVENT, n_documents=0),
            "trial   7  [ 8/42]   0.5312  best 0.5833    4.2 s  ties (refined), known already",
        ),
        (
            replace(EVENT, breaks=("size <= 1000", "first >= one")),
            "trial   7  [ 8/42]   0.5312  best 0.5833    4.2 s  ties (refined), breaks size <= 1000"
            ", breaks first >= one",
        ),
        (
            replace(EVENT, score=None, best=None, n_documents=0, error="weights have NaN"),
            "trial   7  [ 8/42]   failed  best none    4.2 s  ties (refined): weights have NaN",
        ),
    ],
)
def test_a_trial_is_a_line(
    event: TrialEvent, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress() as progress:
        progress.trial(event)
    assert capsys.readouterr().err == f"{line}\n"
