"""The arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

SpaceFile = Annotated[Path, typer.Argument(metavar="SPACE.yaml", help="The search space.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
DevicesPerWorker = Annotated[
    int, typer.Option(min=1, metavar="K", help="Devices that one model is spread over.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Rows a forward pass.", show_default="as their tokens allow"),
]
Engine = Annotated[str, typer.Option(metavar="NAME", help="torch, vllm or a plugin's.")]
ShardSize = Annotated[str, typer.Option(metavar="SIZE", help="Largest weight file, e.g. 5GB.")]
MemoryBudget = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory of the process at its peak, e.g. 8GB.",
        show_default="80 % of what is available",
    ),
]
DeviceMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory of each device, e.g. 80GB.",
        show_default="80 % of what is free",
    ),
]
AllowMismatch = Annotated[
    bool,
    typer.Option("--allow-mismatch", help="Merge models of different functions all the same."),
]
Track = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Tell wandb, trackio, mlflow or a plugin's of trials."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="RUN", help="Run folder.", show_default="results/SPACE"),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes side by side.", show_default="this one alone"),
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="A Ray cluster for the workers, or auto."),
]
Live = Annotated[
    bool, typer.Option("--live", help="Write the run's page while it is searched, as well.")
]
