import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergesearch.errors import InputError
from mergesearch.runs.frames import Frames

PAYLOADS = [b"first", b"", b"\0" * 20, b"the last but one", bytes(range(256))]


def read(path: Path) -> list[bytes]:
    return Frames(path, writable=False).read()


def opened(path: Path) -> Frames:
    frames = Frames(path)
    frames.read()
    return frames


def written(path: Path, payloads: list[bytes]) -> list[int]:
    """Write payloads, and return where the file ended after each."""
    frames, ends = opened(path), []
    for payload in payloads:
        frames.append(payload)
        ends.append(path.stat().st_size)
    return ends


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


@given(payloads=st.lists(st.binary(max_size=300), max_size=8), n_sessions=st.integers(1, 3))
def test_what_is_appended_is_read_whatever_it_is(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], n_sessions: int
) -> None:
    path = tmp_path_factory.mktemp("frames") / "file.bin"
    for session in range(n_sessions):
        assert opened(path).read() == payloads * session
        written(path, payloads)
    assert read(path) == payloads * n_sessions


def test_a_file_cut_at_any_byte_keeps_the_frames_before_and_goes_on(path: Path) -> None:
    ends = written(path, PAYLOADS)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = PAYLOADS[: sum(end <= size for end in ends)]
        assert read(path) == kept
        assert path.read_bytes() == whole[:size]  # a reader changes nothing
        frames = Frames(path)
        assert frames.read() == kept
        frames.append(b"after the kill")
        frames.append(b"and on")
        assert read(path) == [*kept, b"after the kill", b"and on"]


def test_a_file_that_a_power_cut_filled_with_zeros_keeps_the_frames_before(path: Path) -> None:
    ends = written(path, PAYLOADS)
    whole = path.read_bytes()
    for size in range(ends[-2], len(whole)):
        for length in {len(whole), len(whole) + 4096}:
            path.write_bytes(whole[:size].ljust(length, b"\0"))
            assert opened(path).read() == PAYLOADS[:-1]
            assert path.stat().st_size == ends[-2]


def test_a_bit_that_flips_before_the_last_frame_is_refused(path: Path) -> None:
    *_, start, _ = written(path, PAYLOADS)
    whole = path.read_bytes()
    for bit in range(8 * start):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        for writable in (False, True):
            with pytest.raises(
                InputError, match=r"file\.bin .*from a copy, or give --out"
            ) as caught:
                Frames(path, writable=writable).read()
            assert "\n" not in str(caught.value)
        assert path.read_bytes() == flipped


def test_a_bit_that_flips_in_the_last_frame_costs_no_other(path: Path) -> None:
    *_, start, end = written(path, PAYLOADS)
    whole = path.read_bytes()
    for place in range(start + 12, end):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        assert opened(path).read() == PAYLOADS[:-1]


def test_another_files_mark_is_refused(path: Path) -> None:
    path.write_bytes(b"PK\3\4 a zip")
    with pytest.raises(InputError, match=r"file\.bin begins with no mark of frames"):
        Frames(path).read()
    assert path.read_bytes() == b"PK\3\4 a zip"


def test_nothing_is_appended_behind_what_was_not_read(path: Path) -> None:
    written(path, PAYLOADS)
    torn = path.read_bytes()[:-1]
    path.write_bytes(torn)
    unread, reader = Frames(path), Frames(path, writable=False)
    assert reader.read() == PAYLOADS[:-1]
    for frames in (unread, reader):
        with pytest.raises(RuntimeError, match="to a writable file that was read before"):
            frames.append(b"lost")
    assert path.read_bytes() == torn


def test_nothing_is_appended_to_a_file_that_was_refused(path: Path) -> None:
    written(path, PAYLOADS)
    damaged = path.read_bytes().replace(PAYLOADS[0], b"FIRST")
    path.write_bytes(damaged)
    frames = Frames(path)
    with pytest.raises(InputError, match="is damaged at byte 8"):
        frames.read()
    with pytest.raises(RuntimeError):
        frames.append(b"more")
    assert path.read_bytes() == damaged


def test_two_who_append_to_one_file_lose_nothing(path: Path) -> None:
    one, two = opened(path), opened(path)
    for frames, payload in [(one, b"1"), (two, b"2"), (one, b"3"), (one, b"4"), (two, b"5")]:
        frames.append(payload)
    assert read(path) == [b"1", b"2", b"3", b"4", b"5"]


@pytest.fixture
def size_limit() -> Iterator[None]:
    """Puts back what a test does to the largest size of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("size_limit")
@pytest.mark.parametrize("room", [0, 1, 7, 8, 9, 20, 100])
@pytest.mark.parametrize("n_before", [0, 1])
def test_a_device_that_is_full_is_said_and_what_it_took_is_cut(
    path: Path, room: int, n_before: int
) -> None:
    frames = opened(path)
    for _ in range(n_before):
        frames.append(b"before")
    n_bytes = path.stat().st_size if n_before else 0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes + room, hard))
    with pytest.raises(InputError, match=r"cannot write .*file\.bin: .*; make room") as caught:
        frames.append(bytes(1000))
    assert "\n" not in str(caught.value)
    assert path.stat().st_size == n_bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    frames.append(b"after")
    assert read(path) == [b"before"] * n_before + [b"after"]
