"""The examples in the docstrings of public classes, run where the tiny family lies."""

import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest

import mergesearch
from mergesearch.searching.candidates import Candidate, CandidateEvaluator

CLASSES = [
    thing
    for name in mergesearch.__all__
    if inspect.isclass(thing := getattr(mergesearch, name)) and not issubclass(thing, Exception)
]
#: Of rooms, and not public.
CLASSES += [Candidate, CandidateEvaluator]


@pytest.mark.parametrize("thing", CLASSES, ids=lambda thing: thing.__name__)
def test_a_public_class_shows_an_example_that_runs(
    thing: Any, family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(family)
    examples = doctest.DocTestFinder(recurse=False).find(thing, thing.__name__, globs={})
    assert [example for test in examples for example in test.examples], "it shows none"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
