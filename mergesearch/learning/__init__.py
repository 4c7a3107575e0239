"""Coefficients learned by gradient: what is learned, from what, and how it goes."""

from mergesearch.learning.coefficients import Coefficients
from mergesearch.learning.curriculum import ANSWERS, N_WRITTEN, Curriculum
from mergesearch.learning.lessons import Lesson, imitated, labelled, losses, prompted
from mergesearch.learning.portion import Portion, largest_portion
from mergesearch.learning.slope import ModelSlope
from mergesearch.learning.subject import Subject
from mergesearch.learning.trajectory import Course, Diverged, Passes, go_to, next_pass

__all__ = [
    "ANSWERS",
    "N_WRITTEN",
    "Coefficients",
    "Course",
    "Curriculum",
    "Diverged",
    "Lesson",
    "ModelSlope",
    "Passes",
    "Portion",
    "Subject",
    "go_to",
    "imitated",
    "labelled",
    "largest_portion",
    "losses",
    "next_pass",
    "prompted",
]
