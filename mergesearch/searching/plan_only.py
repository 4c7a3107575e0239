"""The memory plan of a search without its weights, its documents or its devices."""

from dataclasses import dataclass

from mergesearch.engines import Cost
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.merging import compute_dtype
from mergesearch.parents import MemoryPlan, tokenizer_of
from mergesearch.parents.footprint import short_name
from mergesearch.parents.planned import PlannedCheckpoint
from mergesearch.runtime import Runtime
from mergesearch.searching.calibrating import kinds_of
from mergesearch.searching.models import WORKING, Models, open_models
from mergesearch.searching.setup import costs_of
from mergesearch.space import SearchSpace


@dataclass(frozen=True)
class PlanOnly:
    """A memory plan, and what it was made of."""

    models: Models
    memory: MemoryPlan
    #: The reason why scoring is not counted; None where it is.
    without_scoring: str | None

    def lines(self) -> list[str]:
        """Describe the models, and lay the plan out."""
        lines = [f"parameters  {self.models.soup.n_entries / 1e9:.2f} billion"]
        for ref in self.models.parents.models:
            checkpoint = self.models.parents.checkpoint(ref)
            size = sum(spec.n_bytes for spec in checkpoint.specs.values())
            beside = ""
            if isinstance(checkpoint, PlannedCheckpoint) and checkpoint.total_size is not None:
                beside = f", {checkpoint.total_size / 1e9:.2f} GB by its index"
            lines.append(f"model       {short_name(ref)}: {size / 1e9:.2f} GB{beside}")
        if self.without_scoring is not None:
            lines.append(f"scoring     not counted: {self.without_scoring}")
        if self.models.space.learned is not None:
            lines.append("learning    not counted: it takes what is free, in smaller steps")
        if kinds := kinds_of(self.models.space):
            lines.append(f"statistics  not counted: {', '.join(kinds)}")
        return [*lines, *self.memory.lines()]


def plan_only_of(space: SearchSpace, runtime: Runtime) -> PlanOnly:
    """Plan a search's memory from configurations and indices.

    Args:
        space: what would be searched; the weights of its models need not be here.
        runtime: the device, which need not be here either, if its memory is given.

    Raises:
        InputError: something in the space is wrong, or the budgets are too small.
    """
    devices = runtime.devices(present=False)
    if devices[0].type == "cuda" and runtime.device_memory is None:
        try:
            devices = runtime.devices()  # which must be here to be measured
        except InputError as error:
            raise InputError(f"{error}; give the memory of each device, --device-memory") from None
    models = open_models(space, runtime, devices, weights=False)
    dtype = runtime.torch_dtype or compute_dtype(models.soup, devices[0])
    costs: list[Cost] = []
    without_scoring = None
    if space.suite is None:
        without_scoring = "the space has no suite"
    else:
        suite = space.load_suite()
        try:
            tokenizer = tokenizer_of(models.parents)
        except InputError as error:
            without_scoring = str(error)
        else:
            asked = runtime.model_copy(update={"device": "auto"})  # of no model that is there
            costs = costs_of(models, Evaluator(suite, tokenizer, asked), dtype, devices[0])
    working = models.working_bytes(costs, dtype)
    live = models.live_bytes(dtype, models.spread(working))
    reserved = {"merging": 0, "live model": live, WORKING: working}
    return PlanOnly(models, models.reserve(reserved, dtype, devices[0]), without_scoring)
