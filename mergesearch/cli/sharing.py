"""Commands that share a merge: export, extract-lora, push."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mergesearch.cli.options import RunFolder, ShardSize
from mergesearch.errors import InputError

if TYPE_CHECKING:
    from mergesearch.recipe import ModelRef

OutDir = Annotated[Path, typer.Argument(metavar="OUT_DIR", help="The folder to make.")]
Rank = Annotated[int, typer.Option(min=1, metavar="R", help="Rank of an adapter's matrices.")]
SuiteFile = Annotated[
    Path | None,
    typer.Option(
        "--suite", metavar="SUITE.yaml", help="Score an adapter beside the model it stands for."
    ),
]


def export(
    run: RunFolder,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="How many of the best.")] = 1,
    trial: Annotated[int | None, typer.Option(metavar="N", help="One trial instead.")] = None,
    front: Annotated[
        bool, typer.Option("--front", help="Each model of the front instead.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder.", show_default="RUN/export")] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="F", help="safetensors, gguf, lora or a plugin's.")
    ] = "safetensors",
    outtype: Annotated[
        Literal["f16", "bf16", "q8_0"], typer.Option(help="Of a GGUF file's matrices.")
    ] = "f16",
    rank: Rank = 32,
    suite: SuiteFile = None,
    max_shard_size: ShardSize = "5GB",
) -> None:
    """Write the best candidates, checked against what was scored."""
    from mergesearch.cli.sizes import bytes_of
    from mergesearch.exporting import export as write

    if front and trial is not None:
        raise InputError(f"give --front or --trial, got both (--trial {trial})")
    if suite is not None and form != "lora":
        raise InputError(f"--suite scores adapters, got --format {form}; use mergesearch evaluate")
    folders = write(
        run,
        out,
        top=top,
        trial=trial,
        front=front,
        form=form,
        say=_say,
        max_shard_bytes=bytes_of(max_shard_size),
        outtype=outtype,
        rank=rank,
    )
    for folder in folders:
        typer.echo(folder)
        if suite is not None:
            _score_beside(folder, suite)


def extract_lora(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub id.")],
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model it was made of.")],
    out: OutDir,
    rank: Rank = 32,
    suite: SuiteFile = None,
) -> None:
    """Write the difference of a model and its base as a LoRA adapter."""
    from mergesearch.exporting import extract_lora as extract

    for line in extract(_reference(model), _reference(base), out, rank=rank):
        _say(line)
    typer.echo(out)
    if suite is not None:
        _score_beside(out, suite)


def push(
    source: Annotated[Path, typer.Argument(metavar="RUN|OUT_DIR", help="A run, or an export.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="On the hub.")],
    private: Annotated[bool, typer.Option("--private", help="Where it is made.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be uploaded, and upload nothing.")
    ] = False,
    base_model: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A parent's hub id, for the card, of a local folder."),
    ] = None,
) -> None:
    """Upload a run's winner, or an exported folder, with its card to the hub."""
    from mergesearch.exporting import push as upload

    done = upload(
        source,
        repository,
        private=private,
        dry_run=dry_run,
        base_models=base_model or (),
        say=_say,
    )
    if done.url is not None:
        typer.echo(done.url)
        return
    for name, size in done.files.items():
        typer.echo(f"{size:>15,}  {name}")
    typer.echo(done.card.partition("\n# ")[0].rstrip())


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _reference(model: str) -> "ModelRef":
    from mergesearch.api import recipe_of

    return recipe_of(model).models[0]


def _score_beside(adapter: Path, suite: Path) -> None:
    """Score an adapter beside the model that it stands for; its card says it, too."""
    import json

    from mergesearch.api import evaluate
    from mergesearch.exporting import RECIPE_FILE
    from mergesearch.scores import paired_difference
    from mergesearch.tasks import load_suite

    loaded = load_suite(suite)
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    own = evaluate(f"{base}+{adapter.absolute()}", loaded).scores
    full = evaluate(adapter / RECIPE_FILE, loaded).scores
    lead = paired_difference(own, full)
    line = (
        f"score on the search split of {suite.name}: {own.total:.4f}, the full merge's "
        f"{full.total:.4f}: {lead.value:+.4f} [{lead.low:+.4f}, {lead.high:+.4f}]"
    )
    typer.echo(line)
    with (adapter / "README.md").open("a") as card:
        card.write(f"\n{line[0].upper()}{line[1:]}.\n")
