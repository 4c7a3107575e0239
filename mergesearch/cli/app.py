"""The commands; each imports what it needs when it runs: `--help` is instant."""

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from mergesearch.cli.check import check
from mergesearch.cli.compare import compare
from mergesearch.cli.options import (
    AllowMismatch,
    BatchSize,
    Device,
    DeviceMemory,
    DevicesPerWorker,
    Engine,
    Live,
    MemoryBudget,
    Out,
    RayAddress,
    ShardSize,
    SpaceFile,
    Track,
    Workers,
)
from mergesearch.cli.pages import dashboard, plot, report
from mergesearch.cli.schema import schema
from mergesearch.cli.sharing import export, extract_lora, push
from mergesearch.cli.status import status
from mergesearch.errors import MergesearchError
from mergesearch.logs import quiet_optuna

#: Of files that are there, and are not for us.
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class _Commands(TyperGroup):
    """The commands, which an interrupt ends with a word on how to go on."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail("stopped; run the same command again to go on", 130)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Search for the best merge of a base LLM and its fine-tuned relatives, without training.",
)


def main() -> None:
    """Run the command line; what went wrong is one line on standard error."""
    # the libraries' own bars and warnings would bury ours
    for name in ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except MergesearchError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        if error.errno in _DENIED and error.filename is not None:
            _fail(f"{error.filename}: {error.strerror}; it must be ours to read and write", 2)
        if error.errno != errno.ENOSPC:
            raise
        _fail("no space left on the device; make room and run the same command again to go on", 2)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the models and the run.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of training and search.")] = 0,
) -> None:
    """Train a small family, search its merges, show the leaderboard. No network."""
    from mergesearch.cli.progress import Progress
    from mergesearch.demo import build_family
    from mergesearch.runtime import torch_threads

    observer = Progress()
    family, run = out / f"family-{seed}", out / f"run-{seed}"
    # tiny models: beside a busy process, threads would wait for each other most of the time
    with torch_threads(1):
        build_family(family, seed=seed, progress=observer.stage)
        _search(family / "space.yaml", run, {}, device="cpu", batch_size=64)


app.command()(check)


@app.command()
def search(
    space: SpaceFile,
    out: Out = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Budget, for the space's.")] = None,
    documents: Annotated[
        int | None, typer.Option(min=1, help="Budget of answers by candidates, for the space's.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Budget of time in trials, for the space's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="For the space's.")] = None,
    storage: Annotated[str | None, typer.Option(help="Database URL in place of a file.")] = None,
    track: Track = None,
    device: Device = "auto",
    devices_per_worker: DevicesPerWorker = 1,
    batch_size: BatchSize = None,
    engine: Engine = "torch",
    memory_budget: MemoryBudget = None,
    device_memory: DeviceMemory = None,
    allow_mismatch: AllowMismatch = False,
    workers: Workers = None,
    ray: RayAddress = None,
    live: Live = False,
) -> None:
    """Search a space; the same command again goes on where it stopped.

    Whichever of its budgets is spent first ends the search.
    """
    given = {"trials": trials, "documents": documents, "minutes": minutes, "seed": seed}
    _search(
        space,
        out or Path("results") / space.stem,
        {key: value for key, value in given.items() if value is not None},
        track=track,
        storage=storage,
        device=device,
        devices_per_worker=devices_per_worker,
        batch_size=batch_size,
        engine=engine,
        memory_budget=memory_budget,
        device_memory=device_memory,
        allow_mismatch=allow_mismatch,
        workers=workers,
        ray=ray,
        live=live,
    )


@app.command()
def soup(
    space: SpaceFile,
    greedy: Annotated[bool, typer.Option("--greedy/--uniform", help="Which soup.")] = True,
    out: Out = None,
    device: Device = "auto",
    devices_per_worker: DevicesPerWorker = 1,
    batch_size: BatchSize = None,
    engine: Engine = "torch",
    memory_budget: MemoryBudget = None,
    device_memory: DeviceMemory = None,
    allow_mismatch: AllowMismatch = False,
    workers: Workers = None,
    ray: RayAddress = None,
) -> None:
    """Make the greedy or uniform soup of a space's parents; score it beside them."""
    from mergesearch.space import SearchSpace

    loaded = SearchSpace.load(space)
    quiet_optuna()

    from mergesearch.api import soup as make_soup
    from mergesearch.cli.leaderboard import show_run
    from mergesearch.cli.progress import Progress

    outcome = make_soup(
        loaded,
        out or Path("results") / space.stem,
        greedy=greedy,
        device=device,
        devices_per_worker=devices_per_worker,
        batch_size=batch_size,
        engine=engine,
        memory_budget=memory_budget,
        device_memory=device_memory,
        allow_mismatch=allow_mismatch,
        workers=workers,
        ray=ray,
        observer=Progress(),
    )
    show_run(outcome.folder)


