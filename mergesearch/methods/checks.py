"""Rules that join a method's parameters."""

from collections.abc import Mapping
from typing import Any


def any_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse nothing: no rule joins the parameters."""


def check_sum(arguments: Mapping[str, Any]) -> None:
    """Refuse normalized weights that sum to zero.

    Raises:
        ValueError: they do.
    """
    normalize = arguments.get("normalize", arguments.get("normalize_weights"))
    if normalize and sum(arguments["weight"]) == 0:
        flag = "normalize" if "normalize" in arguments else "normalize_weights"
        raise ValueError(
            f"weights must not sum to zero, got {list(arguments['weight'])}; "
            f"change a weight or set {flag}: false"
        )


def check_epsilon(arguments: Mapping[str, Any]) -> None:
    """Refuse densities whose keep probabilities leave (0, 1).

    Raises:
        ValueError: density - epsilon or density + epsilon is not a probability.
    """
    for density, epsilon in zip(arguments["density"], arguments["epsilon"], strict=True):
        if density < 1 and not 0 < density - epsilon <= density + epsilon < 1:
            raise ValueError(
                "density - epsilon and density + epsilon must lie in (0, 1), "
                f"got density {density:g} and epsilon {epsilon:g}"
            )


def check_weights(arguments: Mapping[str, Any]) -> None:
    """Refuse weights of which there is no mean.

    Raises:
        ValueError: all are zero.
    """
    if not any(arguments["weight"]):
        raise ValueError(
            f"one weight must be above 0, got {list(arguments['weight'])}; change a weight"
        )
