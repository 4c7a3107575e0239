"""The verdict on a run's winner."""

from mergesearch.errors import InputError
from mergesearch.report.entries import Entry, caution
from mergesearch.scores import Interval, paired_difference


def verdict(entries: list[Entry]) -> str:
    """Say by how much a run's best merge beats its best parent and its uniform soup.

    It begins with a caution where the run was searched on a benchmark's test set, and ends with
    how many models are on the front of a search for several objectives.
    """
    return " ".join(verdict_lines(entries))


def verdict_lines(entries: list[Entry]) -> list[str]:
    """Say the verdict sentence by sentence, the caution first if there is one."""
    scored = [entry for entry in entries if entry.deciding]
    by_role = ([e for e in scored if e.role == role] for role in ("winner", "learned", "soup"))
    merges = next((entries for entries in by_role if entries), [])
    parents = [e for e in scored if e.role in ("parent", "base")]
    lines = [caution(entries)]
    if merges and parents:
        best = merges[0]
        if best.broken:
            lines.append(
                "No finalist keeps every constraint on the whole search split: the winner breaks "
                f"{' and '.join(best.broken)}."
            )
        rivals = [parents[0], *(e for e in scored if e.label == "uniform soup" and e is not best)]
        lines += [_comparison(best, rival) for rival in rivals]
        if n := sum(entry.role == "front" for entry in entries):
            lines.append(f"{n + 1} models are on the front of {' and '.join(best.objectives)}.")
    else:
        lines.append("Nothing to compare yet: the run has no judged winner.")
    return [line for line in lines if line]


def _comparison(best: Entry, rival: Entry) -> str:
    assert best.deciding and rival.deciding
    kind = "held-out" if best.held_out and rival.held_out else "the search split"
    name = f"the best parent, {rival.label}," if rival.role == "parent" else f"the {rival.label}"
    try:
        difference = _lead(best, rival)
    except InputError as error:
        ahead = f"{best.deciding.total - rival.deciding.total:+.3f}"
        name = name.rstrip(",")
        return f"The {best.label} is {ahead} from {name} on {kind}, beyond noise or not: {error}."
    numbers = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] on {kind}"
    if difference.low > 0:
        return f"The {best.label} beats {name} by {numbers}."
    if difference.high < 0:
        return f"The {best.label} is WORSE than {name.rstrip(',')}: {numbers}."
    return f"The {best.label} does NOT beat {name} beyond noise: {numbers}."


def _lead(best: Entry, rival: Entry) -> Interval:
    """Return the paired difference of two models' deciding scores.

    Raises:
        InputError: a task's own aggregation is out of reach.
    """
    if best.resampled and rival.resampled:
        return best.resampled.lead_over(rival.resampled)
    assert best.deciding and rival.deciding
    return paired_difference(best.deciding, rival.deciding)
