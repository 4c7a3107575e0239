# ruff: noqa: RUF001 - the signs for "times" and "to" are meant
"""The report as Markdown."""

from collections.abc import Iterable, Sequence
from statistics import median

from tests.benchmarks.cases import CASES
from tests.benchmarks.results import BlockRow, DiskRow, FamilyResult, Report, Row

#: Goals of whole processes: so many times faster than mergekit-yaml, with so much memory.
DISK_SPEEDUP, DISK_PEAK_BYTES = 3, 1.2e9
#: The goal of a candidate that differs in one block of three, in whole merges.
ONE_BLOCK = 0.45
_MISSING = "not measured"
_RESUMED = "; what it did not measure is of earlier runs on the same machine (`make bench`)"
_HEADER = (
    "method", "first, s", "goal", "eigenvectors alone, s", "per candidate, s", "× copy", "goal",
    "× copy of the inputs", "× faster than mergekit alone", "goal", "mergekit alone, s",
    "mergekit, whole process, s",
)  # fmt: skip
_DISK_HEADER = (
    "method", "program", "whole process, s", "peak, GB", "goal", "× faster", "goal",
)  # fmt: skip
_BLOCK_HEADER = ("method", "whole, s", "one block, s", "of a whole merge", "goal")
_DEFINITIONS = """\
- **A candidate** is merged by `merge_into` into a model in memory, its hash included. No two in a
  row are the same recipe: weights, densities, t or lambda change, and of `model_stock` and
  `arcee_fusion`, which have no number to change, the order or the choice of the parents.
  *First* is the first candidate of freshly opened parents, which fills the caches (opening them,
  which reads the headers, is not in it); *per candidate* is the median (lowest–highest) after it.
- **Eigenvectors alone**: the symmetric eigendecompositions of the first candidate (LAPACK's of
  float64, on matrices of the same sizes and number, by as many threads of one core each) and
  nothing else.
- **× copy**: the median candidate over the median `copy_` between two preallocated buffers, with
  the same threads and in turn with the merges. The source holds the bytes of the inputs that a
  candidate reads (each parent and the base as stored; of `tsv_m`, `iso_c` and `iso_cts` the base
  and one direction in float32) and of the result that it writes (the live model: float32 on the
  CPU). **× copy of the inputs** copies the inputs' bytes only, which is stricter.
- **mergekit alone**: its planned tensors run through its `Executor` in its own process, each
  dropped as it comes. Neither start, imports, opening the models nor planning is in it, and
  nothing is written; our times have the planning in them. Its files are in the page cache (its
  `lazy_unpickle` concerns pickles only), it has the same threads, and its configuration gives no
  `dtype`: it computes in what the parents store unless a method of its widens that, where we
  compute in float32. Its figure is the median of few runs, mostly of one.
- **Whole process**: from the start of the command until it ended, a checkpoint written to the
  same disk, not flushed. *Peak* is the largest resident set of the child (`wait4`), the pages of
  mapped files in it.
- **One block of three**: a live model becomes candidates of three slices of layers (the embeddings
  belong to the first). Each differs from the one before in the numbers of all slices, or, in turn,
  of one; the part is that of the means.
"""


def markdown(report: Report) -> str:
    """The tables, one a family, with what was met and what the words mean."""
    facts = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    parts = [
        f"# Merging models of {report.size} size",
        f"`{report.command}`" + (_RESUMED if "--resume" in report.command else ""),
        f"Three parents and a base, on: {facts}.",
    ]
    for family in report.families:
        parts += [f"## {family.dtype} parents", _table(_HEADER, map(_cells, family.rows))]
        if family.disk:
            parts += ["To disk:", _table(_DISK_HEADER, _disk_cells(family))]
        if family.blocks:
            parts += [
                "One block of three:",
                _table(_BLOCK_HEADER, map(_block_cells, family.blocks)),
            ]
    return "\n\n".join([*parts, "## What was measured", _DEFINITIONS])


def _cells(row: Row) -> list[str]:
    case = CASES[row.method]
    goal = case.goal
    missing = _MISSING if case.peer else "-"
    return [
        row.method,
        _number(row.first),
        _goal("≤", goal.first if goal else None, row.first_met),
        "-" if row.eigenvectors is None else _number(row.eigenvectors),
        _spread(row.candidates),
        _number(row.times_copy),
        _goal("≤", goal.copies if goal else None, row.copies_met),
        _number(row.times_input_copy),
        missing if row.speedup is None else _number(row.speedup),
        _goal("≥", goal.peer if goal else None, row.peer_met),
        _spread(row.peer_alone) or missing,
        _spread(row.peer_whole) or missing,
    ]


def _disk_cells(family: FamilyResult) -> Iterable[list[str]]:
    for ours, theirs in zip(family.disk[::2], family.disk[1::2], strict=True):
        speedup = median(theirs.seconds) / median(ours.seconds) if theirs.runs else None
        yield [
            *_disk_start(ours),
            _goal("≤", DISK_PEAK_BYTES / 1e9, ours.peak_bytes <= DISK_PEAK_BYTES),
            _MISSING if speedup is None else _number(speedup),
            _goal("≥", DISK_SPEEDUP, None if speedup is None else speedup >= DISK_SPEEDUP),
        ]
        yield [*_disk_start(theirs), "-", "-", "-"]


def _block_cells(row: BlockRow) -> list[str]:
    times = [_spread(row.whole), _spread(row.one_block)]
    return [row.method, *times, _number(row.part), _goal("≤", ONE_BLOCK, row.part <= ONE_BLOCK)]


def _disk_start(row: DiskRow) -> list[str]:
    start = [row.method, f"`{row.program}`"]
    if not row.runs:
        return [*start, _MISSING, _MISSING]
    return [*start, _spread(row.seconds), f"{row.peak_bytes / 1e9:.2f}"]


def _goal(sign: str, bound: float | None, met: bool | None) -> str:
    if bound is None:
        return "-"
    verdict = {True: "met", False: "**not met**", None: _MISSING}[met]
    return f"{sign} {bound:g}: {verdict}"


def _spread(seconds: Sequence[float]) -> str:
    """Median, and the extremes of more than one."""
    if len(seconds) < 2:
        return "".join(_number(value) for value in seconds)
    middle, low, high = (_number(f(seconds)) for f in (median, min, max))
    return f"{middle} ({low}–{high})"


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
