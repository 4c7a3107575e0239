"""Advice."""
from mergesearch.diagnosis.model import Advice, Diagnosis


def advise(diagnosis: Diagnosis) -> tuple[Advice, ...]:
    return ()
