"""Run scripts with mergekit, each in a fork of one process that has imported it.

For the interpreter of mergekit's environment, where importing it takes ten seconds. Each line of
its input is a JSON list of a script, its arguments and the folder in which it runs; each is
answered by a line with its exit status and the texts that it wrote to its two outputs.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

IMPORTED = "run_yaml", "multimerge"
#: Seconds after which a script is ended.
PATIENCE = 300


def run(script: str, arguments: Sequence[str], folder: str) -> tuple[int, str, str]:
    """Run a script in a child, as `python -c` would."""
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch, name) for name in ("out", "err")]
        child = os.fork()
        if child == 0:
            signal.alarm(PATIENCE)
            for number, file in enumerate(files, start=1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
            os.chdir(folder)
            sys.argv = ["-c", *arguments]
            status = 1
            try:
                exec(script, {"__name__": "__main__"})
                status = 0
            except SystemExit as ended:
                status = int(ended.code or 0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)  # what the parent would do at its end is not the child's
        _, status = os.waitpid(child, 0)
        out, err = (file.read_text() for file in files)
        return os.waitstatus_to_exitcode(status), out, err


if __name__ == "__main__":
    for name in IMPORTED:
        import_module(f"mergekit.scripts.{name}")
    for line in sys.stdin:
        print(json.dumps(run(*json.loads(line))), flush=True)
