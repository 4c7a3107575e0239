"""Other libraries are quiet for as long as a block goes on, and cheaply within another."""

import logging

import pytest

from mergesearch.logs import quiet

LOGGER = logging.getLogger("transformers")


def test_levels_are_what_they_were_after_a_block() -> None:
    before = LOGGER.level
    with quiet():
        assert LOGGER.level == logging.ERROR
        with quiet():
            assert LOGGER.level == logging.ERROR
        assert LOGGER.level == logging.ERROR, "the outer block goes on"
    assert LOGGER.level == before


def test_a_logger_that_says_less_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "level", logging.CRITICAL)
    with quiet():
        assert LOGGER.level == logging.CRITICAL
    assert LOGGER.level == logging.CRITICAL


def test_a_block_within_another_changes_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet():
        monkeypatch.setattr(logging.Logger, "setLevel", lambda *_: pytest.fail("a level is set"))
        with quiet():
            pass
        monkeypatch.undo()
