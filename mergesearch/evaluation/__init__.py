"""Tasks and an engine to scores, block by block."""

from mergesearch.evaluation.evaluator import Evaluator
from mergesearch.evaluation.learnable import LearnableTask, Lessons, lessons
from mergesearch.evaluation.stores import DocumentStore
from mergesearch.evaluation.turn import Scorer, Turn

__all__ = ["DocumentStore", "Evaluator", "LearnableTask", "Lessons", "Scorer", "Turn", "lessons"]
