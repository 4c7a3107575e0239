"""Every causal architecture of transformers, tiny: merged, stacked, scored, loaded.

    python -m tests.architectures [--kinds NAME ...] [--out FOLDER]

Each is examined in a process of its own, which has two minutes. Writes `architectures.json` into
--out, and the table of docs/architectures.md from it.
"""

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path

import torch

from tests.architectures.examine import Outcome, as_json, examine
from tests.architectures.shrink import KINDS
from tests.architectures.table import document

_SECONDS = 120
_PAGE = Path("docs/architectures.md")


def main() -> None:
    """Examine the kinds and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.architectures")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    options = parser.parse_args()
    outcomes = []
    for kind in options.kinds:
        outcomes.append(_alone(kind))
        print(kind, outcomes[-1].not_made or outcomes[-1].columns, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(as_json(outcome) for outcome in outcomes)
    (options.out / "architectures.json").write_text(f"[\n{lines}\n]\n")
    if list(options.kinds) == list(KINDS):
        _PAGE.write_text(document(outcomes))


def _alone(kind: str) -> Outcome:
    """Examine a kind in a process that is ended when its time is over."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcome.json"
        process = context.Process(target=_examine, args=(kind, Path(folder), path))
        process.start()
        process.join(_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return Outcome(kind, {}, f"it takes longer than {_SECONDS} seconds")
        if not path.exists():
            return Outcome(kind, {}, f"its process ended with {process.exitcode}")
        return Outcome(**json.loads(path.read_text()))


def _examine(kind: str, folder: Path, path: Path) -> None:
    torch.set_num_threads(1)
    path.write_text(as_json(examine(kind, folder)))


if __name__ == "__main__":
    main()
