"""Files and folders that are there whole or not at all; locks between processes."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from mergesearch.errors import InputError


def partial_of(path: Path) -> Path:
    """Name a file or folder while it is not whole: beside its place, hidden."""
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that has its name when it is whole and on the disk, and not before.

    Left by an error, nothing of it stays.

    Raises:
        OSError: it cannot be written.
    """
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all, in UTF-8.

    Raises:
        InputError: the device is full, or the folder cannot be written.
    """
    try:
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Make a folder that has its name when it is whole, and not before.

    What an interrupted process left of it is removed first; left by an error, nothing stays.

    Args:
        path: the folder to make; where it exists, it must be empty.

    Yields:
        The folder to fill, which is beside it.

    Raises:
        OSError: it cannot be made.
    """
    partial = partial_of(path.absolute())
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            path.rmdir()
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Make a folder that is there until the block ends, on the device of a result.

    What an interrupted process left of it is removed first.

    Args:
        path: the result, beside whose place it is, hidden.

    Raises:
        OSError: it cannot be made.
    """
    path = path.absolute()
    folder = path.with_name(f".{path.name}.stages")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def held(file: Path, what: Path) -> Iterator[None]:
    """Keep other processes out until the block ends, or this process does.

    Args:
        file: of the lock; made where it is missing.
        what: what is held, for the error.

    Raises:
        InputError: another process holds it.
        OSError: the lock's file cannot be made.
    """
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"{what} is in use by another process; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """Wait until no other process is in a block by the same file, then be in one.

    Args:
        file: of the lock; made where it is missing.

    Raises:
        OSError: it cannot be made.
    """
    with FileLock(file):
        yield


def drop_torn_line(path: Path) -> None:
    """Cut a last line without a newline, which a kill left half written."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
