"""Every merge method inside a search of its own: the same documents, its best and its defaults.

    python -m tests.benchmarks.methods [--family NAME] [--seeds N ...] [--only METHOD ...]
        [--evaluations N] [--jobs N] [--testbed FOLDER] [--work FOLDER] [--finished] [--out FOLDER]

Each method is searched alone (and `learned`, from labels) for as many documents as so many full
evaluations, and its best by search score is scored on held-out; so is the method at its default
numbers, each weight 1. Methods of two models have no such merge of all parents. A search that
--work has is not run again, and with --finished no other is run. Writes methods-FAMILY.json and
methods-FAMILY.md.
"""

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import torch

from mergesearch.config import parse
from mergesearch.demo import build_family
from mergesearch.errors import CandidateError, InputError
from mergesearch.methods import METHODS, REQUIRED
from mergesearch.recipe import Recipe
from mergesearch.searching import CandidateEvaluator, SearchSetup
from mergesearch.space import SearchSpace, suggest
from tests.benchmarks import searches
from tests.benchmarks.merge import machine
from tests.benchmarks.searches import Family
from tests.benchmarks.testbed import lay_out

LEARNED = "learned"
#: Fresh seeds of each family: nothing was tuned on them.
_SEEDS = {"demo": (8, 9), "testbed": (3,)}
#: All but the one that merges nothing.
_NAMES = (LEARNED, *(name for name in METHODS if name != "passthrough"))


@dataclass(frozen=True)
class Row:
    """One method in a search of its own over one family."""

    method: str
    seed: int
    n_documents: int
    n_trials: int
    #: Of the best by search score.
    search: float | None
    held_out: float | None
    #: Of the method at its default numbers; None where it has none for all parents.
    default_held_out: float | None
    #: The reason for which there is no score.
    failure: str = ""


def measure(family: Family, method: str, seed: int, folder: Path) -> Row:
    """Search one method, and score its defaults."""
    arm = "mergesearch" if method == LEARNED else "without learning"
    beside = "linear" if method == LEARNED else method  # the arm adds what is learned
    space = parse(SearchSpace, {**dict(family.space), "methods": {beside: {}}}, "the space")
    alone = replace(family, space=space, confirms=False)
    run = searches.run_arm(alone, arm, seed, folder / "run", curve=False)
    with searches.opened(alone.space_for({**searches.ARMS[arm], "seed": seed}), folder / "run") as (
        setup,
        candidates,
    ):
        default = None if method == LEARNED else _default(setup, candidates, method)
    return Row(
        method=method,
        seed=seed,
        n_documents=run.n_documents,
        n_trials=run.n_trials,
        search=run.winner_score,
        held_out=run.winner_held_out,
        default_held_out=default,
    )


def _default(setup: SearchSetup, candidates: CandidateEvaluator, name: str) -> float | None:
    """Score a method's merge of all parents at its default numbers on held-out."""
    method = METHODS[name]
    if method.n_models[1] < len(setup.space.parents):
        return None
    numbers = {p.name: p.default for p in method.parameters if p.default is not REQUIRED}
    numbers |= {p.name: 1.0 for p in method.parameters if p.name == "weight"}
    space = SearchSpace.model_validate({**dict(setup.space), "methods": {name: numbers}})
    if setup.calibration is not None:
        space = setup.calibration.written(space, candidates.record.folder)
    recipe = suggest(space, optuna.trial.FixedTrial({}), setup.shape)
    assert isinstance(recipe, Recipe)
    try:
        return candidates.score(recipe, "held_out").total
    except CandidateError:
        return None


def _file(work: Path, family: str, evaluations: int, method: str, seed: int) -> Path:
    """Name the file in which a measurement is kept."""
    return work / f"{family}-{evaluations}-{method}-{seed}.json"


