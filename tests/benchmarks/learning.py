# ruff: noqa: RUF001 - the sign for "times" is meant
"""Learned coefficients by documents, granularity and loss, and a trained LoRA beside them.

    python -m tests.benchmarks.learning [--family NAME] [--seed N] [--documents N ...]
        [--granularity NAME ...] [--loss NAME ...] [--work FOLDER] [--finished]

Each row is learned once, from the first so many documents of each task that a search of the
family would not score, and scored on held-out. The LoRA is of rank 16 on all linear layers, from
the base and from the uniform soup, trained by Adam on the same documents, loss and passes. A row
that --work has is not run again, and with --finished no other is run. Writes learning-FAMILY.json
and learning-FAMILY.md.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from peft import LoraConfig, get_peft_model

from mergesearch import merge
from mergesearch.calibration import PROMPTS_FOLDER
from mergesearch.demo import build_family
from mergesearch.engines import differentiable
from mergesearch.learning import Curriculum, Lesson, labelled, losses
from mergesearch.merging import build, merge_into
from mergesearch.recipe import Recipe
from mergesearch.runtime import Runtime, torch_threads
from mergesearch.searching import CandidateEvaluator, SearchSetup, Silent, open_learner, open_run
from mergesearch.searching.setup import worker_of
from mergesearch.space import Learned, SearchSpace
from mergesearch.workers import LocalWorker
from tests.benchmarks import searches
from tests.benchmarks.merge import machine
from tests.benchmarks.searches import Family
from tests.benchmarks.testbed import lay_out

#: Documents of a task, with the passes that go through them.
_PASSES = {5: 8, 25: 6, 100: 3, 500: 1}
#: Of each family, as many as there are beside those that a search scores.
_DOCUMENTS = {
    "demo": [5, 25, 100],
    "testbed": [5, 25, 100, 500],
    "testbed-full": [25],  # its experts as full checkpoints
}
_GRANULARITIES = ("model", "block", "layer", "tensor")
_LOSSES = ("labels", "parents")
_RANK = 16


@dataclass(frozen=True)
class Row:
    """One way to learn, and how its model does on held-out."""

    what: str
    loss: str
    #: Of each task.
    n_documents: int
    n_passes: int
    #: Numbers that are learned.
    n_numbers: int
    n_answers: int
    seconds: float
    #: Of one pass, in those of a plain forward pass over the same documents.
    pass_ratio: float | None
    held_out: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    options.documents = options.documents or _DOCUMENTS[options.family]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="mergesearch-bench-") as scratch, torch_threads(1):
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        family = _family(options, work)
        rows: list[Row] = []
        for title, row in _rows(options, family, Path(scratch)):
            file = work / f"learning-{options.family}-{options.seed}-{title}.json"
            if not file.exists():
                if options.finished:
                    continue
                file.write_text(json.dumps(asdict(row())) + "\n")
            rows.append(Row(**json.loads(file.read_text())))
            print(_write(options, rows), flush=True)


def _rows(
    options: argparse.Namespace, family: Family, scratch: Path
) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield each row's title with what computes it, in the order of the table."""
    for settings, n in _settings(options):
        title = f"{settings['granularity']}-{settings['loss']}-{n}"
        yield title, partial(_learned, family, settings, n, options.seed, scratch / title)
    for n in options.documents if options.lora else ():
        for start in ("base", "uniform soup"):
            title = f"lora-{start.replace(' ', '-')}-{n}"
            yield title, partial(_lora, family, start, n, options.seed, scratch / title)


def _settings(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], int]]:
    for loss in options.loss:
        for n in options.documents:
            for granularity in options.granularity:
                yield {"loss": loss, "granularity": granularity, "passes": _PASSES[n]}, n


@contextmanager
def _opened(
    family: Family, settings: Mapping[str, Any], n: int, seed: int, folder: Path
) -> Iterator[tuple[SearchSetup, CandidateEvaluator]]:
    """Open a run that learns from the same n documents of each task in every pass."""
    space = family.space_for({"learned": None, "seed": seed})
    learned = Learned.model_validate({**settings, "documents": n})
    runtime = Runtime(device="cpu")
    with open_run(space, folder, runtime, Silent(), learned=learned) as (setup, candidates):
        assert setup.curriculum is not None
        setup = replace(setup, curriculum=setup.curriculum.of_pass(1))
        # whose lessons are those of the first pass only
        worker = worker_of(setup, runtime, folder / PROMPTS_FOLDER)
        yield setup, CandidateEvaluator(setup.parents, setup.evaluator, candidates.record, worker)


def _learned(family: Family, settings: Mapping[str, Any], n: int, seed: int, folder: Path) -> Row:
    with _opened(family, settings, n, seed, folder) as (setup, candidates):
        assert setup.curriculum is not None
        learner = open_learner(setup, candidates, Silent())
        start = time.perf_counter()
        recipe = learner.recipe(setup.curriculum.learned.end)
        seconds = time.perf_counter() - start
        passes = candidates.record.passes
        forward = _forward_seconds(setup.curriculum, candidates, recipe)
        return Row(
            what=str(settings["granularity"]),
            loss=str(settings["loss"]),
            n_documents=n,
            n_passes=len(passes),
            n_numbers=len(learner.coefficients),
            n_answers=sum(one.n_answers for one in passes),
            seconds=seconds,
            pass_ratio=min(one.seconds for one in passes) / forward,
            held_out=candidates.score(recipe, "held_out").total,
        )


