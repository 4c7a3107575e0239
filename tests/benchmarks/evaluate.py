# ruff: noqa: RUF001 - the sign for "times" is meant
"""Times scoring beside lm-eval's `simple_evaluate(HFLM(batch_size=16))`, on the real test bed.

    python -m tests.benchmarks.evaluate [--testbed FOLDER] [--only WORKLOAD ...] [--repeats N]

Without --testbed, the test bed that lies beside the project is laid out in a temporary folder.
Writes evaluate.json and evaluate.md, after every workload anew.
"""

import argparse
import copy
import json
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch.evaluation import Evaluator
from mergesearch.runtime import choose_device
from mergesearch.tasks import Suite, TaskSpec
from tests.benchmarks.merge import machine
from tests.benchmarks.testbed import PREPARE, lay_out
from tests.benchmarks.workloads import WORKLOADS, Workload

#: Share of the time that may be spent on anything but the model's forward pass.
_OTHER_SHARE = 0.03


@dataclass(frozen=True)
class Row:
    """The times of one workload, in seconds, candidate by candidate."""

    name: str
    what: str
    n_documents: int
    goal: float | None
    #: The first candidate, for which requests are tokenised and batched.
    first: float
    #: Those after it, and how much of each was the model's forward pass.
    candidates: tuple[float, ...]
    forward: tuple[float, ...]
    #: lm-eval's, on the same weights.
    peer: tuple[float, ...]
    #: The metric's value, which both give.
    value: float

    @property
    def speedup(self) -> float:
        """Times faster than lm-eval, second candidate onwards."""
        return median(self.peer) / median(self.candidates)

    @property
    def other_share(self) -> float:
        """Share of the time that is not the model's forward pass."""
        return 1 - median(f / c for f, c in zip(self.forward, self.candidates, strict=True))


