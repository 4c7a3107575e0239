"""The protocol of workers, who merge, score and learn for the one driver of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mergesearch.calibration import Computed
from mergesearch.errors import InputError
from mergesearch.learning import Course
from mergesearch.recipe import Recipe
from mergesearch.runs import Pass
from mergesearch.scores import DocumentScore


class OtherTensorsError(InputError):
    """A recipe's tensors are not those that they were."""


@dataclass(frozen=True)
class Merged:
    """A recipe that a worker has merged.

    >>> from mergesearch.workers import Merged
    >>> Merged(digest="5f0c", n_parameters=135_000_000).n_parameters
    135000000
    """

    #: The hash of its tensors.
    digest: str
    #: Entries of its tensors, repeated layers each time.
    n_parameters: int
    #: Statistics that its merge looks at, computed now or before.
    statistics: tuple[Computed, ...] = ()


class Worker(Protocol):
    """Holds the parents, the tasks and one live model, and says what it finds.

    What it is asked and what it says is data, so it may be in another process or on another host.
    It keeps nothing that must not be lost: any worker can be asked anything.
    """

    @property
    def name(self) -> str:
        """The worker, for people."""

    def digest(self, recipe: Recipe) -> str:
        """Return the hash of a recipe's tensors, which are not kept.

        Raises:
            CandidateError: a merged value is NaN or infinite.
            RecipeError: the recipe cannot be built from the parents.
        """

    def merge(self, recipe: Recipe) -> Merged:
        """Make the live model the recipe's.

        Raises:
            CandidateError: a merged value is NaN or infinite.
            RecipeError: the recipe cannot be built from the parents.
        """

    def score(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, DocumentScore]:
        """Score documents of a task, by id; the recipe is merged first if need be.

        Args:
            recipe: the candidate.
            digest: the hash that its tensors must have.
            fingerprint: of the task.
            doc_ids: of its documents.

        Raises:
            CandidateError: weights, logits or a value of a metric are not finite.
            OtherTensorsError: the tensors have another hash.
            InputError: the task does not fit the model's context.
        """

    def in_words(
        self, recipe: Recipe, digest: str, fingerprint: str, doc_ids: Sequence[int]
    ) -> dict[int, str]:
        """Ask about documents of a task for the answers themselves, by id.

        The arguments and errors are those of `score`.
        """

    def learn(
        self,
        course: Course,
        known: Sequence[Pass],
        experts: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> Pass:
        """Go on with a trajectory of learned coefficients by one pass.

        Args:
            course: its settings.
            known: its passes so far.
            experts: the parent that is imitated on each task, by the task's name.
            progress: is told how many documents were learned from, of how many in all passes.

        Raises:
            Diverged: a loss, a gradient or a merged value is NaN or infinite.
            CandidateError: a parent that is to be imitated gives nothing that can be.
            InputError: memory does not hold a lesson, or the model's class does not go backward.
        """
