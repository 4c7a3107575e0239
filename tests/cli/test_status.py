"""`status`: what a run's process does, read beside it."""

import time
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

from mergesearch.cli.status import lines
from mergesearch.runs import Record, Status, read_status, write_status

EMPTY = cast(Record, SimpleNamespace(trials=()))


def status(**changes: Any) -> Status:
    now = time.time()
    told = {"process": 7, "host": "here", "began": now - 60, "written": now, **changes}
    return Status(**told)


def test_workers_are_in_the_order_of_their_numbers() -> None:
    names = [f"worker {i} (10.0.0.{i}, process {100 + i})" for i in (10, 9, 2, 1)]
    told = lines(EMPTY, status(workers=dict.fromkeys(names, "trial 3 ties"), spent="1 of 8 trials"))
    assert told[1] == "process 7 on here searches, for 60 s"
    assert [line.split()[1] for line in told[-4:]] == ["1", "2", "9", "10"]


def test_a_process_that_was_killed_searches_no_more() -> None:
    told = lines(EMPTY, status(written=time.time() - 30))
    assert told[-1] == "process 7 on here stopped without a word, 30 s ago; it is run by nobody"
    assert lines(EMPTY, status(ended=True))[-1].startswith("process 7 on here has ended, 0 s ago")
    assert lines(EMPTY, None)[-1] == "no search has run in it with this version"


def test_it_is_never_torn_and_a_broken_file_is_none(tmp_path: Path) -> None:
    write_status(tmp_path, status())
    ended = Event()

    def write() -> None:
        n = 0
        while not ended.is_set():
            n += 1
            write_status(tmp_path, status(stage="x" * (n % 5000)))

    writer = Thread(target=write)
    writer.start()
    try:
        assert all(read_status(tmp_path) is not None for _ in range(300))
    finally:
        ended.set()
        writer.join()
    for broken in ("", '{"process": 7', "[]", '{"process": 7}'):
        (tmp_path / "status.json").write_text(broken)
        assert read_status(tmp_path) is None