def time_workload(workload: Workload, model: Any, tokenizer: Any, tasks: Path, n: int) -> Row:
    """Time one workload for a first candidate and `n` more, lm-eval in turn with the latter."""
    limit = {"num_fewshot": workload.num_fewshot, "limit": workload.n_documents}
    spec = TaskSpec(task=workload.name, metric=workload.metric, **limit)
    suite = Suite(include_path=(tasks,), search=(spec,))
    evaluator = Evaluator(suite, tokenizer)
    ours, forward, theirs = [], [], []
    harness = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=16)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    for candidate in range(n + 1):
        _next_weights(model, candidate)
        with _forward_seconds(model) as spent:
            seconds, scores = _timed(evaluator.score, model)
        ours.append(seconds)
        forward.append(sum(spent))
        if candidate == 0:
            continue
        seconds, results = _timed(
            simple_evaluate,
            harness,
            tasks=[workload.name],
            task_manager=manager,
            bootstrap_iters=0,
            **limit,
        )
        theirs.append(seconds)
        value = results["results"][workload.name][f"{workload.metric},none"]
        assert scores.tasks[0].value == value, (workload.name, scores.tasks[0].value, value)
    return Row(
        name=workload.name,
        what=workload.what,
        n_documents=workload.n_documents,
        goal=workload.goal,
        first=ours[0],
        candidates=tuple(ours[1:]),
        forward=tuple(forward[1:]),
        peer=tuple(theirs),
        value=value,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    device = choose_device(options.device)
    if options.testbed is None and not PREPARE.exists():
        raise SystemExit("evaluate: needs the test bed, beside the project or by --testbed FOLDER")
    workloads = [w for w in WORKLOADS if not options.only or w.name in options.only]
    rows = []
    with tempfile.TemporaryDirectory(prefix="mergesearch-bench-") as folder:
        scratch = Path(folder)
        bed = lay_out(options.testbed or scratch / "bed")
        tokenizer = AutoTokenizer.from_pretrained(bed / "base")
        model = AutoModelForCausalLM.from_pretrained(bed / "base", dtype=torch.float32)
        model.to(device).eval().requires_grad_(False)
        (scratch / "tasks").mkdir()
        for workload in workloads:
            print(f"evaluate: {workload.name}", flush=True)
            workload.write(bed / "tasks", scratch / "tasks")
            with open(os.devnull, "w") as sink, redirect_stderr(sink):
                row = time_workload(workload, model, tokenizer, scratch / "tasks", options.repeats)
            rows.append(row)
            _write(options.out, rows, _command(options), machine(device))
    print(options.out / "evaluate.md")


def _write(out: Path, rows: Sequence[Row], command: str, facts: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    data = {
        "command": command,
        "machine": facts,
        "works": [
            {**asdict(row), "speedup": row.speedup, "other_share": row.other_share} for row in rows
        ],
    }
    (out / "evaluate.json").write_text(json.dumps(data, indent=1) + "\n")
    header = ("work", "documents", "first, s", "per candidate, s", "lm-eval, s", "× faster")
    lines = [f"| {' | '.join((*header, 'goal', 'other work'))} |", "| --- " * 8 + "|"]
    for row in rows:
        goal = "-"
        if row.goal is not None:
            goal = f"≥ {row.goal:g}: {'met' if row.speedup >= row.goal else '**not met**'}"
        other = f"{100 * row.other_share:.1f} %"
        met = "" if row.other_share <= _OTHER_SHARE else " (**goal: 3 %**)"
        cells = (
            *(row.what, str(row.n_documents), f"{row.first:.2f}", _spread(row.candidates)),
            *(_spread(row.peer), f"{row.speedup:.2f}", goal, other + met),
        )
        lines.append(f"| {' | '.join(cells)} |")
    about = ", ".join(f"{name} {value}" for name, value in facts.items())
    text = "\n\n".join(
        [
            "# Scoring SmolLM2-135M beside lm-eval",
            f"`{command}`",
            f"float32, on: {about}.",
            "\n".join(lines),
            "*Per candidate*: `Evaluator.score` on weights that have changed since the last call, "
            "the median (lowest–highest) after the *first*, for which requests are tokenised and "
            "batched. *lm-eval*: `simple_evaluate` with `HFLM(batch_size=16)` on the same model "
            "in memory, in turn with ours, without bootstrap. Both gave the same metric each "
            "time. *Other work* is the share of our time outside of the model's forward pass; "
            "in generation it holds transformers' own loop and lm-eval's search for stop strings.",
        ]
    )
    (out / "evaluate.md").write_text(text + "\n")


def _next_weights(model: Any, candidate: int) -> None:
    """Other weights in place, as a merge writes them."""
    for parameter in model.parameters():
        parameter.mul_(1.001 if candidate % 2 else 1 / 1.001)


def _timed(call: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(*arguments, **settings)
    return time.perf_counter() - start, result


@contextmanager
def _forward_seconds(model: Any) -> Iterator[list[float]]:
    """Collects the seconds of each forward pass of a model."""
    seconds: list[float] = []
    device, start = next(model.parameters()).device, [0.0]

    def begin(*_: Any) -> None:
        _synchronize(device)
        start[0] = time.perf_counter()

    def end(*_: Any) -> None:
        _synchronize(device)
        seconds.append(time.perf_counter() - start[0])

    hooks = [model.register_forward_pre_hook(begin), model.register_forward_hook(end)]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _spread(seconds: Sequence[float]) -> str:
    low, high = min(seconds), max(seconds)
    return f"{median(seconds):.2f} ({low:.2f}–{high:.2f})"


def _command(options: argparse.Namespace) -> str:
    words = ["python", "-m", "tests.benchmarks.evaluate"]
    for name in ("only", "repeats", "device"):
        value = getattr(options, name)
        if value != _parser().get_default(name):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(str(word) for word in values)]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.evaluate")
    parser.add_argument("--only", nargs="+", choices=[workload.name for workload in WORKLOADS])
    parser.add_argument("--repeats", type=int, default=3, help="candidates after the first")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--testbed", type=Path, help="where prepare.py laid out the test bed")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser


if __name__ == "__main__":
    main()
