"""Scorers: who scores documents of tasks, and the turn of a model in memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mergesearch.engines import Engine, UnfitRequestError
from mergesearch.errors import CandidateError, InputError
from mergesearch.logs import quiet
from mergesearch.scores import DocumentScore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mergesearch.tasks import BuiltTask


@runtime_checkable
class Scorer(Protocol):
    """Scores one candidate on any documents, wherever its model is."""

    def score_documents(
        self, task: "BuiltTask", doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        """Score documents of a task, by id.

        Raises:
            CandidateError: logits or a value of a metric are not finite.
            InputError: the task does not fit the model's context.
        """


class Turns:
    """An engine, and the models that it holds in turns: any of them, block by block.

    Args:
        engine: answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: Whose model the engine holds.
        self._turn: Turn | None = None

    @property
    def engine(self) -> Engine:
        """The engine, for a caller who loads a model; whoever's turn it was loads anew."""
        self._turn = None
        return self._engine

    def begin(self, model: "PreTrainedModel") -> "Turn":
        """Begin a turn of a model, whose weights must stay as they are until it ends."""
        return Turn(self, model)

    def load(self, turn: "Turn") -> Engine:
        """Give the engine with a turn's model, which is loaded unless it is already."""
        if turn is not self._turn:
            self._turn = None  # should loading fail
            with quiet():
                self._engine.load(turn.model)
            self._turn = turn
        return self._engine

    def end(self, turn: "Turn") -> None:
        """Let go of a turn's model, if the engine holds it."""
        if turn is self._turn:
            self._turn = None
            self._engine.unload()


class Turn:
    """A model's turn with an engine: a `Scorer`.

    Args:
        turns: of the engine.
        model: with the weights that it keeps until the end.
    """

    def __init__(self, turns: Turns, model: "PreTrainedModel") -> None:
        self._turns = turns
        self.model = model

    def score_documents(
        self, task: "BuiltTask", doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        """Ask the model, and have the task grade what it says."""
        with quiet():
            requests = task.requests(doc_ids)
        engine = self._turns.load(self)
        try:
            with quiet():
                responses = engine.answer(requests)
            return task.grade(doc_ids, responses)
        except UnfitRequestError as error:
            raise InputError(f"task {task.id.task!r} does not fit the model: {error}") from error
        except CandidateError as error:
            raise CandidateError(f"task {task.id.task!r}: {error}") from error

    def end(self) -> None:
        """Let go of the model."""
        self._turns.end(self)
