"""A seed for each trial of a study."""

import hashlib


def seed_of_trial(seed: int, n_before: int) -> int:
    """Derive the seed of one trial.

    Args:
        seed: the study's.
        n_before: trials that have ended.

    Returns:
        A whole number of 32 bits.
    """
    digest = hashlib.sha256(f"{seed}/{n_before}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
