"""What models compute from prompts, for the methods that look at it: computed once, and kept."""

from mergesearch.calibration.calibrated import calibrated
from mergesearch.calibration.calibrator import Calibrator, Computed
from mergesearch.calibration.texts import Texts, hash_of, write_texts

__all__ = ["Calibrator", "Computed", "Texts", "calibrated", "hash_of", "write_texts"]
