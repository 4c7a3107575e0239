"""Several workers beside one: throughput, the driver's own work, what a budget buys, and kills.

    python -m tests.benchmarks.workers [--parts NAME ...] [--testbed FOLDER] [--work FOLDER]
        [--out FOLDER]

Each part is kept in workers.json, and measured anew where it is named. `throughput` needs two idle
cores; of the others, only the driver's part counts seconds. Writes workers.json and workers.md.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.merge import machine
from tests.benchmarks.testbed import PREPARE, lay_out
from tests.benchmarks.workers import budget, driver, kills, throughput

#: In the order in which they are laid out.
_PARTS = {"throughput": throughput, "driver": driver, "budget": budget, "kills": kills}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    file = options.out / "workers.json"
    report = json.loads(file.read_text()) if file.exists() else {}
    report["command"] = "python -m tests.benchmarks.workers"
    with tempfile.TemporaryDirectory(prefix="mergesearch-bench-") as scratch:
        work = (options.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for name in options.parts:
            began = {"machine": machine(torch.device("cpu")), "load": os.getloadavg()[0]}
            part = _PARTS[name]
            measured = (
                throughput.measure(lay_out(options.testbed or work / "testbed"), work)
                if part is throughput
                else part.measure(work)
            )
            report[name] = {**measured, **began}
            options.out.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(report, indent=1) + "\n")
            report = json.loads(file.read_text())  # as the next will read it
            (options.out / "workers.md").write_text(markdown(report))
    print(options.out / "workers.md")


def markdown(report: Mapping[str, Any]) -> str:
    """Lay the report out."""
    lines = [
        "# Several workers beside one",
        "",
        f"Made by `{report['command']}`, a part at a time.",
    ]
    for name, part in _PARTS.items():
        if name in report:
            lines += part.lines(report[name])
    return "\n".join([*lines, ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.workers")
    default = [name for name in _PARTS if name != "throughput" or PREPARE.exists()]
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=default, metavar="NAME")
    parser.add_argument("--testbed", type=Path, help="where prepare.py laid out the test bed")
    parser.add_argument("--work", type=Path, help="where runs are kept, and found by `budget`")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser


if __name__ == "__main__":
    main()
