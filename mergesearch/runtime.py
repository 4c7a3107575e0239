"""The runtime: device, dtype, batch size, memory budget, engine, allowances."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict

from pydantic import BeforeValidator, ByteSize, Field, TypeAdapter, ValidationError

from mergesearch.config import Config, parse
from mergesearch.errors import InputError

if TYPE_CHECKING:
    import torch


def n_bytes(size: Any) -> int:
    """Read a size such as 5GB, 500MiB or 1000000, in bytes.

    Raises:
        ValueError: it is none, or is not above zero.
    """
    try:
        read = int(TypeAdapter(ByteSize).validate_python(size))
    except (ValidationError, OverflowError):
        read = 0
    if read < 1:
        raise ValueError(f"a size is a number with KB, MB, GB or TB, e.g. 5GB, got {size!r}")
    return read


Size = Annotated[int, BeforeValidator(n_bytes)]


class RuntimeOptions(TypedDict, total=False):
    """The fields of a `Runtime`, each of which may be left out."""

    device: str
    dtype: str
    batch_size: int | None
    devices_per_worker: int
    memory_budget: int | str | None
    device_memory: int | str | None
    engine: str
    allow_mismatch: bool
    workers: int | None
    ray: str | None


class Runtime(Config):
    """Device, dtype, batch size, memory budget and engine of merges and scoring.

    >>> from mergesearch import Runtime
    >>> runtime = Runtime(device="cpu", memory_budget="48GB")
    >>> runtime.memory_budget
    48000000000
    >>> runtime.torch_device
    device(type='cpu')
    """

    #: "auto" (an accelerator where there is one), "cpu", "cuda", "mps".
    device: str = "auto"
    #: That models compute in; "auto" is float32 on the CPU, and elsewhere what they are stored in.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    #: Rows of a forward pass; None lets their tokens decide.
    batch_size: int | None = Field(default=None, ge=1)
    #: Bytes that merging may bring the process to; None is 80 % of what there is. What scoring a
    #: batch takes comes on top.
    memory_budget: Size | None = None
    #: Devices that one model is spread over: the device, and those behind it.
    devices_per_worker: int = Field(default=1, ge=1)
    #: Bytes of each device with memory of its own that may be taken; None is 80 % of what is free.
    device_memory: Size | None = None
    #: What answers the requests of tasks.
    engine: str = "torch"
    #: Merge models whose weights are of different functions, as with another number of heads.
    allow_mismatch: bool = False
    #: Processes that score candidates beside each other; None is this process alone, or with `ray`
    #: one for each device of the cluster.
    workers: int | None = Field(default=None, ge=1)
    #: The address of a Ray cluster that is up, or "auto"; None starts the workers on this host.
    ray: str | None = None

    @property
    def has_workers(self) -> bool:
        """Say if candidates are scored by other processes."""
        return self.workers is not None or self.ray is not None

    @classmethod
    def of(cls, options: RuntimeOptions) -> Self:
        """Check options that a user gave.

        Raises:
            InputError: naming the first that is wrong.
        """
        return parse(cls, dict(options), "runtime")

    @property
    def torch_device(self) -> "torch.device":
        """The device where models are asked.

        Raises:
            InputError: torch knows no such device, or it is not there.
        """
        return choose_device(self.device)

    def devices(self, *, present: bool = True) -> "tuple[torch.device, ...]":
        """List the devices that a model is spread over; the first is `torch_device`.

        Args:
            present: they must be there; a plan alone needs none.

        Raises:
            InputError: torch knows no such device, one is not there, or a model cannot be spread
                over such.
        """
        import torch

        if not present and self.device.startswith("cuda"):
            first = parse_device(self.device)
        else:
            first = self.torch_device
        n, start = self.devices_per_worker, first.index or 0
        if n == 1:
            return (first,)
        if first.type == "cpu" or merges_on(first) != first:
            raise InputError(
                "devices_per_worker spreads a model over devices that have memory of their own, "
                f"got {n} of {first.type}; take device: cuda, or one device"
            )
        there = torch.get_device_module(first).device_count() if present else start + n
        if start + n > there:
            raise InputError(
                f"devices_per_worker must be at most the devices that are there, got {n} from "
                f"{first.type}:{start} on, of {there}; take fewer, or see CUDA_VISIBLE_DEVICES"
            )
        return tuple(torch.device(first.type, start + i) for i in range(n))

    @property
    def torch_dtype(self) -> "torch.dtype | None":
        """The dtype that models compute in; None leaves it to the device and the recipe."""
        import torch

        return None if self.dtype == "auto" else getattr(torch, self.dtype)

    @property
    def merge_device(self) -> "torch.device":
        """The device where they are merged."""
        return merges_on(self.torch_device)


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let torch compute on so many threads until the block ends.

    >>> import torch
    >>> from mergesearch.runtime import torch_threads
    >>> with torch_threads(1):
    ...     torch.get_num_threads()
    1
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str = "auto") -> "torch.device":
    """Find the device of a name; "auto" takes an accelerator where there is one.

    Raises:
        InputError: torch knows no such device, or it is not there.
    """
    import torch

    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    device = parse_device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise _no_device(name, error) from None
    return device


def parse_device(name: str) -> "torch.device":
    """Read the name of a device, which need not be there.

    Raises:
        InputError: torch knows no such device.
    """
    import torch

    try:
        return torch.device(name)
    except RuntimeError as error:
        raise _no_device(name, error) from None


def _no_device(name: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0]
    return InputError(f"device must be auto, cpu, cuda or mps, got {name!r}: {reason}")


def merges_on(device: "torch.device") -> "torch.device":
    """Choose where to merge for a model on a device: on CUDA there, else on the CPU.

    Sums and angles are in float64, which Apple's devices do not have.
    """
    import torch

    return device if device.type == "cuda" else torch.device("cpu")
