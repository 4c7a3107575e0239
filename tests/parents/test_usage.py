"""The memory that a process holds."""

import platform
import subprocess
import sys

import pytest

# Blocks of 16 MB, freed, and between them what stays: what activations do.
_CODE = """
import re, torch
from pathlib import Path
from mergesearch.parents.usage import return_freed_blocks
def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
return_freed_blocks() if {returned} else None
torch.ones(30 << 18)
before = held()
blocks = [(torch.ones(16 << 18), torch.ones(180_000)) for _ in range(8)]
kept = [small for _, small in blocks]
del blocks
print(held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_freed_blocks_are_given_back() -> None:
    held = {}
    for returned in (False, True):
        code = _CODE.format(returned=returned)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        held[returned] = int(done.stdout)
    assert held[True] < 10_000 < 100_000 < held[False]  # KB of 134
