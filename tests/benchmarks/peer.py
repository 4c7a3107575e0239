"""mergekit beside us, in its own environment, and what whole processes cost."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.parity.peer import ENVIRONMENT, EXECUTABLE

# A child's peak counts what its parent held when it was started, so a small process starts it.
LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - start
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([seconds, peak]))
sys.exit(os.waitstatus_to_exitcode(status))
"""

# mergekit's own plan and executor, run for what would be saved; tensors are dropped as they come.
# (`plan_in_memory` of mergekit 0.1.5 fails: pydantic cannot instantiate its generic task.)
_DRIVER = """
import json, pathlib, sys, time
import torch, yaml
from mergekit.architecture import get_architecture_info
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor
from mergekit.io.tasks import LoaderCache, SaveTensor
from mergekit.merge import _model_out_config
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner

text, device, repeats = pathlib.Path(sys.argv[1]).read_text(), sys.argv[2], int(sys.argv[3])
options = MergeOptions(quiet=True, device=device)
LoaderCache().setup(options=options)
on_device = device != "cpu"
found = []
for _ in range(repeats):
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    architecture = get_architecture_info(config, options)
    out = _model_out_config(config, architecture)
    for model in config.referenced_models():
        LoaderCache().get(model)
    planner = MergePlanner(config, architecture, options=options, out_model_config=out)
    targets = [t.tensor_task for t in planner.plan_to_disk("none") if isinstance(t, SaveTensor)]
    executor = Executor(targets, math_device=device, storage_device=device)
    start = time.perf_counter()
    n = sum(value is not None for _, value in executor.run(quiet=True))
    if on_device:
        torch.accelerator.synchronize()
    found.append(time.perf_counter() - start)
    assert n == len(targets), (n, len(targets))
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Process:
    """What a whole process cost."""

    seconds: float
    #: The largest resident set, pages of mapped files included.
    peak_bytes: int


def version() -> str | None:
    """mergekit's version, where it is there."""
    if not EXECUTABLE.exists():
        return None
    code = "from importlib.metadata import version; print(version('mergekit'))"
    python = EXECUTABLE.with_name("python")
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()


def run_mergesearch(recipe: str, out: Path) -> Process:
    """`mergesearch merge` for a recipe of absolute paths, writing the checkpoint `out`."""
    file = _write(recipe, out)
    return _run_process([sys.executable, "-m", "mergesearch", "merge", file, out])


def run_mergekit(recipe: str, out: Path, device: str) -> Process:
    """`mergekit-yaml` for a recipe of absolute paths, writing the checkpoint `out`."""
    file = _write(recipe, out)
    return _run_process([EXECUTABLE, file, out, "--quiet", "--device", device])


def time_mergekit(recipe: str, out: Path, device: str, repeats: int) -> list[float]:
    """Seconds of mergekit's merge alone: no start, no imports, no planning, nothing written."""
    file, python = _write(recipe, out), EXECUTABLE.with_name("python")
    return _json_of([python, "-c", _DRIVER, file, device, str(repeats)])


def _write(recipe: str, out: Path) -> Path:
    file = out.with_suffix(".yaml")
    file.write_text(recipe)
    return file


def _run_process(command: Sequence[str | Path]) -> Process:
    seconds, peak = _json_of([sys.executable, "-I", "-S", "-c", LAUNCHER, *command])
    return Process(seconds, int(peak))


def _json_of(command: Sequence[str | Path]) -> list[float]:
    """What a command prints.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[-3:]} failed:\n{done.stderr[-3000:]}")
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found
