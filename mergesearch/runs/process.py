"""A process that works on a run: its command, versions and hardware."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch

#: The packages whose versions decide what a run comes to.
_PACKAGES = ("mergesearch", "torch", "transformers", "lm-eval", "optuna", "peft", "numpy")
#: The password in the URL of a database.
_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]*@")


@dataclass(frozen=True)
class Process:
    """A process as far as it matters to whoever repeats a run."""

    #: As a shell takes it, without passwords.
    command: str
    #: Of Python and the packages that matter, by name.
    versions: Mapping[str, str]
    #: Device, processor, its cores, the memory and the system, by name.
    hardware: Mapping[str, str]

    @classmethod
    def of(cls, device: "torch.device") -> Self:
        """Describe this process, whose models run on a device."""
        return cls(_command(), _versions(), _hardware(device))


def _command() -> str:
    program, *arguments = sys.argv or [""]
    name = os.path.basename(program)
    name = "mergesearch" if name == "__main__.py" else name
    return _PASSWORD.sub(r"\1:***@", shlex.join([name, *arguments]))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # run from its sources
    return found


def _hardware(device: "torch.device") -> dict[str, str]:
    import psutil
    import torch

    processor = platform.processor() or platform.machine()
    memory = psutil.virtual_memory().total / 2**30
    found = {"processor": f"{processor}, {os.cpu_count()} cores", "memory": f"{memory:.0f} GiB"}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "device": f"{device} {name}".strip(),
        **found,
        "system": f"{platform.system()} {platform.release()}",
    }
