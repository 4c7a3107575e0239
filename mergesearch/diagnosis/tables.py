"""The diagnosis as tables of words, for a terminal, a page or Markdown."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from mergesearch.diagnosis.model import Answers, Diagnosis, Part

#: Pairs of parents that a table has columns for.
_N_PAIRS = 3


@dataclass(frozen=True)
class Table:
    """One table, its first column the name of each row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    #: The meaning of its numbers; that of tables alike is said once, by the last.
    note: str


def tables_of(diagnosis: Diagnosis) -> tuple[Table, ...]:
    """Lay a diagnosis out: deltas, pairs of them, tasks, and who answers what in each."""
    found: list[Table] = []
    rows = [(name, part) for name, part in diagnosis.rows if any(part.deltas.values())]
    if rows:
        found.append(_deltas(diagnosis, rows))
        if len(diagnosis.parents) > 1:
            found.append(_pairs(diagnosis, rows))
    if diagnosis.answers:
        found.append(_tasks(diagnosis))
        several = [of for of in diagnosis.answers if len(of.ahead) > 1]
        found += (_ahead(of, last=of is several[-1]) for of in several)
    return tuple(found)


def _deltas(diagnosis: Diagnosis, rows: list[tuple[str, Part]]) -> Table:
    return Table(
        "What fine-tuning changed",
        ("", *diagnosis.parents),
        tuple((name, *(_delta(part, p) for p in diagnosis.parents)) for name, part in rows),
        "the norm of each parent's delta beside the base's; its effective rank",
    )


def _delta(part: Part, parent: str) -> str:
    rank = part.ranks[parent]
    if not part.deltas[parent]:
        return "-"
    return f"{part.size(parent):.2%}" + ("" if rank is None else f"  rank {rank:.1f}")


def _pairs(diagnosis: Diagnosis, rows: list[tuple[str, Part]]) -> Table:
    # the few entries of norms point anywhere
    rows = [(name, part) for name, part in rows if any(p.overlap is not None for p in part.pairs)]
    pairs = list(combinations(diagnosis.parents, 2))
    cut = len(pairs) > _N_PAIRS
    if cut:
        pairs.sort(key=lambda pair: -_largest_overlap(rows, *pair))
    more = f"; {_N_PAIRS} of {len(pairs)} pairs, those of the largest overlap" if cut else ""
    pairs = pairs[:_N_PAIRS]
    return Table(
        "How the changes lie to each other",
        ("", *(" and ".join(pair) for pair in pairs)),
        tuple((name, *(_pair(part, *pair) for pair in pairs)) for name, part in rows),
        "the cosine between two deltas; the share of opposite signs among the entries that are "
        "among the largest fifth of both, 50 % by chance; the overlap of the inputs that the two "
        f"respond to{more}",
    )


def _largest_overlap(rows: list[tuple[str, Part]], first: str, second: str) -> float:
    return max((part.pair(first, second).overlap or 0.0 for _, part in rows), default=0.0)


def _pair(part: Part, first: str, second: str) -> str:
    pair = part.pair(first, second)
    if pair.cosine is None:
        return "-"
    conflict = "-" if pair.conflict is None else f"{pair.conflict:.0%}"
    overlap = "-" if pair.overlap is None else f"{pair.overlap:.1%}"
    return f"{pair.cosine:+.3f}  {conflict}  {overlap}"


def _tasks(diagnosis: Diagnosis) -> Table:
    names = list(diagnosis.answers[0].values)
    return Table(
        "What the parents answer",
        ("task", *names, "best of all", "documents"),
        tuple(
            (
                f"{of.task} ({of.metric}{'' if of.higher_is_better else ', lower is better'})",
                *(_number(of.values[name]) for name in names),
                _number(of.best),
                str(of.n_documents),
            )
            for of in diagnosis.answers
        ),
        "best of all: the best parent on each document, which a perfect merge could reach; right "
        "guesses count",
    )


def _ahead(of: Answers, *, last: bool) -> Table:
    parents = list(of.ahead)
    return Table(
        f"{of.task}: who answers what",
        ("", *(f"not {name}" for name in parents), "alone"),
        tuple(
            (
                name,
                *("" if name == other else f"{of.ahead[name][other]:.1%}" for other in parents),
                f"{of.alone[name]:.1%}",
            )
            for name in parents
        ),
        "the share of documents on which the parent of the row is right and that of the column is "
        "not; on which it is right alone"
        if last
        else "",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def markdown(diagnosis: Diagnosis) -> str:
    """Write a diagnosis as Markdown: advice, differences, tables."""
    return "\n\n".join(_sections(diagnosis)) + "\n"


def _sections(diagnosis: Diagnosis) -> Iterator[str]:
    from tabulate import tabulate

    yield "## Advice"
    yield "\n".join(f"- {advice}" for advice in diagnosis.advice) or NO_ADVICE
    if diagnosis.differences:
        yield "## What the models differ in"
        yield "\n".join(f"- {difference}" for difference in diagnosis.differences)
    for table in tables_of(diagnosis):
        yield f"## {table.title}"
        yield tabulate(table.rows, table.columns, tablefmt="pipe", disable_numparse=True)
        if table.note:
            yield f"{table.note[0].upper()}{table.note[1:]}."


#: What is said where no rule has anything to say.
NO_ADVICE = "No rule finds anything to change."
