"""Losses of documents by their labels, from negative log-likelihoods in nats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.api.utils import maybe_delimit

from mergesearch.requests import Generation, LogLikelihood, Request, RollingLogLikelihood
from mergesearch.tasks.grading import MUTUAL_INFORMATION, choice_scores, right_choices

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ChoiceLabel:
    """The right ones among the choices of a document."""

    #: The log-likelihood of each choice, and behind them what else the metric looks at.
    requests: tuple[Request, ...]
    choices: tuple[str, ...]
    #: Indices of the right choices: some, but not all.
    right: tuple[int, ...]
    #: Compares the choices.
    metric: str

    def loss(self, nll: "Tensor") -> "Tensor":
        """Compute the cross-entropy of the right choices among all.

        Args:
            nll: negative log-likelihoods of the requests (requests,), in nats.

        Returns:
            -log of the right choices' share of the probability, (), in nats.
        """
        scores = _scores(self.metric, self.choices, nll)
        return scores.logsumexp(0) - scores[list(self.right)].logsumexp(0)


@dataclass(frozen=True)
class TextLabel:
    """A text that a model should find likely."""

    requests: tuple[Request, ...]
    #: Divisor of its negative log-likelihood.
    n_words: int = 1

    def loss(self, nll: "Tensor") -> "Tensor":
        """Compute the negative log-likelihood per word.

        Args:
            nll: that of the text (1,), in nats.

        Returns:
            Shape (), in nats.
        """
        return nll[0] / self.n_words


Label = ChoiceLabel | TextLabel


def label_of(
    source: Task, metric: str, doc: Any, requests: tuple[Request, ...], *, chat: bool
) -> Label | None:
    """Find the label of a document, or None.

    None where no choice or every choice is right, or where there is no reference.
    Texts are weighed by their words, since tasks know no tokens; the continuation of a
    log-likelihood task is taken as a whole, as its metrics take it.

    Args:
        source: the task.
        metric: compares choices, as in its grading.
        doc: the document.
        requests: all that its grading needs.
        chat: prompts are rendered with a chat template.
    """
    if source.OUTPUT_TYPE == "multiple_choice":
        return _choice_label(source, metric, doc, requests)
    match requests:
        case (Generation(prompt), *_):
            return _reference_label(source, doc, prompt, chat)
        case (LogLikelihood(),):
            return TextLabel(requests)
        case (RollingLogLikelihood(text),):
            return TextLabel(requests, _n_words(text))
    return None  # a class of its own compares texts, and does not say which is right


def imitated(
    source: Task, metric: str, doc: Any, requests: tuple[Request, ...]
) -> tuple[Request, ...]:
    """Pick the requests at which one model's predictions are compared with another's.

    Args:
        source: the task.
        metric: compares choices, as in its grading.
        doc: the document.
        requests: all that its grading needs.
    """
    match requests:
        case (Generation() as asked, *_):  # its repetitions behind it
            return (asked,)
    return _of_choices(source, metric, doc, requests)


def choice_divergence(
    source: Task, metric: str, doc: Any, nll: "Tensor", theirs: "Tensor"
) -> "Tensor":
    """Compute the divergence of one model's choices from another's.

    Args:
        source: a task of choices.
        metric: compares the choices, as in its grading.
        doc: the document.
        nll: negative log-likelihoods of the document's requests (requests,), in nats.
        theirs: those of the model that is imitated.

    Returns:
        KL(theirs || ours) over the choices, (), in nats.
    """
    choices = source.doc_to_choice(doc)
    ours = _scores(metric, choices, nll).log_softmax(0)
    wanted = _scores(metric, choices, theirs.to(nll)).log_softmax(0)
    return (wanted.exp() * (wanted - ours)).sum()


def _choice_label(
    source: Task, metric: str, doc: Any, requests: tuple[Request, ...]
) -> ChoiceLabel | None:
    if source.config.doc_to_choice is None:
        return None
    choices = source.doc_to_choice(doc)
    right = right_choices(source, doc, choices)
    if not right or len(right) == len(choices):
        return None
    return ChoiceLabel(
        requests=_of_choices(source, metric, doc, requests),
        choices=tuple(choices),
        right=tuple(sorted(right)),
        metric=metric,
    )


def _scores(metric: str, choices: Sequence[str], nll: "Tensor") -> "Tensor":
    """Compute what a metric compares choices by, (choices,)."""
    import torch

    return torch.stack(choice_scores(metric, choices, (-nll).unbind()))


def _of_choices(
    source: Task, metric: str, doc: Any, requests: tuple[Request, ...]
) -> tuple[Request, ...]:
    if source.OUTPUT_TYPE != "multiple_choice" or source.config.doc_to_choice is None:
        return requests
    if metric == MUTUAL_INFORMATION:
        return requests
    # another of the task's metrics may look at those beyond the choices
    return requests[: len(source.doc_to_choice(doc))]


def _reference_label(source: Task, doc: Any, prompt: str, chat: bool) -> TextLabel | None:
    reference = reference_of(source, doc)
    if reference is None:
        return None
    asked = LogLikelihood(prompt, _behind_prompt(source, doc, reference, chat))
    return TextLabel((asked,), _n_words(reference))


def reference_of(source: Task, doc: Any) -> str | None:
    """Find the text that a model should write: the task's, or its first."""
    target = source.doc_to_target(doc)
    if source.config.doc_to_choice is not None and isinstance(target, int):
        choices = source.doc_to_choice(doc)
        target = choices[target] if 0 <= target < len(choices) else None
    if isinstance(target, list | tuple):
        target = target[0] if target else None
    if isinstance(target, int | float) and not callable(source.config.process_results):
        target = str(target)  # as lm-eval's grading does; that of others may want no text
    return target if isinstance(target, str) and target.strip() else None


def _behind_prompt(source: Task, doc: Any, reference: str, chat: bool) -> str:
    """Join a reference to its prompt as lm-eval joins those of solved examples."""
    if not isinstance(source, ConfigurableTask):
        return reference
    if prefix := source.doc_to_prefix(doc):
        return maybe_delimit(prefix, reference)[len(prefix) :]
    return reference if chat else source.fewshot_cfg.target_delimiter + reference


def _n_words(text: str) -> int:
    return max(1, len(text.split()))
