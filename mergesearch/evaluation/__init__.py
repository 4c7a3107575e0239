"""Tasks and an engine to scores, block by block."""

from mergesearch.evaluation.evaluator import Evaluator
from mergesearch.evaluation.learnable import Lesson, Lessons, lessons
from mergesearch.evaluation.stores import DocumentStore

__all__ = ["DocumentStore", "Evaluator", "Lesson", "Lessons", "lessons"]
