"""Keys of a space: prompts that methods look at, and AIM."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from mergesearch.config import Config
from mergesearch.recipe import Aim, ModelRef, PromptFile
from mergesearch.space.learned import Interval

if TYPE_CHECKING:
    import optuna

#: Prompts that are documents of the suite.
LEARN: Literal["learn"] = "learn"
#: What is searched of AIM, in a study's names.
OMEGA = "aim.omega"
#: Digits kept of it, as of every suggested number.
_DECIMALS = 4


def _readable(value: Any) -> Any:
    if value not in (None, LEARN) and not isinstance(value, Mapping):
        raise ValueError(
            f"calibration is {LEARN}, or a file of prompts for each parent, as in "
            f"{{PARENT: FILE}}; got {value!r}"
        )
    return value


#: A file of prompts for each parent, or "learn".
Prompts = Annotated[Literal["learn"] | Mapping[str, Path], BeforeValidator(_readable)]


class AimSettings(Config):
    """Activation-Informed Merging (arXiv:2502.02421) of every merged candidate.

    Of the channels that the base uses most, less of the merged delta is left.
    """

    #: What is left of the delta of the channel that the base uses most; 1 changes nothing.
    omega: Interval = (0.2, 1.0)

    @model_validator(mode="after")
    def _in_bounds(self) -> "AimSettings":
        low, high = self.omega
        if not 0 <= low <= high <= 1:
            raise ValueError(f"omega must lie in [0, 1], got {[low, high]}")
        return self

    def suggest(self, base: ModelRef, trial: "optuna.trial.BaseTrial") -> Aim | None:
        """Draw how much is left; None where all of it is."""
        low, high = self.omega
        drawn = low if low == high else round(trial.suggest_float(OMEGA, low, high), _DECIMALS)
        omega = min(max(drawn, low), high)
        return None if omega == 1 else Aim(base=base, omega=omega)


def prompt_files(
    prompts: Literal["learn"] | Mapping[str, Path] | None, models: Mapping[str, ModelRef]
) -> tuple[PromptFile, ...] | None:
    """Name the files of some models for a recipe; None while they are not written."""
    if not isinstance(prompts, Mapping):
        return None
    return tuple(
        PromptFile(model=models[name], path=str(path))
        for name, path in prompts.items()
        if name in models
    )
