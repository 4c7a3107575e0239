"""Leaderboards as comma-separated values."""

import csv
import io

from mergesearch.report.columns import columns_of, heads, is_missing, rows_of
from mergesearch.report.entries import Entry


def to_csv(entries: list[Entry]) -> str:
    """Write the table in full precision; a cell without a value is empty."""
    rows, marked, text = rows_of(entries), heads(entries), io.StringIO()
    names = columns_of(rows)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([marked.get(name, name) for name in names])
    for row in rows:
        values = (row.get(name) for name in names)
        writer.writerow(["" if is_missing(value) else value for value in values])
    return text.getvalue()
