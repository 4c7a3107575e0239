import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mergesearch.runs import Record
from mergesearch.searching.runs import study_name
from mergesearch.searching.setup import prepare
from mergesearch.searching.study import finished, open_study
from mergesearch.space import SearchSpace
from tests.searching.watch import most_scored, running

N_TRIALS = 12


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mergesearch", "search", str(folder / "space.yaml")]
    command += ["--out", str(folder / "run"), "--trials", str(N_TRIALS), "--device", "cpu"]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def entries(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a record that may be being written."""
    try:
        text = (folder / "run" / "record.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def n_ended(folder: Path) -> int:
    return sum(entry["kind"] == "trial" for entry in entries(folder))


@pytest.mark.slow
def test_a_search_killed_three_times_ends_as_if_it_never_was(family: Path) -> None:
    moments = random.Random(2)
    for least in (2, 5, 8):
        process = start(family)
        assert process.stderr is not None
        wait = moments.uniform(0, 0.15)
        try:
            while n_ended(family) < least:
                assert process.poll() is None, process.stderr.read().decode()
                time.sleep(0.002)
            time.sleep(wait)
        finally:
            process.kill()
            process.stderr.close()
        assert process.wait() == -9
        assert least <= n_ended(family) < N_TRIALS
    process = start(family)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()

    run, space = family / "run", SearchSpace.load(family / "space.yaml")
    study = open_study(run, study_name(prepare(space), run))
    done = finished(study)
    assert running(study) == []
    assert len(done) == N_TRIALS
    assert len({json.dumps(trial.params, sort_keys=True) for trial in done}) == N_TRIALS
    record = Record(run)
    assert [trial.number for trial in record.trials] == sorted(trial.number for trial in done)
    assert {row.label for row in record.rows} >= {"winner", "base", "one", "two", "uniform soup"}
    assert most_scored(run) == 1
