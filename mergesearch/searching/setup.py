"""The setup of a search: its models and tasks open, a space's errors said first."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch

from mergesearch.calibration import Calibrator
from mergesearch.engines import Cost, differentiable
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.learning import Curriculum, Portion, Subject, largest_portion
from mergesearch.logs import quiet_optuna, quiet_process
from mergesearch.merging import (
    Plan,
    Spread,
    compute_dtype,
    merging_bytes,
    model_config,
    total_rank,
)
from mergesearch.parents import (
    MemoryPlan,
    Parents,
    Reserved,
    Residence,
    default_budget,
    tokenizer_of,
)
from mergesearch.requests import Request
from mergesearch.runtime import Runtime
from mergesearch.searching.calibrating import (
    CalibrationTexts,
    calibration_of,
    check_calibration,
    set_apart,
    statistics_here,
)
from mergesearch.searching.goals import check_goals
from mergesearch.searching.models import WORKING, Models, open_models
from mergesearch.space import Learned, SearchSpace, Shape
from mergesearch.tasks import Suite
from mergesearch.workers import LocalWorker, Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mergesearch.tasks import BuiltTask

#: What a pass of learning takes, in forward passes of its documents.
_FORWARDS = 3
#: The line of the memory plan for what happens in turn, where coefficients are learned.
_LEARNING = "merging, scoring or learning"


@dataclass(frozen=True)
class SearchSetup:
    """A space whose models and tasks are open.

    >>> from pathlib import Path
    >>> from mergesearch import SearchSpace
    >>> from mergesearch.searching import prepare
    >>> setup = prepare(SearchSpace.load(Path("space.yaml")))
    >>> [task.id.task for task in setup.evaluator.tasks()]
    ['first', 'second']
    """

    space: SearchSpace
    suite: Suite
    parents: Parents
    tokenizer: "PreTrainedTokenizerBase"
    evaluator: Evaluator
    shape: Shape
    #: The uniform soup, of whose size every merged candidate is.
    soup: Plan
    #: That candidates compute in.
    dtype: torch.dtype
    #: The devices that candidates lie on, if they are several.
    spread: Spread | None
    #: What merging and scoring hold where, the live model included.
    memory: MemoryPlan
    #: What scoring one candidate on the search split takes; None where there is no suite.
    scoring: Cost | None
    #: What coefficients are learned from, if they are.
    curriculum: Curriculum | None = None
    #: The recipe whose numbers are learned, if they are.
    subject: Subject | None = None
    #: Of a step of learning.
    portion: Portion = Portion()  # noqa: RUF009  frozen
    #: The prompts that statistics are computed from, if a method looks at some.
    calibration: CalibrationTexts | None = None

    def with_budget(self, **limits: int | float | None) -> "SearchSetup":
        """Return the same with another budget.

        Args:
            limits: trials, documents or minutes.
        """
        settings = self.space.search.model_copy(update=limits)
        return replace(self, space=self.space.model_copy(update={"search": settings}))


@dataclass(frozen=True)
class Shared:
    """Tasks, lessons and prompts for a worker that need not have the suite."""

    suite: Suite
    built: Mapping[str, tuple["BuiltTask", ...]]
    curriculum: Curriculum | None
    calibration: CalibrationTexts | None
    #: Where statistics for merges are kept, for all workers who see the run's folder.
    statistics: Path


class Learning(TypedDict, total=False):
    """Settings and prompts to learn by, where a space does not say them."""

    learned: Learned
    #: By parent.
    prompts: Mapping[str, tuple[str, ...]]


def prepare(
    space: SearchSpace,
    runtime: Runtime = Runtime(),  # noqa: B008  frozen
    *,
    learned: Learned | None = None,
    prompts: Mapping[str, tuple[str, ...]] | None = None,
    shared: Shared | None = None,
) -> SearchSetup:
    """Open a space's models and build its tasks.

    Only headers of the models are read. A candidate of each method is planned, so that whatever
    would fail all trials of a method stops the run here.

    Args:
        space: what is searched.
        runtime: where and how models are merged and run.
        learned: what is learned, if not what the space says.
        prompts: texts to learn from by parent, in place of the suite's documents; the space then
            needs no suite.
        shared: the tasks, and what is learned from them, where another process has prepared both.

    Raises:
        InputError: with what is wrong first.
    """
    devices = runtime.devices()
    suite = shared.suite if shared else _suite(space, prompts)
    is_search = learned is None
    budget = space.search.documents if is_search else None
    learned = learned or space.learned
    models = open_models(space, runtime, devices)
    space, parents, soup, device = models.space, models.parents, models.soup, devices[0]
    tokenizer = tokenizer_of(parents)
    evaluator = Evaluator(suite, tokenizer, runtime, shared.built if shared else None)
    if suite.search:
        check_goals(space, evaluator)
    curriculum = (
        shared.curriculum if shared else _curriculum(space, learned, evaluator, prompts, budget)
    )
    if shared:
        calibration = shared.calibration
    else:
        calibration = calibration_of(space, evaluator) if is_search else None
    check_calibration(calibration, budget)
    set_apart(evaluator, curriculum, calibration)
    dtype = runtime.torch_dtype or compute_dtype(soup, device)
    # built before what the process holds is measured
    costs = costs_of(models, evaluator, dtype, device)
    working = models.working_bytes(costs, dtype)
    if calibration is not None:
        working = max(working, calibration.peak_bytes(soup, tokenizer))
    spread = models.spread(working)
    # a candidate is merged, and then scored
    reserved = {"merging": 0, "live model": models.live_bytes(dtype, spread), WORKING: working}
    portion, subject = Portion(), None
    if curriculum is not None:
        del reserved[WORKING]
        subject = Subject.of(space, curriculum.learned, parents)
        portion = _portion(
            subject, curriculum, parents, evaluator, dtype, device, reserved, working
        )
        reserved[_LEARNING] = max(working, portion.n_bytes)
    memory = models.reserve(reserved, dtype, device)
    return SearchSetup(
        space,
        suite,
        parents,
        tokenizer,
        evaluator,
        models.shape,
        soup,
        dtype,
        spread,
        memory,
        costs[0] if costs else None,
        curriculum,
        subject,
        portion,
        calibration,
    )


def costs_of(
    models: Models, evaluator: Evaluator, dtype: torch.dtype, device: torch.device
) -> list[Cost]:
    """Estimate the scoring of a candidate on each split, the search split first."""
    splits = [name for name in ("search", "held_out") if getattr(evaluator.suite, name)]
    return [
        evaluator.cost(model_config(plan), dtype, device, split)
        for split in splits
        for plan in (models.soup, *models.deep)
    ]


def worker_of(
    setup: SearchSetup,
    runtime: Runtime,
    statistics: Path,
    say: Callable[[str], None] = lambda line: None,
) -> LocalWorker:
    """Make the worker of a setup, in this process.

    Args:
        setup: its models and tasks.
        runtime: where it computes.
        statistics: the folder where those that merges look at are kept.
        say: is told which of them are computed.

    Raises:
        InputError: coefficients are to be learned, and no tensor differs between the models.
    """
    teacher = None
    if setup.curriculum is not None and setup.subject is not None:
        teacher = Teacher(
            setup.space, setup.curriculum, setup.subject, setup.evaluator, setup.portion
        )
    device, dtype = runtime.torch_device, runtime.torch_dtype
    texts = {} if setup.calibration is None else setup.calibration.by_file
    calibrator = Calibrator(setup.parents, setup.tokenizer, statistics, say, texts)
    return LocalWorker(
        setup.parents, setup.evaluator, device, dtype, teacher, setup.spread, calibrator
    )


def start_worker(
    space: SearchSpace, runtime: Runtime, shared: Shared, n_sharing: int
) -> LocalWorker:
    """Prepare a space in a process of its own, and make its worker.

    Args:
        space: what is searched, its models as this host finds them.
        runtime: of the driver; a memory budget is that of one worker.
        shared: from the driver.
        n_sharing: workers that share this host's cores and memory.

    Raises:
        InputError: with what is wrong on this host.
    """
    if runtime.torch_device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // n_sharing))
    if runtime.memory_budget is None:
        budget = default_budget(n_sharing)
        runtime = runtime.model_copy(update={"memory_budget": budget})
    quiet_optuna()
    quiet_process()
    setup = prepare(space, runtime, shared=shared)
    return worker_of(setup, runtime, statistics_here(shared.statistics))


def _suite(space: SearchSpace, prompts: Mapping[str, tuple[str, ...]] | None) -> Suite:
    return Suite.none() if prompts is not None and space.suite is None else space.load_suite()


def _curriculum(
    space: SearchSpace,
    learned: Learned | None,
    evaluator: Evaluator,
    prompts: Mapping[str, tuple[str, ...]] | None,
    budget: int | None,
) -> Curriculum | None:
    """Choose what is learned from, if coefficients are learned."""
    if learned is None:
        return None
    if prompts is not None:
        return Curriculum.of_prompts(learned, prompts, space.parents)
    curriculum = Curriculum.of_suite(learned, evaluator, space.parents)
    if budget is not None and curriculum.n_answers >= budget:
        raise InputError(
            f"learned: {learned.passes} passes of {curriculum.of_pass(1).n_lessons} documents take "
            f"{curriculum.n_answers:,} answers, of a budget of {budget:,} documents; lower "
            "learned.documents or learned.passes, or raise the budget"
        )
    return curriculum


def _portion(
    subject: Subject,
    curriculum: Curriculum,
    parents: Parents,
    evaluator: Evaluator,
    dtype: torch.dtype,
    device: torch.device,
    reserved: Reserved,
    working: int,
) -> Portion:
    """Find the largest portion of a step that keeps no more parents out of memory."""
    plan, routes = subject.plan, subject.routes
    config = model_config(plan)
    engine = differentiable(evaluator.engine)
    rank = None if routes.dense else total_rank(plan, parents)
    # tensors are merged within the backward pass
    merging = merging_bytes(plan, parents, streamed=False) if routes.dense else 0

    def n_bytes(requests: Sequence[Request], checkpointing: bool) -> int:
        needed = engine.backward_bytes(
            requests, config, dtype, device, checkpointing=checkpointing, rank=rank
        )
        return needed + merging

    def residences(needed: int) -> tuple[Residence, ...]:
        return parents.memory_plan({**reserved, _LEARNING: max(working, needed)}).residences

    asked = curriculum.requests()
    least = largest_portion(asked, 1, n_bytes, lambda _: False)
    kept = residences(least.n_bytes)

    def fits(needed: int) -> bool:
        try:
            return residences(needed) == kept
        except InputError:
            return False

    return largest_portion(asked, curriculum.learned.batch, n_bytes, fits)


@dataclass(frozen=True)
class Estimate:
    """The cost of a search in time."""

    n_parameters: int
    n_documents: int
    n_tokens: int
    #: Seconds for one candidate, scored on the search split.
    seconds_per_candidate: float
    #: Seconds for one pass through what is learned from; 0 where nothing is.
    seconds_per_pass: float = 0.0


def estimate(setup: SearchSetup, device: torch.device) -> Estimate:
    """Estimate a search's time, from tasks' tokens and the device's present speed."""
    assert setup.scoring is not None, "a search has a suite"
    n_parameters = setup.soup.n_entries
    tasks, n_tokens = setup.evaluator.tasks("search"), setup.scoring.n_tokens
    per_second = _flops_per_second(device, setup.dtype)
    return Estimate(
        n_parameters=n_parameters,
        n_documents=sum(task.n_documents for task in tasks),
        n_tokens=n_tokens,
        seconds_per_candidate=2 * n_parameters * n_tokens / per_second,
        seconds_per_pass=2 * n_parameters * _n_tokens_of_a_pass(setup, device) / per_second,
    )


def _n_tokens_of_a_pass(setup: SearchSetup, device: torch.device) -> float:
    """Count the tokens of a pass of learning, in those of a forward pass."""
    if setup.curriculum is None:
        return 0.0
    requests = [request for of in setup.curriculum.of_pass(1).requests() for request in of]
    engine, config = setup.evaluator.engine, model_config(setup.soup)
    n_tokens = engine.cost(requests, config, setup.dtype, device).n_tokens
    return n_tokens * (_FORWARDS + setup.portion.checkpointing)


def _flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the device on a matrix product of the size of a small model's."""
    a, b = (torch.ones(1024, 1024, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(4):
        start = _now(device)
        a @ b
        seconds.append(_now(device) - start)
    return 2 * 1024**3 / min(seconds[1:])


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()
