"""Merges where `mergesearch compare` warns, and where it does not: what each costs.

    python -m tests.benchmarks.compare --family demo --seed 0 --work bench-compare

Each parent in turn is taken whole, and another parent's delta added to it in one part of the model:
a block of layers and a group. The cost is what that does to the first parent on its own task: nats
a document (log(1 + e^-margin)) and accuracy. A warning is right where the parts that it names cost
more than others. At last all deltas are added whole, for the advice on uneven ones.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from mergesearch.config import parse
from mergesearch.demo import build_family
from mergesearch.diagnosis import Diagnosis, diagnose
from mergesearch.diagnosis.advice import conflicts
from mergesearch.recipe import Recipe, read_recipe
from mergesearch.runtime import Runtime
from mergesearch.searching import CandidateEvaluator, open_run
from mergesearch.space import SearchSpace

GROUPS = ("self_attn", "mlp")
#: By parent the task that it was trained for.
TASKS = {
    "demo": {name: f"{name}_dev" for name in ("halves", "majority", "successor")},
    "testbed": {"sentiment": "sst2_dev", "questions": "trec_dev", "style": "subj_dev"},
}
_RUNTIME = Runtime(device="cpu")


@dataclass(frozen=True)
class Row:
    """One parent's delta added to another parent, in one part; and the part's numbers."""

    parent: str
    other: str
    part: str
    overlap: float
    conflict: float
    cosine: float
    #: The norm of the other's delta in the part by that of the parent's.
    ratio: float
    #: Whether the diagnosis warns of the two in this part.
    is_named: bool
    nats: float
    accuracy: float


@dataclass(frozen=True)
class Sum:
    """One parent's own task in the sum of all deltas."""

    parent: str
    #: The norm of its delta beside the base's.
    size: float
    nats: float
    accuracy: float


def main(arguments: list[str] | None = None) -> None:
    """Measure a family, and write results/benchmarks/compare-FAMILY.json and compare.md."""
    options = _parser().parse_args(arguments)
    folder: Path = options.testbed or options.work / f"family-{options.seed}"
    name = "testbed" if options.testbed else "demo"
    if not options.testbed:
        build_family(folder, seed=options.seed, progress=print)
    space = space_of(name, folder, options.limit)
    found = diagnose(space, _RUNTIME, print)
    rows, sums = [], []
    label = name if options.testbed else f"demo, seed {options.seed}"
    for parent, task in TASKS[name].items():
        alone = space.model_copy(update={"suite": suite_of(folder, task, options.limit)})
        run = options.work / f"compare-{label.replace(', seed ', '-')}-{parent}"
        with open_run(alone, run, _RUNTIME) as (_, candidates):
            for row in rows_of(parent, space, found, candidates):
                print(f"{parent} + {row.other} in {row.part}: {row.nats:+.4f} nats", flush=True)
                rows.append(row)
            sums.append(sum_of(parent, space, found, candidates))
    write(options.out, label, rows, sums)


def space_of(name: str, folder: Path, limit: int) -> SearchSpace:
    """Make the space of a family: no matter which method, its parents are compared."""
    models: Mapping[str, Any] = {
        "demo": {
            "base": str(folder / "models/base"),
            "parents": {parent: str(folder / "models" / parent) for parent in TASKS["demo"]},
        },
        "testbed": {
            "base": str(folder / "base"),
            "parents": {
                parent: f"{folder / 'base'}+{folder / 'adapters' / task.removesuffix('_dev')}"
                for parent, task in TASKS["testbed"].items()
            },
        },
    }[name]
    more = {"granularity": {"blocks": 3, "groups": GROUPS}, "methods": {"task_arithmetic": {}}}
    return parse(SearchSpace, {**models, **more}, name)


def suite_of(folder: Path, task: str, limit: int) -> Any:
    """Make a suite of one task."""
    from mergesearch.tasks import Suite

    spec = {"task": task, "metric": "acc", "limit": limit}
    return parse(Suite, {"include_path": str(folder / "tasks"), "search": [spec]}, task)


def rows_of(
    parent: str, space: SearchSpace, found: Diagnosis, candidates: CandidateEvaluator
) -> Iterator[Row]:
    """Add each other parent to one, part by part."""
    named = {(c.row, frozenset(c.pair)) for c in conflicts(found)}
    before = cost(candidates, recipe(space, found, {parent: None}))
    for other in (name for name in space.parents if name != parent):
        for name, part in found.rows:
            if part.group not in GROUPS:
                continue
            after = cost(candidates, recipe(space, found, {parent: None, other: name}))
            pair = part.pair(parent, other)
            yield Row(
                parent,
                other,
                name,
                pair.overlap or 0.0,
                pair.conflict or 0.0,
                pair.cosine or 0.0,
                part.deltas[other] / part.deltas[parent],
                (name, frozenset((parent, other))) in named,
                after[0] - before[0],
                after[1] - before[1],
            )


