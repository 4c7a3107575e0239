"""The page of architectures, from the outcomes of all of them."""

from collections.abc import Sequence

from tests.architectures.examine import COLUMNS, WORKS, Outcome

_HEAD = """\
# Architectures

Every architecture that transformers' `AutoModelForCausalLM` makes, as a family of three tiny random
models: merged by `linear`, `ties` and `slerp`, stacked by `passthrough`, each in memory and as a
checkpoint that transformers loads again, the same to 1e-5; and scored beside lm-eval's own `hf`
model on the checkpoint. `make architectures` writes this page.

"""


#: What a cell says before its reason.
_STATES = ("merged, not scored", "refused")


def document(outcomes: Sequence[Outcome]) -> str:
    """Write the page."""
    made = [outcome for outcome in outcomes if not outcome.not_made]
    works = [outcome for outcome in made if outcome.works]
    left = [outcome for outcome in outcomes if outcome.not_made]
    reasons: dict[str, int] = {}
    rows = [_row(outcome, reasons) for outcome in made]
    lines = [
        f"Of {len(outcomes)} architectures {len(made)} can be made tiny, and all of it works for "
        f"{len(works)} of them.",
        "",
        "| architecture | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
        *rows,
        "",
        "## Reasons",
        "",
        *(f"{number}. {_cell(reason)}" for reason, number in reasons.items()),
        "",
        "## Not examined",
        "",
        "No tiny model of these could be made, or run, from the configuration's own defaults.",
        "",
        "| architecture | reason |",
        "|---|---|",
        *(f"| `{outcome.kind}` | {_cell(outcome.not_made)} |" for outcome in left),
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _row(outcome: Outcome, reasons: dict[str, int]) -> str:
    """Write a row; a reason is a number, and is kept under it."""
    cells = []
    for name in COLUMNS:
        text = outcome.columns[name].replace(f"of the type {outcome.kind}", "of this type")
        state, _, reason = text.partition(": ")
        if state in _STATES:
            text = f"{state} ([{reasons.setdefault(reason, len(reasons) + 1)}](#reasons))"
        cells.append(_cell(text))
    return f"| `{outcome.kind}` | " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return text if text == WORKS else text.replace("|", "/").replace("<", "&lt;")
