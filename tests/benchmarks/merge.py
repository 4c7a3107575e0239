"""Times merges of SmolLM2-135M-sized parents beside plain copies and beside mergekit.

    python -m tests.benchmarks.merge [--only METHOD ...] [--dtypes DTYPE ...] [--repeats N]
        [--no-peer] [--resume] [--out FOLDER]

Writes merge.json and merge.md, after every method anew.
"""

import argparse
import gc
import itertools
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from mergesearch import LiveModel, merge_into, open_parents
from mergesearch.merging.threads import workers
from mergesearch.recipe import Recipe, read_recipe, write_recipe
from mergesearch.runtime import choose_device
from tests.benchmarks import peer
from tests.benchmarks.cases import CASES, Case
from tests.benchmarks.family import SHAPES, Family, Shape, make_family
from tests.benchmarks.results import BlockRow, DiskRow, Report, Row

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: Of the candidates that differ in one block, and their methods.
_N_BLOCKS, _IN_BLOCKS = 3, ("task_arithmetic", "ties")


class Copier:
    """Copies between two buffers on a device, as many bytes as asked for."""

    def __init__(self, n_bytes: int, device: torch.device) -> None:
        self._source = torch.zeros(n_bytes // 4, dtype=torch.float32, device=device)
        self._target = torch.ones_like(self._source)  # written, so that all its pages are there

    def __call__(self, n_bytes: int) -> None:
        self._target[: n_bytes // 4].copy_(self._source[: n_bytes // 4])


def live_model(family: Family, device: torch.device) -> Any:
    """A model to merge into, of the dtype that a search would give it."""
    dtype = torch.float32 if device.type == "cpu" else family.dtype
    model = AutoModelForCausalLM.from_pretrained(family.base, dtype=dtype).to(device)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # no pages of the mapped file
    return model


def time_candidates(case: Case, family: Family, model: Any, n: int) -> Row:
    """The first candidate of a method and `n` more, each a recipe of its own, between copies."""
    device = next(model.parameters()).device
    n_read = case.bytes_read(family.shape.n_entries, family.dtype.itemsize)
    n_written = sum(parameter.nbytes for parameter in model.parameters())
    parents = open_parents(base=family.base, parents=family.parents, device=str(device))
    copier = Copier(n_read + n_written, device)
    merges, copies, input_copies = [], [], []
    for candidate in range(n + 1):
        recipe = _recipe(case, family, candidate)
        copies.append(_seconds(device, copier, n_read + n_written))
        merges.append(_seconds(device, merge_into, model, recipe, parents))
        input_copies.append(_seconds(device, copier, n_read))
    return Row(
        method=case.method,
        bytes_read=n_read,
        bytes_written=n_written,
        first=merges[0],
        candidates=tuple(merges[1:]),
        copies=tuple(copies),
        input_copies=tuple(input_copies),
        eigenvectors=time_eigenvectors(case, family.shape, device) if case.eigenvectors else None,
    )


def time_eigenvectors(case: Case, shape: Shape, device: torch.device) -> float:
    """The eigendecompositions that a method's first candidate cannot do without."""
    sizes = [min(of) for name, of in shape.tensors() if len(of) == 2 and ".layers." in name]
    squares = {n: torch.randn(n, 2 * n, dtype=torch.float64) for n in set(sizes)}
    squares = {n: wide @ wide.T for n, wide in squares.items()}
    with workers(device) as pool:
        todo = [squares[n] for n in sizes for _ in range(case.eigenvectors)]
        return _seconds(device, lambda: [None for _ in pool.map(torch.linalg.eigh, todo)])


def time_blocks(case: Case, family: Family, device: torch.device, n: int) -> BlockRow:
    """Candidates that differ in all of three blocks, and in each of them, `n` times in turn."""
    parents = open_parents(base=family.base, parents=family.parents, device=str(device))
    live = LiveModel(parents, device)
    numbers = itertools.count()
    whole, one_block = [], []

    def become(candidates: Sequence[int]) -> float:
        text = case.recipe_in_blocks(candidates, family.shape.num_hidden_layers)
        return _seconds(device, live.become, read_recipe(text).resolved(family.folder))

    become([next(numbers) for _ in range(_N_BLOCKS)])
    for _ in range(n):
        of_blocks = [next(numbers) for _ in range(_N_BLOCKS)]
        whole.append(become(of_blocks))
        for block in range(_N_BLOCKS):
            of_blocks[block] = next(numbers)
            one_block.append(become(of_blocks))
    return BlockRow(case.method, tuple(whole), tuple(one_block))


def time_to_disk(case: Case, family: Family, n: int) -> list[DiskRow]:
    """`mergesearch merge` and `mergekit-yaml` for one recipe, `n` times in turn."""
    recipe = write_recipe(_recipe(case, family, 0))
    ours, theirs = [], []
    for _ in range(n):
        with _scratch() as scratch:
            ours.append(peer.run_mergesearch(recipe, scratch / "ours"))
        if peer.EXECUTABLE.exists():
            with _scratch() as scratch:
                theirs.append(peer.run_mergekit(recipe, scratch / "theirs", "cpu"))
    return [
        DiskRow(case.method, "mergesearch merge", tuple(ours)),
        DiskRow(case.method, "mergekit-yaml", tuple(theirs)),
    ]


def with_peer(row: Row, case: Case, family: Family, device: str, n: int) -> Row:
    """The row with mergekit's times."""
    if not peer.EXECUTABLE.exists():
        return row
    recipe, whole = write_recipe(_recipe(case, family, 1)), []
    with _scratch() as scratch:
        alone = peer.time_mergekit(recipe, scratch / "alone", device, n)
    for _ in range(n):
        with _scratch() as scratch:
            whole.append(peer.run_mergekit(recipe, scratch / "whole", device).seconds)
    return replace(row, peer_alone=tuple(alone), peer_whole=tuple(whole))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    cases = [CASES[method] for method in options.only or CASES]
    device = choose_device(options.device)
    report = Report(_command(options), machine(device), options.size)
    if options.resume and (options.out / "merge.json").exists():
        report.take(options.out)
    gc.freeze()  # what is imported is no garbage, and is not looked through after each method
    with _scratch() as scratch:
        for dtype in (DTYPES[name] for name in options.dtypes):
            family = make_family((options.models or scratch).resolve(), options.size, dtype)
            result, model = report.family(family.name), live_model(family, device)
            known = {row.method for row in result.rows}
            for case in cases:
                if not options.only and case.method in known:
                    continue
                print(f"{family.name}: {case.method}", flush=True)
                row = time_candidates(case, family, model, options.repeats)
                gc.collect()  # the parents and what they kept
                if case.peer and not options.no_peer and (options.all_peers or case.goal):
                    n = options.peer_repeats or (3 if case.method == "ties" else 1)
                    row = with_peer(row, case, family, str(device), n)
                result.put(row)
                report.write(options.out)
            if not (options.only or result.blocks):
                result.blocks = [
                    time_blocks(CASES[name], family, device, options.repeats) for name in _IN_BLOCKS
                ]
                report.write(options.out)
            if CASES["ties"] in cases and not (result.disk or options.no_peer):
                result.disk = time_to_disk(CASES["ties"], family, options.peer_repeats or 3)
                report.write(options.out)
    print(options.out / "merge.md")


def _recipe(case: Case, family: Family, candidate: int) -> Recipe:
    return read_recipe(case.recipe(candidate)).resolved(family.folder)


def _seconds(device: torch.device, work: Callable[..., Any], *arguments: Any) -> float:
    _synchronize(device)
    start = time.perf_counter()
    work(*arguments)
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mergesearch-bench-") as folder:
        yield Path(folder)


def machine(device: torch.device) -> dict[str, Any]:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = str(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "mergekit": peer.version() or "not there",
    }


def _command(options: argparse.Namespace) -> str:
    words = ["python", "-m", "tests.benchmarks.merge"]
    for name in ("only", "dtypes", "repeats", "peer_repeats", "size", "device"):
        value = getattr(options, name)
        if value != _parser().get_default(name):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *(str(word) for word in values)]
    for name in ("all_peers", "no_peer", "resume"):
        words += [f"--{name.replace('_', '-')}"] * getattr(options, name)
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.merge")
    parser.add_argument("--only", nargs="+", choices=list(CASES), metavar="METHOD")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--repeats", type=int, default=5, help="candidates after the first")
    parser.add_argument("--peer-repeats", type=int, help="mergekit's runs; else 1, and 3 of ties")
    parser.add_argument(
        "--all-peers", action="store_true", help="mergekit for methods without a goal too: hours"
    )
    parser.add_argument("--no-peer", action="store_true", help="ours alone, and not to disk")
    parser.add_argument("--size", choices=list(SHAPES), default="135m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows in merge.json that are not measured"
    )
    parser.add_argument("--models", type=Path, help="where the models are kept; else nowhere")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser


if __name__ == "__main__":
    main()