def _measured(of: tuple[str, int], family: str, evaluations: int, testbed: Path, work: Path) -> Row:
    """Measure a method, or read what was measured before."""
    method, seed = of
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = _file(work, family, evaluations, method, seed)
    if file.exists():
        return Row(**json.loads(file.read_text()))
    models = (
        searches.demo(work / f"family-{seed}") if family == "demo" else searches.testbed(testbed)
    )
    models = replace(models, n_evaluations=evaluations)
    with tempfile.TemporaryDirectory(prefix=f"{method}-") as folder:
        try:
            row = measure(models, method, seed, Path(folder))
        except (InputError, CandidateError) as error:  # as adapters are wanted, and there are none
            reason = str(error).replace(f"{work}/", "")
            row = Row(method, seed, 0, 0, None, None, None, reason)
    file.write_text(json.dumps(asdict(row)) + "\n")
    print(row, flush=True)
    return row


def markdown(report: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Lay the report out, the best method first."""
    seeds = sorted({row.seed for row in rows})
    by_method: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.seed] = row
    lines = [
        f"# Every method in a search of its own: {report['family']}",
        "",
        f"Made by `{report['command']}`. Each method is searched alone, for the documents of "
        f"{report['evaluations']} full evaluations (learning charged three for one), and its best "
        "by search score is scored on held-out; *default* is held-out of all parents at the "
        "method's default numbers, each weight 1. Seeds that nothing was tuned on.",
        "",
        f"| method | documents | mean | {' | '.join(f'seed {s}' for s in seeds)} | "
        f"{' | '.join(f'default, {s}' for s in seeds)} |",
        f"|:--|--:|--:{'|--:' * (2 * len(seeds))}|",
    ]
    ranked = sorted(by_method.items(), key=lambda item: -_mean(item[1].values()))
    for method, of in ranked:
        if all(row.held_out is None for row in of.values()):
            continue
        found = [of[s].held_out if s in of else None for s in seeds]
        defaults = [of[s].default_held_out if s in of else None for s in seeds]
        n_documents = round(mean(row.n_documents for row in of.values()))
        cells = [f"{n_documents:,}", f"{_mean(of.values()):.3f}", *map(_cell, (*found, *defaults))]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    failures = {m: next(iter(of.values())).failure for m, of in ranked}
    lines += [f"\n{name}: {failure}." for name, failure in failures.items() if failure]
    return "\n".join([*lines, ""])


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _mean(rows: Any) -> float:
    found = [row.held_out for row in rows if row.held_out is not None]
    return mean(found) if found else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="mergesearch-bench-") as scratch:
        work = (options.work or Path(scratch)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        testbed = options.testbed or work / "testbed"
        seeds = options.seeds or _SEEDS[options.family]
        wanted = [(method, seed) for seed in seeds for method in options.only]
        known = {
            of for of in wanted if _file(work, options.family, options.evaluations, *of).exists()
        }
        if options.finished:
            wanted = [of for of in wanted if of in known]
        if options.family == "demo":
            for seed in sorted({seed for _, seed in set(wanted) - known}):
                build_family(work / f"family-{seed}", seed=seed, progress=print)
        elif not known.issuperset(wanted):
            testbed = lay_out(testbed)
        one = partial(
            _measured,
            family=options.family,
            evaluations=options.evaluations,
            testbed=testbed,
            work=work,
        )
        with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
            rows = list(pool.imap(one, wanted))
    report = {
        "command": f"python -m tests.benchmarks.methods --family {options.family} "
        f"--seeds {' '.join(map(str, seeds))} --evaluations {options.evaluations}"
        f"{' --finished' if options.finished else ''}",
        "machine": machine(torch.device("cpu")),
        "family": options.family,
        "evaluations": options.evaluations,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out / f"methods-{options.family}"
    data = {**report, "rows": [asdict(row) for row in rows]}
    out.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(report, rows))
    print(out.with_suffix(".md"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.methods")
    parser.add_argument("--family", choices=list(_SEEDS), default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", help="[demo 8, 9; testbed 3]")
    parser.add_argument("--only", nargs="+", choices=_NAMES, default=list(_NAMES), metavar="METHOD")
    parser.add_argument("--evaluations", type=int, default=20, help="full ones' documents [20]")
    parser.add_argument("--jobs", type=int, default=1, help="searches side by side [1]")
    parser.add_argument("--testbed", type=Path, help="where prepare.py laid out the test bed")
    parser.add_argument("--work", type=Path, help="where finished searches are kept and found")
    parser.add_argument("--finished", action="store_true", help="only searches that --work has")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    return parser


if __name__ == "__main__":
    main()
