"""Stores, in which an evaluator keeps and looks up what one candidate scored."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from mergesearch.scores import DocumentScore

if TYPE_CHECKING:
    from mergesearch.tasks import BuiltTask


class DocumentStore(Protocol):
    """A memory of one candidate's scores, document by document."""

    def known(self, task: "BuiltTask") -> Mapping[int, DocumentScore]:
        """Look up the documents of a task that were scored before, by id."""

    def add(self, task: "BuiltTask", documents: Mapping[int, DocumentScore]) -> None:
        """Keep newly scored documents; they are safe when this returns."""


class NoStore:
    """A store that keeps nothing."""

    def known(self, task: "BuiltTask") -> Mapping[int, DocumentScore]:
        """Know nothing."""
        return {}

    def add(self, task: "BuiltTask", documents: Mapping[int, DocumentScore]) -> None:
        """Forget."""
