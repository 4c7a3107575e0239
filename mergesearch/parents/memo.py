"""Values remembered by key within a limit of bytes, each computed once."""

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from threading import Lock
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class Memo:
    """Values that hold for all candidates, e.g. order statistics of tensors.

    Any number of threads may ask at once. Whoever asks for a value while another thread computes
    it waits for that thread.

    Args:
        limit_bytes: how much all remembered values may take; None means no limit.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit = limit_bytes
        self._values: dict[Hashable, Any] = {}
        self._n_bytes = 0
        self._lock = Lock()  # held for look-ups only, never while a value is computed
        self._computing: dict[Hashable, Lock] = {}

    @property
    def n_bytes(self) -> int:
        """The bytes that the remembered tensors take."""
        return self._n_bytes

    @property
    def limit_bytes(self) -> int | None:
        """The bytes that all remembered values may take; None means no limit."""
        return self._limit

    def recall(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Give the value of a key, computed once and remembered if there is room.

        A value that would go beyond the limit is computed at each call.

        Args:
            key: names the value, and everything that it depends on.
            compute: makes the value: tensors, numbers, or tuples, lists or dataclasses of these.
                It may recall other keys, but not its own. The value must not be written to.

        Raises:
            Exception: whatever `compute` raises; nothing is remembered then.
        """
        with self._lock:
            if key in self._values:
                return self._values[key]
            computing = self._computing.setdefault(key, Lock())
        with computing:
            with self._lock:
                if key in self._values:  # another thread was first
                    return self._values[key]
            value = compute()
            n_bytes = tensor_bytes(value)
            with self._lock:
                if self._limit is None or self._n_bytes + n_bytes <= self._limit:
                    self._values[key] = value
                    self._n_bytes += n_bytes
                    self._computing.pop(key, None)
            return value

    def forget(self, limit_bytes: int | None) -> None:
        """Forget everything, and remember within another limit from now on."""
        with self._lock:
            self._values.clear()
            self._n_bytes, self._limit = 0, limit_bytes


def tensor_bytes(value: object) -> int:
    """Measure the memory that a value's tensors keep alive; shared memory counts once."""
    storages = (tensor.untyped_storage() for tensor in _tensors(value))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
