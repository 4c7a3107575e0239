"""Silence for what other libraries have to warn of."""

import contextlib
import io
import logging
from collections.abc import Iterator

_LIBRARIES = ("lm_eval", "datasets", "transformers", "accelerate", "gguf")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let the libraries below say errors only, until the block ends.

    Within another such block it costs nothing. Outside, each change of a level has logging forget
    what all loggers of the process let through, and transformers has thousands: milliseconds.
    """
    loud = quiet_process()
    try:
        yield
    finally:
        for logger, level in loud.items():
            logger.setLevel(level)


def quiet_process() -> dict[logging.Logger, int]:
    """Let the libraries below say errors only, from now on.

    Returns:
        The levels of those that said more.
    """
    loggers = map(logging.getLogger, _LIBRARIES)
    loud = {logger: logger.level for logger in loggers if logger.level < logging.ERROR}
    for logger in loud:
        logger.setLevel(logging.ERROR)
    return loud


def quiet_optuna() -> None:
    """Silence the line that Optuna has for each study and trial, beside ours."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Draw no progress bars of the libraries below, where they offer no switch."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
