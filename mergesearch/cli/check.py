"""The command `check`: a space's errors, and what a search over it takes."""

from typing import Annotated

import typer

from mergesearch.cli.options import (
    AllowMismatch,
    Device,
    DeviceMemory,
    DevicesPerWorker,
    Engine,
    MemoryBudget,
    SpaceFile,
)


def check(
    space: SpaceFile,
    plan_only: Annotated[
        bool,
        typer.Option(
            "--plan-only",
            help="The memory plan alone, from configurations and indices: no weights, no device.",
        ),
    ] = False,
    device: Device = "auto",
    engine: Engine = "torch",
    devices_per_worker: DevicesPerWorker = 1,
    memory_budget: MemoryBudget = None,
    device_memory: DeviceMemory = None,
    allow_mismatch: AllowMismatch = False,
) -> None:
    """Say what is wrong with a space, and what a search takes in time and memory."""
    from mergesearch.logs import quiet_optuna
    from mergesearch.runtime import Runtime
    from mergesearch.space import SearchSpace

    runtime = Runtime.of(
        {
            "device": device,
            "engine": engine,
            "devices_per_worker": devices_per_worker,
            "memory_budget": memory_budget,
            "device_memory": device_memory,
            "allow_mismatch": allow_mismatch,
        }
    )
    loaded = SearchSpace.load(space)
    quiet_optuna()

    from mergesearch.cli.estimate import show_estimate, show_plan
    from mergesearch.searching import estimate, plan_only_of, prepare

    if plan_only:
        show_plan(plan_only_of(loaded, runtime))
    else:
        setup = prepare(loaded, runtime)
        show_estimate(setup, estimate(setup, runtime.torch_device))
