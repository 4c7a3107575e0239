"""Silence for what other libraries have to warn of."""

import contextlib
import io
import logging
from collections.abc import Iterator

_LIBRARIES = ("lm_eval", "datasets", "transformers", "accelerate")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let the libraries below say errors only, until the block ends.

    Within another such block it costs nothing. Outside, each change of a level has logging forget
    what all loggers of the process let through, and transformers has thousands: milliseconds.
    """
    loud = {logger: logger.level for logger in _loggers() if logger.level < logging.ERROR}
    quiet_process()
    try:
        yield
    finally:
        for logger, level in loud.items():
            logger.setLevel(level)


def quiet_process() -> None:
    """Let the libraries below say errors only, in a process that is ours."""
    for logger in _loggers():
        if logger.level < logging.ERROR:
            logger.setLevel(logging.ERROR)


def _loggers() -> list[logging.Logger]:
    return [logging.getLogger(name) for name in _LIBRARIES]


def quiet_optuna() -> None:
    """Silence the line that Optuna has for each study and trial, beside ours."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Draw no progress bars of the libraries below, where they offer no switch."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
