import subprocess
import sys
from pathlib import Path
from threading import Event, Thread

import pytest

from mergesearch.errors import InputError
from mergesearch.files import (
    drop_torn_line,
    held,
    in_turn,
    whole_file,
    whole_folder,
    write_whole,
)


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.json"
    write_whole(path, "first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mergesearch.files.os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*table\.json: No space left on device"):
        write_whole(path, "second")
    assert listing(tmp_path) == {"table.json": b"first"}


def test_a_file_has_its_name_at_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with whole_file(path) as file:
        file.write(b"some")
        assert not path.exists()
    assert listing(tmp_path) == {"weights": b"some"}


def test_nothing_stays_of_a_file_that_an_error_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half way"), whole_file(tmp_path / "weights") as file:
        file.write(b"some")
        raise ValueError("half way")
    assert listing(tmp_path) == {}


def test_a_folder_has_its_name_at_the_end_only(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as folder:
        (folder / "a").write_bytes(b"a")
        assert not out.exists()
    assert listing(out) == {"a": b"a"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_taken_and_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "old").write_bytes(b"half")
    with whole_folder(out) as folder:
        (folder / "new").write_bytes(b"new")
    assert listing(out) == {"new": b"new"}


def test_nothing_stays_of_a_folder_that_an_error_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half way"), whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_bytes(b"a")
        raise ValueError("half way")
    assert list(tmp_path.iterdir()) == []


def test_one_process_holds_a_lock_and_its_end_frees_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from mergesearch.files import held\n"
        "with held(Path(sys.argv[1]), Path('run')):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with (
            pytest.raises(InputError, match="run is in use by another process; wait"),
            held(lock, Path("run")),
        ):
            pass
        process.kill()
    with held(lock, Path("run")):
        pass


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"one\ntw", b"one\n"),
        (b"on", b""),
        (b"", b""),
    ],
)
def test_a_torn_line_is_dropped(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(before)
    drop_torn_line(path)
    assert path.read_bytes() == after


def test_a_file_that_is_not_there_has_no_torn_line(tmp_path: Path) -> None:
    drop_torn_line(tmp_path / "lines")
    assert not (tmp_path / "lines").exists()


def test_who_waits_in_turn_is_let_in_when_the_other_has_left(tmp_path: Path) -> None:
    entered, order = Event(), []

    def other() -> None:
        entered.set()
        with in_turn(tmp_path / ".lock"):
            order.append("other")

    thread = Thread(target=other)
    with in_turn(tmp_path / ".lock"):
        thread.start()
        assert entered.wait(10)
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "other"]