def _forward_seconds(
    curriculum: Curriculum, candidates: CandidateEvaluator, recipe: Recipe
) -> float:
    """Time a plain forward pass over the documents that were learned from, as scoring does it."""
    requests = [request for of in curriculum.requests() for request in of]
    assert isinstance(candidates.worker, LocalWorker)
    with candidates.worker.asked(recipe) as engine:
        engine.answer(requests[:1])
        start = time.perf_counter()
        engine.answer(requests)
        return time.perf_counter() - start


def _lora(family: Family, start: str, n: int, seed: int, folder: Path) -> Row:
    """Train a LoRA on the labels of the same documents: the honest alternative."""
    settings = {"loss": "labels", "passes": _PASSES[n]}
    with _opened(family, settings, n, seed, folder) as (setup, candidates):
        assert setup.curriculum is not None
        space, learned = setup.space, setup.curriculum.learned
        assert space.base is not None
        recipe = space.soup([space.base]) if start == "base" else space.soup()
        lessons = [x for task, of in setup.curriculum.documents for x in labelled(task, of)]
        model = build(setup.soup, torch.device("cpu"), setup.dtype)
        merge_into(model, recipe, candidates.parents)
        config = LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules="all-linear")
        began = time.perf_counter()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            adapted = get_peft_model(model, config)
        n_numbers = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        engine = differentiable(candidates.evaluator.engine)
        engine.load(model)
        _train(engine, adapted, lessons, learned, seed)
        merged = adapted.merge_and_unload()
        seconds = time.perf_counter() - began
        held_out = candidates.evaluator.score(merged, "held_out").total
        return Row(
            what=f"LoRA of rank {_RANK} from the {start}",
            loss="labels",
            n_documents=n,
            n_passes=learned.passes,
            n_numbers=n_numbers,
            n_answers=setup.curriculum.n_answers,
            seconds=seconds,
            pass_ratio=None,
            held_out=held_out,
        )


def _train(
    engine: Any, model: torch.nn.Module, lessons: Sequence[Lesson], learned: Learned, seed: int
) -> None:
    """Adam at 1e-3, falling to zero by a cosine: usual for a LoRA."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    n_steps = learned.passes * -(-len(lessons) // learned.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(learned.passes):
        order = torch.randperm(len(lessons), generator=generator).tolist()
        for k in range(0, len(order), learned.batch):
            batch = [lessons[i] for i in order[k : k + learned.batch]]
            optimizer.zero_grad()
            losses(engine, batch).mean().backward()
            optimizer.step()
            schedule.step()


def _family(options: argparse.Namespace, work: Path) -> Family:
    if options.family != "demo":
        family = searches.testbed(lay_out(options.testbed or work / "testbed"))
        return family if options.family == "testbed" else _with_checkpoints(family, work)
    build_family(work / f"family-{options.seed}", seed=options.seed, progress=print)
    return searches.demo(work / f"family-{options.seed}")


def _with_checkpoints(family: Family, work: Path) -> Family:
    """Give a family whose parents are checkpoints, merged from its adapters in a work folder."""
    space, parents = family.space, {}
    for name, adapted in space.parents.items():
        folder = (work / f"full-{name}").resolve()
        if not folder.exists():
            merge(space.soup([adapted]), folder)
        parents[name] = str(folder)
    return replace(family, space=SearchSpace.model_validate({**dict(space), "parents": parents}))


def _write(options: argparse.Namespace, rows: Sequence[Row]) -> str:
    """Write what there is so far, and give the last line."""
    options.out.mkdir(parents=True, exist_ok=True)
    words = ["python -m tests.benchmarks.learning", f"--family {options.family}"]
    words.append(f"--seed {options.seed}")
    for name in ("documents", "granularity", "loss"):
        if (value := getattr(options, name)) != _parser().get_default(name):
            words.append(f"--{name} {' '.join(map(str, value))}")
    words += [] if options.lora else ["--no-lora"]
    words += ["--finished"] if options.finished else []
    command = " ".join(words)
    name = f"learning-{options.family}"
    data = {
        "command": command,
        "machine": machine(torch.device("cpu")),
        "rows": [asdict(row) for row in rows],
    }
    (options.out / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    lines = [
        f"# Learned coefficients: {options.family}, seed {options.seed}",
        "",
        f"`{command}`",
        "",
        "| learned | loss | documents a task × passes | numbers | answers | s | pass / forward | "
        "held-out |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ratio = "" if row.pass_ratio is None else f"{row.pass_ratio:.1f}"
        lines.append(
            f"| {row.what} | {row.loss} | {row.n_documents} × {row.n_passes} | {row.n_numbers:,} | "
            f"{row.n_answers:,} | {row.seconds:.0f} | {ratio} | {row.held_out:.3f} |"
        )
    (options.out / f"{name}.md").write_text("\n".join(lines) + "\n")
    return lines[-1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.learning")
    parser.add_argument("--family", choices=list(_DOCUMENTS), default="demo")
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--documents", type=int, nargs="+", choices=list(_PASSES), default=None)
    parser.add_argument("--granularity", nargs="+", choices=_GRANULARITIES, default=_GRANULARITIES)
    parser.add_argument("--loss", nargs="+", choices=_LOSSES, default=_LOSSES)
    parser.add_argument("--no-lora", dest="lora", action="store_false", help="no training")
    parser.add_argument("--testbed", type=Path, help="where prepare.py laid out the test bed")
    parser.add_argument("--work", type=Path, help="where families and rows are kept and found")
    parser.add_argument("--finished", action="store_true", help="only rows that --work has")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser


if __name__ == "__main__":
    main()
