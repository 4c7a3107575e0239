"""Statistics of what models compute from prompts: computed once, and kept."""

from mergesearch.calibration.calibrated import PROMPTS_FOLDER, calibrated, with_prompts
from mergesearch.calibration.calibrator import Calibrator, Computed
from mergesearch.calibration.kinds import KINDS
from mergesearch.calibration.sizes import disk_bytes, n_tokens, peak_bytes, statistics_bytes
from mergesearch.calibration.texts import Texts, file_name, hash_of, write_texts

__all__ = [
    "KINDS",
    "PROMPTS_FOLDER",
    "Calibrator",
    "Computed",
    "Texts",
    "calibrated",
    "disk_bytes",
    "file_name",
    "hash_of",
    "n_tokens",
    "peak_bytes",
    "statistics_bytes",
    "with_prompts",
    "write_texts",
]
