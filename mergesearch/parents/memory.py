"""The memory plan: which parents are kept in which memory, under a budget."""

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass

from mergesearch.errors import InputError
from mergesearch.parents.footprint import Footprint

#: "host", "device", or the name of one of several devices, such as "cuda:1".
Memory = str
#: A memory; or "mapped": read from the file, used and released.
Residence = str


@dataclass(frozen=True)
class MemoryRow:
    """One line of a memory plan."""

    what: str
    n_bytes: int
    residence: Residence

    @property
    def memory(self) -> Memory:
        """The memory that the bytes are of; mapped pages in use are the host's."""
        return "host" if self.residence == "mapped" else self.residence


@dataclass(frozen=True)
class MemoryPlan:
    """Everything that is resident at the peak of a run, by where it is."""

    rows: tuple[MemoryRow, ...]
    #: Of each parent, in their order.
    residences: tuple[Residence, ...]
    budgets: Mapping[Memory, int]

    @property
    def peak_bytes(self) -> int:
        """The most host memory that the process holds, `spare("host")` aside."""
        return self.peak("host")

    @property
    def budget(self) -> int:
        """The host memory that the process may hold, in bytes."""
        return self.budgets["host"]

    def peak(self, memory: Memory) -> int:
        """Sum the rows of one memory, in bytes."""
        return sum(row.n_bytes for row in self.rows if row.memory == memory)

    def spare(self, memory: Memory) -> int:
        """Count the bytes that the budget leaves, for what is remembered of tensors."""
        return self.budgets[memory] - self.peak(memory)

    def lines(self, of: str = "") -> list[str]:
        """Lay the plan out as a table for the terminal; the title says of whom it is."""
        heads = [
            f"peak {_gb(self.peak(memory))} of a budget of {_gb(budget)}{_on(memory)}"
            for memory, budget in self.budgets.items()
        ]
        width = max(len(row.what) for row in self.rows)
        table = [
            f"  {row.what:{width}}  {_gb(row.n_bytes):>10}  {row.residence}" for row in self.rows
        ]
        return [f"memory plan{of}: {', '.join(heads)}", *table]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def plan_memory(
    parents: Sequence[Footprint],
    others: Sequence[MemoryRow],
    budgets: Mapping[Memory, int],
    *,
    keep: bool = True,
) -> MemoryPlan:
    """Keep as many parents as fit: the first, then the small before the large.

    The first is the base, which is read for every tensor. What does not fit the device is kept on
    the host, and what does not fit there is streamed. The walk ends at the first parent that does
    not fit, so that a larger budget never keeps fewer.

    Args:
        parents: the parents, the base first.
        others: what is held wherever parents are kept; the first is listed before the parents.
        budgets: the bytes that may be held in host memory, and on a device that has its own, or on
            each of several, where no parent is kept.
        keep: whether any parent may be kept.

    Raises:
        InputError: a budget is too small even if every parent is streamed.
    """
    streamed = [MemoryRow(parent.name, parent.streamed, "mapped") for parent in parents]
    nowhere: list[Residence] = ["mapped"] * len(parents)
    least = MemoryPlan((*others, *streamed), tuple(nowhere), budgets)
    spare: dict[Memory, int] = {memory: least.spare(memory) for memory in budgets}
    for memory in budgets:
        if spare[memory] < 0:
            raise _too_small(least, memory)
    rows = dict(enumerate(streamed))
    base = parents[0].kept.keys()
    todo = sorted(rows, key=lambda i: (i > 0, _cost(parents[i], base)))
    held: set[Hashable] = set()
    memories: list[Memory] = [memory for memory in ("device", "host") if memory in budgets]
    for memory in memories:
        while todo and keep:
            parent = parents[todo[0]]
            cost = _cost(parent, held)
            freed = parent.streamed if memory == "host" else 0
            if cost > spare[memory] + freed:
                break
            spare[memory] -= cost
            spare["host"] += parent.streamed
            held |= parent.kept.keys()
            rows[todo.pop(0)] = MemoryRow(parent.name, cost, memory)
    residences = tuple(row.residence for row in rows.values())
    others = [row for row in others if row.n_bytes]
    return MemoryPlan((*others[:1], *rows.values(), *others[1:]), residences, budgets)


def _cost(parent: Footprint, held: Set[Hashable]) -> int:
    """Count what a parent takes besides what is held already, in bytes."""
    return sum(parent.kept[key] for key in parent.kept.keys() - held)


def _too_small(least: MemoryPlan, memory: Memory) -> InputError:
    parts = ", ".join(
        f"{row.what} {_gb(row.n_bytes)}"
        for row in least.rows
        if row.memory == memory and row.n_bytes
    )
    remedy = "raise the budget, or merge fewer or smaller models"
    if memory not in ("host", "device"):
        remedy = "spread the model over more devices (devices_per_worker)"
    return InputError(
        f"what a merge holds{_on(memory)} while it streams every model must fit the memory budget, "
        f"got {_gb(least.peak(memory))} ({parts}) for a budget of {_gb(least.budgets[memory])}; "
        f"{remedy}"
    )


def _on(memory: Memory) -> str:
    """Say where a memory is, but for the host's."""
    return "" if memory == "host" else f" on {'the device' if memory == 'device' else memory}"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
