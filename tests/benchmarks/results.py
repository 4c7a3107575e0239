"""The results of the merge benchmark as data, as JSON and (in `table`) as Markdown."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import mean, median
from typing import Any

from tests.benchmarks.cases import CASES
from tests.benchmarks.peer import Process


@dataclass(frozen=True)
class Row:
    """The times of one method on one family, in seconds."""

    method: str
    bytes_read: int
    bytes_written: int
    #: The first candidate, which fills the caches.
    first: float
    #: Those after it.
    candidates: tuple[float, ...]
    #: Copies of the bytes read and written, each beside a candidate.
    copies: tuple[float, ...]
    #: Copies of the bytes read only.
    input_copies: tuple[float, ...]
    #: mergekit's merge alone, and its whole process; empty where it was not measured.
    peer_alone: tuple[float, ...] = ()
    peer_whole: tuple[float, ...] = ()
    #: The eigendecompositions of the first candidate alone; None where it has none.
    eigenvectors: float | None = None

    @property
    def per_candidate(self) -> float:
        """The figure: the median after the first."""
        return median(self.candidates)

    @property
    def times_copy(self) -> float:
        """A candidate in copies of the same bytes."""
        return self.per_candidate / median(self.copies)

    @property
    def times_input_copy(self) -> float:
        """A candidate in copies of its inputs."""
        return self.per_candidate / median(self.input_copies)

    @property
    def speedup(self) -> float | None:
        """How many times faster than mergekit's merge alone."""
        return median(self.peer_alone) / self.per_candidate if self.peer_alone else None

    @property
    def copies_met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        goal = CASES[self.method].goal
        return None if goal is None else self.times_copy <= goal.copies

    @property
    def first_met(self) -> bool | None:
        """Whether the goal of the first candidate is met; None without one."""
        goal = CASES[self.method].goal
        return None if goal is None or goal.first is None else self.first <= goal.first

    @property
    def peer_met(self) -> bool | None:
        """Whether the goal is met; None without one, or without mergekit."""
        goal = CASES[self.method].goal
        if goal is None or goal.peer is None or self.speedup is None:
            return None
        return self.speedup >= goal.peer

    def summary(self) -> dict[str, Any]:
        """All of it, derived figures included."""
        return {
            **asdict(self),
            "per_candidate": self.per_candidate,
            "times_copy": self.times_copy,
            "times_input_copy": self.times_input_copy,
            "times_faster_than_mergekit_alone": self.speedup,
            "first_goal_met": self.first_met,
            "copies_goal_met": self.copies_met,
            "mergekit_goal_met": self.peer_met,
        }


@dataclass(frozen=True)
class DiskRow:
    """Whole processes that write a checkpoint; none where the program was not there."""

    method: str
    program: str
    runs: tuple[Process, ...]

    @property
    def seconds(self) -> tuple[float, ...]:
        """From start to end."""
        return tuple(run.seconds for run in self.runs)

    @property
    def peak_bytes(self) -> int:
        """The largest of all runs."""
        return max(run.peak_bytes for run in self.runs)


@dataclass(frozen=True)
class BlockRow:
    """The times of candidates that differ from the one before in all blocks, or in one of three."""

    method: str
    whole: tuple[float, ...]
    #: Each block in turn.
    one_block: tuple[float, ...]

    @property
    def part(self) -> float:
        """One block's cost of a whole merge, by the means, since blocks differ in size."""
        return mean(self.one_block) / mean(self.whole)


@dataclass
class FamilyResult:
    """The results on the parents of one dtype."""

    dtype: str
    rows: list[Row] = field(default_factory=list)
    disk: list[DiskRow] = field(default_factory=list)
    blocks: list[BlockRow] = field(default_factory=list)

    def put(self, row: Row) -> None:
        """Add a method's row, in the place of one that is there, in the order of the cases."""
        rows = {**{r.method: r for r in self.rows}, row.method: row}
        self.rows = [rows[method] for method in CASES if method in rows]


@dataclass
class Report:
    """Everything that a run measured."""

    command: str
    machine: dict[str, Any]
    size: str
    families: list[FamilyResult] = field(default_factory=list)

    def family(self, dtype: str) -> FamilyResult:
        """The results on parents of a dtype, empty at first."""
        known = next((family for family in self.families if family.dtype == dtype), None)
        if known is None:
            known = FamilyResult(dtype)
            self.families.append(known)
        return known

    def take(self, folder: Path) -> None:
        """Take over the rows of an earlier run on the same machine."""
        data = json.loads((folder / "merge.json").read_text())
        if (data["machine"], data["size"]) != (self.machine, self.size):
            raise ValueError(f"{folder / 'merge.json'} is of another machine or size")
        for family in data["families"]:
            result = self.family(family["dtype"])
            for row in family["rows"]:
                known = {f.name: _frozen(row[f.name]) for f in fields(Row) if f.name in row}
                result.put(Row(**known))
            result.disk = [
                DiskRow(d["method"], d["program"], tuple(Process(**run) for run in d["runs"]))
                for d in family["to_disk"]
            ]
            result.blocks = [
                BlockRow(b["method"], tuple(b["whole"]), tuple(b["one_block"]))
                for b in family.get("blocks", [])
            ]

    def write(self, folder: Path) -> None:
        """Write merge.json and merge.md."""
        from tests.benchmarks.table import markdown

        data = {
            "command": self.command,
            "machine": self.machine,
            "size": self.size,
            "families": [
                {
                    "dtype": family.dtype,
                    "rows": [row.summary() for row in family.rows],
                    "to_disk": [asdict(row) for row in family.disk],
                    "blocks": [asdict(row) | {"part": row.part} for row in family.blocks],
                }
                for family in self.families
            ],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "merge.json").write_text(json.dumps(data, indent=1) + "\n")
        (folder / "merge.md").write_text(markdown(self))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
