"""The sampler of a search, and how soon it learns."""

from mergesearch.samplers import SAMPLERS, Sampler
from mergesearch.searching.history import History
from mergesearch.searching.policies.stopping import nearest_limit
from mergesearch.space import AUTO, SearchSpace

#: Trials up to which `auto` takes a Gaussian process, whose cost grows fast with them.
_GP_TRIALS = 250
#: Trials of each method before a sampler learns; and the share of the budget after which it does.
_STARTUP, _STARTUP_SHARE = 10, 0.25


def sampler_of(space: SearchSpace) -> Sampler:
    """Return the sampler of a space, `auto` resolved."""
    return SAMPLERS[sampler_name(space)]


def sampler_name(space: SearchSpace) -> str:
    """Return the name of the sampler of a space, `auto` resolved.

    One method has the same parameters in every trial, which a Gaussian process learns from the
    fewest trials; where methods are a choice, or trials are many, it is TPE. Several objectives
    make no difference: both handle them.
    """
    if space.search.sampler != AUTO:
        return space.search.sampler
    one = len(space.methods) == 1
    return "gp" if one and space.search.trials <= _GP_TRIALS else "tpe"


def n_startup(space: SearchSpace, history: History) -> int:
    """Count the trials that are drawn at random before `tpe` and `gp` learn from them.

    Ten for each method of the space: a sampler that learns sooner settles on the method that was
    lucky first. No more than a quarter of the budget goes into it, by its nearest limit, but for
    the first ten trials.

    Args:
        space: with the methods and the budget.
        history: the trials so far, which tell how much of the budget is spent.
    """
    if space.search.startup is not None:
        return space.search.startup
    spent = nearest_limit(space.search, history).share
    return _STARTUP if spent >= _STARTUP_SHARE else _STARTUP * len(space.methods)
