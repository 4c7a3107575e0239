# ruff: noqa: RUF001 - the sign for "times" is meant
"""The figures that pages quote are those of results/."""

import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, median

import pytest

from tests.docs.pages import DOCS, ROOT

RESULTS = ROOT / "results"


def rows(page: Path, head: str) -> list[list[str]]:
    """The cells of a page's table, without its head."""
    lines = page.read_text().split(head, maxsplit=1)[1].split("\n\n", maxsplit=1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_speed_of_scoring() -> None:
    measured = json.loads((RESULTS / "benchmarks" / "evaluate.json").read_text())["works"]
    assert rows(DOCS / "scoring.md", "| requests | documents |") == [
        [
            work["what"],
            str(work["n_documents"]),
            f"{median(work['peer']):.1f} s",
            f"{median(work['candidates']):.1f} s",
            f"{work['speedup']:.1f} ×",
        ]
        for work in measured
    ]


def test_the_goals_of_searches() -> None:
    goals = json.loads((RESULTS / "benchmarks" / "search.json").read_text())["goals"]
    by_family = [{goal["goal"]: goal["reached"] for goal in goals[f]} for f in ("demo", "testbed")]
    shown = rows(DOCS / "benchmarks.md", "| search on fresh seeds |")
    names = {
        "held-out of the winner": "held-out of the winner, mergesearch",
        "the same without labels": "held-out of the winner, without labels",
        "documents to the score": "documents to the score of CMA-ES after 100 evaluations",
        "ahead of the same search": "held-out of the winner above without learning, the least of "
        "all seeds",
        "ahead of CMA-ES": "held-out of the winner above CMA-ES, the least of all seeds",
        "ahead of random": "held-out of the winner above random, the least of all seeds",
        "ahead of TPE": "held-out of the winner above TPE without racing, the least of all seeds",
        "search score less": "search score less held-out of the winner, mergesearch",
    }
    checked = set()
    for what, _, *families in shown:
        (start,) = (start for start in names if what.startswith(start))
        for text, reached in zip(families, by_family, strict=True):
            number = re.search(r"-?\d\.\d+", text)
            assert (number and number[0]) == (
                f"{reached[names[start]]:.3f}" if names[start] in reached else None
            ), what
        checked.add(start)
    assert checked == set(names)


def test_the_real_family() -> None:
    with (RESULTS / "smollm2-three-skills" / "leaderboard.csv").open() as file:
        measured = [row for row in csv.DictReader(file) if "finalist" not in row["model"]]
    tasks = ("sst2_test acc", "trec_test acc", "subj_test acc")
    shown = rows(DOCS / "real-family.md", "| model | development |")
    assert len(shown) == len(measured)
    for (_, development, held_out, *skills), row in zip(shown, measured, strict=True):
        assert development.startswith(f"{float(row['search']):.3f} [")
        total, low, high = (float(row[key]) for key in ("held_out", "low", "high"))
        assert held_out.replace("*", "") == f"{total:.3f} [{low:.3f}, {high:.3f}]"
        assert skills == [f"{float(row[task]):.3f}" for task in tasks]


def test_the_cost_of_merging_where_compare_warns() -> None:
    measured = json.loads((RESULTS / "benchmarks" / "compare.json").read_text())
    wanted = []
    for family, of in measured.items():
        for what, is_named in (("named", True), ("not named", False)):
            some = [row for row in of["rows"] if row["is_named"] == is_named]
            if some:
                nats, accuracy = (mean(row[key] for row in some) for key in ("nats", "accuracy"))
                wanted.append([family, what, str(len(some)), f"{nats:+.4f}", f"{accuracy:+.4f}"])
    assert rows(DOCS / "compare.md", "| family | parts | merges |") == wanted


#: What is learned, and by which loss, as the pages say it.
LEARNED = {
    "a weight for each parent": ("model", "labels"),
    "for each parent and group of tensors": ("block", "labels"),
    "for each parent and third of the depth": ("block", "labels"),
    "for each parent and layer": ("layer", "labels"),
    "for each parent and module": ("tensor", "labels"),
    "the same without labels, imitating the parents": ("tensor", "parents"),
    "a LoRA trained from the base": ("LoRA of rank 16 from the base", "labels"),
    "a LoRA trained from the uniform soup": ("LoRA of rank 16 from the uniform soup", "labels"),
}


@pytest.mark.parametrize(
    ("family", "head", "documents"),
    [
        ("demo", "| learned, demo |", (5, 25, 100)),
        ("testbed", "| learned, SmolLM2-135M |", (5, 25, 100, 500)),
    ],
)
def test_what_is_learned_from_so_many_documents(
    family: str, head: str, documents: tuple[int, ...]
) -> None:
    measured = json.loads((RESULTS / "benchmarks" / f"learning-{family}.json").read_text())["rows"]
    by = {(row["what"], row["loss"], row["n_documents"]): row for row in measured}
    for name, numbers, *cells in rows(DOCS / "benchmarks.md", head):
        found = [by.get((*LEARNED[name.strip("*")], n)) for n in documents]
        assert {f"{row['n_numbers']:,}" for row in found if row} == {numbers}
        shown = ["-" if row is None else f"{row['held_out']:.3f}" for row in found]
        assert [cell.strip("*") for cell in cells] == shown, name


def test_the_methods_of_searches_of_their_own() -> None:
    of_method = defaultdict(list)
    for row in json.loads((RESULTS / "benchmarks" / "methods-demo.json").read_text())["rows"]:
        of_method[row["method"]].append(row)
    shown = rows(DOCS / "benchmarks.md", "| method | searched | at its defaults |")
    for name, *cells in shown:
        runs = of_method[name.strip("`") if "`" in name else "learned"]
        assert len(runs) == 2
        for cell, key in zip(cells, ("held_out", "default_held_out"), strict=True):
            found = [run[key] for run in runs]
            assert cell.strip("*") == ("-" if None in found else f"{mean(found):.3f}"), name


def test_the_methods_of_the_test_bed() -> None:
    measured = json.loads((RESULTS / "benchmarks" / "methods-testbed.json").read_text())["rows"]
    text = (DOCS / "benchmarks.md").read_text().split("three methods were searched", maxsplit=1)[1]
    shown = re.findall(r"`(\w+)`[\w ]* (0\.\d+) and (?:has )?(0\.\d+)", text)
    by_method = {row["method"]: row for row in measured}
    assert len(shown) == 3
    for name, *found in shown:
        row = by_method[name]
        assert found == [f"{row[key]:.3f}" for key in ("held_out", "default_held_out")], name


def test_merges_under_a_budget() -> None:
    measured = json.loads((RESULTS / "benchmarks" / "scale.json").read_text())["rows"]
    text = " ".join((DOCS / "scale.md").read_text().split())
    for row in measured:
        if "live" not in row["program"]:
            peak = f"{row['peak_bytes'] / 1e9:.2f} GB"
            assert re.search(rf"\b{row['seconds']:.0f} s at (a peak of )?{peak}", text), row
