"""The table of samplers: the only owner of their names and limits."""

from mergesearch.plugins import Table
from mergesearch.samplers.base import Sampler

SAMPLERS = Table(
    "mergesearch.samplers",
    Sampler,
    {
        "tpe": Sampler("mergesearch.samplers.tpe:make"),
        "gp": Sampler("mergesearch.samplers.gp:make"),
        "cmaes": Sampler(
            "mergesearch.samplers.cmaes:make",
            several_objectives=False,
            conditional=False,
            generational=True,
        ),
        "nsga2": Sampler("mergesearch.samplers.nsga:make_nsga2", generational=True),
        "nsga3": Sampler("mergesearch.samplers.nsga:make_nsga3", generational=True),
        "qmc": Sampler("mergesearch.samplers.qmc:make"),
        "random": Sampler("mergesearch.samplers.random:make"),
    },
)
