"""The memory that this process holds, and what is available to it."""

import ctypes
from functools import cache
from pathlib import Path

import psutil
import torch

#: Where a container's limit stands, in the two versions of control groups.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


#: glibc's name for the size from which a block is mapped by itself (malloc.h), and the size: blocks
#: of a merge are smaller, which else were paged in anew each time.
_M_MMAP_THRESHOLD, _MAPPED = -3, 8 << 20
#: Its name for what may stay unused at the end of a heap, and the size: one merge's blocks.
_M_TRIM_THRESHOLD, _UNUSED = -1, 32 << 20


@cache
def return_freed_blocks() -> bool:
    """Have large blocks go back to the system as soon as they are freed.

    glibc raises its limit up to 32 MB with every such block that is freed, and keeps smaller ones:
    activations of many sizes leave holes that are resident and used by nobody.

    Returns:
        True where the C library is glibc and does so from now on, for the whole process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED) and mallopt(_M_TRIM_THRESHOLD, _UNUSED))


def process_bytes() -> int:
    """Measure the resident memory of this process, pages of mapped files included."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """Measure what this process may take without swapping or leaving its container."""
    available = int(psutil.virtual_memory().available)
    limits = [path.read_text().strip() for path in _LIMITS if path.exists()]
    rooms = [int(limit) - process_bytes() for limit in limits if limit.isdigit()]  # or "max"
    return max(0, min([available, *rooms]))


def device_bytes(device: torch.device) -> int | None:
    """Measure what a device has left of its own memory; None where it has none."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # torch keeps what was freed for itself, and takes that first
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