@app.command()
def learn(
    space: SpaceFile,
    out: Out = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PARENT=FILE",
            help="Imitate a parent on prompts (a line each, or JSONL), with no tasks or labels.",
        ),
    ] = None,
    device: Device = "auto",
    devices_per_worker: DevicesPerWorker = 1,
    batch_size: BatchSize = None,
    engine: Engine = "torch",
    memory_budget: MemoryBudget = None,
    device_memory: DeviceMemory = None,
    allow_mismatch: AllowMismatch = False,
    workers: Workers = None,
    ray: RayAddress = None,
) -> None:
    """Learn one merge's coefficients by gradient; score it beside the parents."""
    from mergesearch.cli.prompts import files_by_parent
    from mergesearch.space import SearchSpace

    loaded = SearchSpace.load(space)
    files = None if prompts is None else files_by_parent(prompts)
    quiet_optuna()

    from mergesearch.api import learn as learn_merge
    from mergesearch.cli.leaderboard import show_run
    from mergesearch.cli.progress import Progress

    with Progress() as observer:
        outcome = learn_merge(
            loaded,
            out or Path("results") / space.stem,
            prompts=files,
            device=device,
            devices_per_worker=devices_per_worker,
            batch_size=batch_size,
            engine=engine,
            memory_budget=memory_budget,
            device_memory=device_memory,
            allow_mismatch=allow_mismatch,
            workers=workers,
            ray=ray,
            observer=observer,
        )
    show_run(outcome.folder)


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="A mergekit config.")],
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="The folder to make.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="Of the result.")
    ] = None,
    max_shard_size: ShardSize = "5GB",
    memory_budget: MemoryBudget = None,
    allow_mismatch: AllowMismatch = False,
) -> None:
    """Merge a recipe into a checkpoint that transformers loads."""
    from mergesearch.cli.sizes import bytes_of
    from mergesearch.recipe import load_stages

    size = bytes_of(max_shard_size)
    budget = None if memory_budget is None else bytes_of(memory_budget)
    loaded = load_stages(recipe)

    from mergesearch.api import merge as merge_recipe

    digest = merge_recipe(
        loaded,
        out,
        dtype=dtype,
        max_shard_bytes=size,
        memory_budget=budget,
        allow_mismatch=allow_mismatch,
        say=lambda note: typer.echo(note, err=True),
    )
    typer.echo(f"{out}  (tensors xxh3 {digest[:12]})")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RECIPE", help="Folder or YAML.")],
    suite: Annotated[Path, typer.Argument(metavar="SUITE.yaml", help="The tasks.")],
    split: Annotated[str, typer.Option(help="search or held_out.")] = "search",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="F", help="Write lm-eval's result format.")
    ] = None,
    device: Device = "auto",
    devices_per_worker: DevicesPerWorker = 1,
    batch_size: BatchSize = None,
    engine: Engine = "torch",
    memory_budget: MemoryBudget = None,
    device_memory: DeviceMemory = None,
    allow_mismatch: AllowMismatch = False,
) -> None:
    """Score a checkpoint or a recipe on a suite, with intervals."""
    from mergesearch.tasks import load_suite

    loaded = load_suite(suite)

    from mergesearch.api import evaluate as score
    from mergesearch.cli.evaluation import show_evaluation, write_results

    evaluation = score(
        model,
        loaded,
        split=split,
        device=device,
        devices_per_worker=devices_per_worker,
        batch_size=batch_size,
        engine=engine,
        memory_budget=memory_budget,
        device_memory=device_memory,
        allow_mismatch=allow_mismatch,
    )
    show_evaluation(evaluation)
    if json_file is not None:
        write_results(json_file, evaluation)


@app.command(
    "lm-eval",
    add_help_option=False,  # it has its own
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def lm_eval(context: typer.Context) -> None:
    """Run lm-eval with --model mergesearch --model_args recipe=PATH."""
    from mergesearch.integrations.lm_eval import run_lm_eval

    run_lm_eval(context.args)


@app.command()
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="F", help="md, csv, json or a plugin's, to write it in."),
    ] = None,
    front: Annotated[
        bool, typer.Option("--front", help="Only what is best in one objective or another.")
    ] = False,
) -> None:
    """Show the models of one run or many, the best first."""
    from mergesearch.report import entries_of, format_of, front_of, ranked

    written = None if form is None else format_of(form)
    runs = list({run.resolve(): run for run in runs}.values())  # named twice, shown once
    if front:
        entries = [entry for run in runs for entry in front_of(run)]
    else:
        entries = ranked([entry for run in runs for entry in entries_of(run)])
    if written is not None:
        typer.echo(written.write(entries).removesuffix("\n"))
        return

    from mergesearch.cli.leaderboard import show_entries, show_front

    (show_front if front else show_entries)(entries)


_OTHERS = (compare, export, extract_lora, push, report, plot, dashboard, status, schema)
for _command in _OTHERS:
    app.command()(_command)


def _search(
    path: Path,
    run: Path,
    changed: Mapping[str, float],
    track: Sequence[str] | None = None,
    **how: Any,
) -> None:
    """Search a space, some of its `search` changed, and show what it came to."""
    from mergesearch.config import parse
    from mergesearch.space import SearchSettings, SearchSpace

    space = SearchSpace.load(path)
    settings = parse(SearchSettings, {**dict(space.search), **changed}, "search")
    space = space.model_copy(update={"search": settings})
    quiet_optuna()

    # only now, since what is wrong with the YAML is said without them
    from mergesearch.api import search as search_space
    from mergesearch.cli.leaderboard import show_run
    from mergesearch.cli.progress import Progress
    from mergesearch.searching import Observers
    from mergesearch.tracking import Tracking

    config = space.model_dump(mode="json")
    with Progress() as progress, Tracking(track or (), run, config, progress.stage) as tracking:
        search_space(space, run, observer=Observers(progress, tracking), **how)
    show_run(run)


def _fail(message: str, code: int) -> None:
    typer.echo(f"mergesearch: {' '.join(message.split())}", err=True)
    sys.exit(code)
