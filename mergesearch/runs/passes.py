"""Passes of learned coefficients: numbers in files, losses in the record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mergesearch.errors import InputError
from mergesearch.files import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from mergesearch.runs.record import Record

#: The folder of a run that holds a folder for each trajectory.
_FOLDER = "learned"


@dataclass(frozen=True)
class Pass:
    """The end of one pass through documents."""

    #: From 1.
    number: int
    #: The coefficients after it, float64 (coefficients,).
    values: "Tensor"
    #: The mean loss of each task's documents during the pass, in nats.
    losses: Mapping[str, float]
    #: Answers that it took: three a document, and one for each that a parent was asked.
    n_answers: int
    #: Of the optimiser, those of earlier passes included.
    n_steps: int
    seconds: float
    #: The optimiser's two moments, (coefficients,) each.
    moments: "tuple[Tensor, Tensor]"


@dataclass(frozen=True)
class PassEntry:
    """A pass as the record has it: a point of a curve."""

    #: Of the trajectory.
    key: str
    #: Of the trajectory, for people: the method, and what tells it from the run's others.
    label: str
    number: int
    losses: Mapping[str, float]
    n_answers: int
    #: Of the optimiser, those of earlier passes included.
    n_steps: int
    seconds: float
    #: Tasks whose documents are those that candidates are scored on.
    searched: tuple[str, ...] = ()


class PassesOf:
    """One trajectory in a run's folder: a memory of its passes.

    Args:
        record: of the run.
        key: the hash of all that decides the trajectory.
        label: names it for people.
        searched: tasks whose documents are those that candidates are scored on.
    """

    def __init__(
        self, record: "Record", key: str, label: str, searched: Sequence[str] = ()
    ) -> None:
        self._record = record
        self._key = key
        self._label = label
        self._searched = tuple(searched)

    def known(self) -> Sequence[Pass]:
        """Read the passes so far, in order.

        Raises:
            InputError: a file that the record names is gone or damaged.
        """
        return [self._read(entry) for entry in self._record.passes if entry.key == self._key]

    def add(self, one: Pass) -> None:
        """Keep a pass; it is on disk when this returns.

        Raises:
            InputError: the device is full, or the file cannot be written.
        """
        from safetensors.torch import save

        first, second = one.moments
        path = self._path(one.number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                file.write(save({"values": one.values, "first": first, "second": second}))
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}; make room and run the same command again "
                "to go on"
            ) from None
        entry = PassEntry(
            key=self._key,
            label=self._label,
            number=one.number,
            losses=dict(one.losses),
            n_answers=one.n_answers,
            n_steps=one.n_steps,
            seconds=one.seconds,
            searched=self._searched,
        )
        self._record.add_pass(entry)

    @property
    def end(self) -> str | None:
        """The reason for which there are no more passes; None where there may be."""
        return self._record.ends.get(self._key)

    def set_end(self, reason: str, n_answers: int) -> None:
        """Keep the reason for which there will be no more, and what the last pass took."""
        self._record.set_end(self._key, reason, n_answers)

    def _path(self, number: int) -> "Path":
        return self._record.folder / _FOLDER / self._key / f"pass-{number}.safetensors"

    def _read(self, entry: PassEntry) -> Pass:
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._path(entry.number)
        try:
            tensors = load(path.read_bytes())
            moments = tensors["first"], tensors["second"]
            values = tensors["values"]
        except (OSError, SafetensorError, KeyError):
            raise InputError(
                f"{path} is gone or damaged; restore it, or give --out another name"
            ) from None
        return Pass(
            number=entry.number,
            values=values,
            losses=entry.losses,
            n_answers=entry.n_answers,
            n_steps=entry.n_steps,
            seconds=entry.seconds,
            moments=moments,
        )
