"""The real family of models, where what lays it out lies beside the project."""

import subprocess
import sys
from pathlib import Path

PREPARE = Path(__file__).parents[3] / "shared" / "testbed" / "prepare.py"


def lay_out(folder: Path) -> Path:
    """Give the folder of the test bed, which is laid out where it is not there yet.

    Raises:
        RuntimeError: it cannot be, with what was said last.
    """
    if not folder.exists():
        command = [sys.executable, str(PREPARE), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{PREPARE}: {done.stderr.strip().splitlines()[-1]}")
    return folder.resolve()
