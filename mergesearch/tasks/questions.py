"""The text of a document without solved examples, to find it again in other tasks."""

from typing import Any

from lm_eval.api.task import Task


def question_of(source: Task, doc: Any) -> str:
    """Write what a document asks, without the solved examples of its prompt.

    These differ from document to document, so that prompts of the same document are not alike.
    Choices and texts to score belong to the question; the answer to write does not.
    """
    parts = [source.doc_to_text(doc)]
    if source.config.doc_to_choice is not None:
        parts.append(source.doc_to_choice(doc))
    elif source.OUTPUT_TYPE != "generate_until":
        parts.append(source.doc_to_target(doc))
    return repr(parts)
