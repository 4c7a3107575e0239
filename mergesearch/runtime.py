"""Where merges and models run."""

import torch

from mergesearch.errors import InputError


def choose_device(name: str = "auto") -> torch.device:
    """The device that `--device` names; "auto" takes an accelerator where there is one.

    Raises:
        InputError: torch knows no such device, or it is not there.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device must be auto, cpu, cuda or mps, got {name!r}: {reason}") from None
    return device


def merges_on(device: torch.device) -> torch.device:
    """Where merges for a model on a device run: on CUDA devices there, else on the CPU.

    Sums and angles are in float64, which Apple's devices do not have.
    """
    return device if device.type == "cuda" else torch.device("cpu")
