"""The diagnosis of parents before a search: weights, settings, answers, advice."""

from mergesearch.diagnosis.diagnose import check_comparable, diagnose, with_answers
from mergesearch.diagnosis.model import FILE, Advice, Answers, Diagnosis, Pair, Part, together
from mergesearch.diagnosis.tables import NO_ADVICE, Cell, Table, markdown, tables_of

__all__ = [
    "FILE",
    "NO_ADVICE",
    "Advice",
    "Answers",
    "Cell",
    "Diagnosis",
    "Pair",
    "Part",
    "Table",
    "check_comparable",
    "diagnose",
    "markdown",
    "tables_of",
    "together",
    "with_answers",
]
