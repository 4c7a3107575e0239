"""The diagnosis as tables of words, for a terminal, a page or Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from mergesearch.diagnosis.model import Answers, Diagnosis, Pair, Part

#: Pairs of parents that a table has columns for.
_N_PAIRS = 3


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and the number that it is sorted by."""

    text: str
    #: None where it is sorted as text.
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """One table, its first columns the name of each row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    #: The meaning of its numbers, in sentences; that of tables alike is said once, by the last.
    note: str

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Tell of each column whether its cells are numbers."""
        columns = range(len(self.columns))
        return tuple(any(row[n].number is not None for row in self.rows) for n in columns)


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
        if several:
            found.append(_agreement(several))
    return tuple(found)


def _deltas(diagnosis: Diagnosis, rows: list[tuple[str, Part]]) -> Table:
    columns = [column for name in diagnosis.parents for column in (name, f"{name}, rank")]
    return Table(
        "What fine-tuning changed",
        ("", *columns),
        tuple(
            (Cell(name), *(cell for p in diagnosis.parents for cell in _delta(part, p)))
            for name, part in rows
        ),
        "The norm of each parent's delta beside the base's, and its effective rank.",
    )


def _delta(part: Part, parent: str) -> tuple[Cell, Cell]:
    if not part.deltas[parent]:
        return Cell("-"), Cell("-")
    return _cell(part.size(parent), ".2%"), _cell(part.ranks[parent], ".1f")


def _pairs(diagnosis: Diagnosis, rows: list[tuple[str, Part]]) -> Table:
    # the few entries of norms point anywhere
    rows = [(name, part) for name, part in rows if any(p.overlap is not None for p in part.pairs)]
    pairs = list(combinations(diagnosis.parents, 2))
    cut = len(pairs) > _N_PAIRS
    if cut:
        pairs.sort(key=lambda pair: -_largest_overlap(rows, *pair))
    more = f" {_N_PAIRS} of {len(pairs)} pairs, those of the largest overlap." if cut else ""
    return Table(
        "How the changes lie to each other",
        ("", "parents", "cosine", "opposite signs", "overlap", "by chance"),
        tuple(
            (Cell(name), Cell(" and ".join(pair)), *_pair(part.pair(*pair)))
            for name, part in rows
            for pair in pairs[:_N_PAIRS]
        ),
        "The cosine between two deltas; the share of opposite signs among the entries that are "
        "among the largest fifth of both, 50 % by chance; the overlap of the inputs that the two "
        f"respond to, and what deltas of their ranks have by chance.{more}",
    )


def _largest_overlap(rows: list[tuple[str, Part]], first: str, second: str) -> float:
    return max((part.pair(first, second).overlap or 0.0 for _, part in rows), default=0.0)


def _pair(pair: Pair) -> tuple[Cell, ...]:
    if pair.cosine is None:
        return (Cell("-"),) * 4
    return (
        _cell(pair.cosine, "+.3f"),
        _cell(pair.conflict, ".0%"),
        _cell(pair.overlap, ".1%"),
        _cell(pair.chance, ".1%"),
    )


def _tasks(diagnosis: Diagnosis) -> Table:
    names = list(diagnosis.answers[0].values)
    return Table(
        "What the parents answer",
        ("task", *names, "best of all", "documents"),
        tuple(
            (
                Cell(
                    f"{of.task} ({of.metric}{'' if of.higher_is_better else ', lower is better'})"
                ),
                *(_cell(of.values[name], ".3f") for name in names),
                _cell(of.best, ".3f"),
                _cell(of.n_documents, ""),
            )
            for of in diagnosis.answers
        ),
        "Best of all: the best parent on each document, which a perfect merge could reach; right "
        "guesses count.",
    )


def _ahead(of: Answers, *, last: bool) -> Table:
    parents = list(of.ahead)
    return Table(
        f"{of.task}: who answers what",
        ("", *(f"not {name}" for name in parents), "alone"),
        tuple(
            (
                Cell(name),
                *(
                    Cell("") if name == other else _cell(of.ahead[name][other], ".1%")
                    for other in parents
                ),
                _cell(of.alone[name], ".1%"),
            )
            for name in parents
        ),
        "The share of documents on which the parent of the row is right and that of the column is "
        "not; on which it is right alone."
        if last
        else "",
    )


def _agreement(several: Sequence[Answers]) -> Table:
    return Table(
        "How far the parents agree",
        ("task", "parents", "agreement"),
        tuple(
            (Cell(of.task), Cell(" and ".join(pair)), _cell(of.agreement(*pair), ".1%"))
            for of in several
            for pair in combinations(of.ahead, 2)
        ),
        "The share of documents on which two parents are equally right: where they agree on nearly "
        "all, one adds little to the other.",
    )


def _cell(value: float | None, form: str) -> Cell:
    return Cell("-") if value is None else Cell(format(value, form), float(value))


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
        rows = [[cell.text for cell in row] for row in table.rows]
        aligned = ["right" if numeric else "left" for numeric in table.numeric]
        yield tabulate(
            rows, table.columns, tablefmt="pipe", disable_numparse=True, colalign=aligned
        )
        if table.note:
            yield table.note


#: What is said where no rule has anything to say.
NO_ADVICE = "No rule finds anything to change."
