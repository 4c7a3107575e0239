"""Silence for what other libraries have to warn of."""

import contextlib
import io
import logging
from collections.abc import Iterator

_LIBRARIES = ("lm_eval", "datasets", "transformers", "accelerate")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let the libraries below say errors only."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def quiet_optuna() -> None:
    """Silence the line that Optuna has for each study and trial, beside ours."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Draw no progress bars of the libraries below, where they offer no switch."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
