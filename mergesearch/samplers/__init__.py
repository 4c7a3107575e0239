"""The samplers that draw a search's trials: each a file, and a row of the table.

A package adds one by an entry point of the group `mergesearch.samplers`, whose object is a
`Sampler`; a space then takes it by the entry point's name.
"""

from mergesearch.samplers.base import Sampler
from mergesearch.samplers.seeds import seed_of_trial
from mergesearch.samplers.table import SAMPLERS

__all__ = ["SAMPLERS", "Sampler", "seed_of_trial"]