def sum_of(
    parent: str, space: SearchSpace, found: Diagnosis, candidates: CandidateEvaluator
) -> Sum:
    """Add all parents' deltas, each whole."""
    before = cost(candidates, recipe(space, found, {parent: None}))
    after = cost(candidates, recipe(space, found, dict.fromkeys(space.parents)))
    assert found.whole is not None
    return Sum(parent, found.whole.size(parent), after[0] - before[0], after[1] - before[1])


def recipe(space: SearchSpace, found: Diagnosis, weights: Mapping[str, str | None]) -> Recipe:
    """Add deltas to the base: each whole, or in one part alone, by its name in the tables."""
    slices = []
    for first, end in found.blocks:
        sources: list[dict[str, Any]] = [{"model": str(space.base), "layer_range": [first, end]}]
        for parent, where in weights.items():
            weight: Any = 1.0
            if where is not None:
                group = next(p.group for name, p in found.rows if name == where)
                inside = f"{first}" in where.split() and where.endswith(f" {end - 1}")
                weight = [{"filter": group, "value": float(inside)}, {"value": 0.0}]
            sources.append(
                {
                    "model": str(space.parents[parent]),
                    "layer_range": [first, end],
                    "parameters": {"weight": weight},
                }
            )
        slices.append({"sources": sources})
    text = {"merge_method": "task_arithmetic", "base_model": str(space.base), "slices": slices}
    return read_recipe(json.dumps(text))


def cost(candidates: CandidateEvaluator, made: Recipe) -> tuple[float, float]:
    """Score a recipe: nats a document, and accuracy."""
    (task,) = candidates.score(made).scores.tasks
    margins = np.array([document.margin for document in task.documents], dtype=float)
    return float(np.logaddexp(0, -margins).mean()), task.value


def write(out: Path, label: str, rows: list[Row], sums: list[Sum]) -> None:
    """Put a family's numbers among those of others, and write the table of all."""
    path = out / "compare.json"
    data = json.loads(path.read_text()) if path.exists() else {}
    data[label] = {"rows": [asdict(row) for row in rows], "sums": [asdict(of) for of in sums]}
    path.write_text(json.dumps(data, indent=1) + "\n")
    (out / "compare.md").write_text("\n".join(_lines(data)) + "\n")


def _lines(data: Mapping[str, Any]) -> Iterator[str]:
    yield "# Advice beside what merges cost"
    yield ""
    yield (
        "Each parent whole, and another parent's delta added to it in one part (a third of the "
        "layers, attention or mlp). The cost is on the first parent's own task: nats a document "
        "(log(1 + e^-margin), above 0 is worse) and accuracy. Made by `make bench-compare`."
    )
    yield ""
    yield "## Parts that the advice names, and the others"
    yield ""
    yield "| family | parts | merges | mean nats | largest | mean accuracy | smallest |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for family, of in data.items():
        for what, is_named in (("named", True), ("not named", False)):
            some = [row for row in of["rows"] if row["is_named"] == is_named]
            if not some:
                yield f"| {family} | {what} | 0 | | | | |"
                continue
            nats, accuracy = ([row[key] for row in some] for key in ("nats", "accuracy"))
            yield (
                f"| {family} | {what} | {len(some)} | {mean(nats):+.4f} | {max(nats):+.4f} | "
                f"{mean(accuracy):+.4f} | {min(accuracy):+.4f} |"
            )
    yield ""
    yield "## Numbers of a part beside the cost: Spearman's rank correlation with nats"
    yield ""
    keys = ("overlap", "ratio", "conflict", "cosine")
    yield f"| family | {' | '.join(keys)} |"
    yield "| --- | --- | --- | --- | --- |"
    for family, of in data.items():
        cells = []
        for key in keys:
            found = spearmanr([r[key] for r in of["rows"]], [r["nats"] for r in of["rows"]])
            cells.append(f"{found.statistic:+.2f} (p = {found.pvalue:.2g})")
        yield f"| {family} | {' | '.join(cells)} |"
    yield ""
    yield "## All deltas added whole"
    yield ""
    yield "| family | parent | delta beside the base | nats | accuracy |"
    yield "| --- | --- | --- | --- | --- |"
    for family, of in data.items():
        for one in of["sums"]:
            yield (
                f"| {family} | {one['parent']} | {one['size']:.2%} | {one['nats']:+.3f} | "
                f"{one['accuracy']:+.3f} |"
            )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.compare")
    parser.add_argument("--seed", type=int, default=0, help="of the demo's family")
    parser.add_argument("--testbed", type=Path, help="where prepare.py laid out the test bed")
    parser.add_argument("--limit", type=int, default=100, help="documents of a task")
    parser.add_argument("--work", type=Path, required=True, help="where families and runs are kept")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser


if __name__ == "__main__":
    main()
