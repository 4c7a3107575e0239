"""Cells of tables on the terminal."""

from mergesearch.scores import Interval


def bounds(interval: Interval | None) -> str:
    """Write an interval as `[low, high]`; nothing where there is none."""
    return f"[{interval.low:.3f}, {interval.high:.3f}]" if interval else ""
