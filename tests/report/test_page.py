"""The page of a run, as text: its numbers, what it escapes, and its size."""

import ast
import html
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mergesearch.diagnosis import Advice, Diagnosis, Pair, Part, tables_of
from mergesearch.errors import InputError
from mergesearch.report import RunView, entries_of, leaderboard, page, write_page
from mergesearch.report.page import LivePage, render
from mergesearch.report.page.facts import spent
from mergesearch.runs import PassEntry, Record
from mergesearch.searching import Limit
from tests.cli.conftest import Cli, cli
from tests.report.hand_made import Model, make_run, right
from tests.report.runs import MODELS, ODD, run_of, with_texts
from tests.searching.watch import RecordingObserver

__all__ = ["cli"]

SECTIONS = ("verdict", "leaderboard", "search", "coefficients", "documents", "parameters", "trust")


class Tables(HTMLParser):
    """The rows of each table of a page by its id: of each cell the text and the exact value."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self._rows: list[list[tuple[str, str | None]]] = []
        self._cell: tuple[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "table":
            self._rows = self.tables.setdefault(given.get("id") or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = ("", given.get("data-value"))

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell = (self._cell[0] + data, self._cell[1])

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self._rows[-1].append((self._cell[0].strip(), self._cell[1]))
            self._cell = None


def test_the_numbers_of_the_page_are_those_of_the_leaderboard(searched: Path) -> None:
    run = searched / "run"
    head, *rows = Tables(page([run])).tables["run-1-board"]
    names = [text for text, _ in head]
    models = json.loads(leaderboard(entries_of(run), "json"))
    assert [row[0][0] for row in rows] == [model["model"] for model in models]
    for row, model in zip(rows, models, strict=True):
        cells = dict(zip(names, row, strict=True))
        for column, split in (("search", "search"), ("held-out", "held_out")):
            shown, scores = cells[column][1], model[split]
            assert (None if shown is None else float(shown)) == (scores and scores["total"])
            for task, of in (scores or {"tasks": {}})["tasks"].items():
                assert float(cells[f"{task} {of['metric']}"][1] or "nan") == of["value"]
        low, high = model["interval_95"]
        assert cells["95 % interval"] == (f"[{low:.3f}, {high:.3f}]", str(low))
        assert cells["recipe"][0] == model["recipe_hash"][:12]


def test_a_search_leaves_a_page_with_texts_and_its_origin(searched: Path) -> None:
    text = (searched / "run" / "report.html").read_text()
    assert [name for name in SECTIONS if f'id="run-1-{name}"' not in text] == []
    assert "The search ended: the budget of 8 trials is spent." in text
    assert "documents of largest change, winner against" in text
    assert "They are spoilt once read" in text
    assert re.search(r"<dt>Versions</dt><dd>python [\d.]+", text)
    assert "http-equiv" not in text and "data-reload" not in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)


def test_texts_can_be_left_out(searched: Path, cli: Cli) -> None:
    out = searched / "public.html"
    assert cli("report", searched / "run", "--no-texts", "--out", out).out.strip() == str(out)
    assert "spoilt once read" not in out.read_text()
    assert 'class="document"' not in out.read_text()


def test_names_and_texts_are_escaped(tmp_path: Path) -> None:
    models: list[Model] = [(ODD, "winner", right(90), right(80)), *MODELS[1:]]
    run = run_of(tmp_path / "run", 6, models)
    with_texts(run, ODD, "one", ODD)
    text = page([run])
    assert "<script>document.title" not in text
    assert "&lt;/script&gt;&lt;script&gt;document.title" in text and "🦙" in text
    for figure in re.findall(r'data-figure="[\w-]+">(.*?)</script>', text, re.DOTALL):
        assert json.loads(figure)["data"]


def test_two_thousand_trials_are_under_five_megabytes(tmp_path: Path) -> None:
    path = write_page([run_of(tmp_path / "run", 2_000)])
    assert path.stat().st_size < 5_000_000


def test_a_run_of_one_trial(tmp_path: Path) -> None:
    text = page([run_of(tmp_path / "run", 1)])
    assert "Too little to say: that needs four scored trials" in text
    assert 'data-plot="run-1-history"' in text


def killed(run: Path) -> Path:
    """A finished run as a kill would have left it before its end."""
    lines = (run / "record.jsonl").read_text().splitlines(keepends=True)
    confirmed = next(i for i, line in enumerate(lines) if '"kind": "best"' in line)
    stopped = next(i for i, line in enumerate(lines) if '"kind": "stop"' in line)
    (run / "record.jsonl").write_text("".join(lines[: min(confirmed, stopped)]) + '{"kind": "ca')
    return run


def test_a_run_that_was_killed_half_way(searched: Path) -> None:
    run = killed(searched / "run")
    text = page([run], live=True)
    assert "Nothing is confirmed yet. The best trial so far is number" in text
    assert "The search is under way, or was interrupted" in text
    assert f"mergesearch export {run} --trial" in text
    assert '<body data-reload="10">' in text


def test_a_run_without_a_journal_has_its_trials_all_the_same(searched: Path) -> None:
    (searched / "run" / "journal.log").unlink()
    text = page([searched / "run"])
    assert 'data-plot="run-1-history"' in text
    assert "four scored trials of one method, and the search" in text


def test_several_runs_have_one_leaderboard_and_a_part_each(tmp_path: Path, cli: Cli) -> None:
    runs = [make_run(tmp_path / parent / "run", MODELS) for parent in "ab"]
    out = tmp_path / "page.html"
    assert cli("report", *runs, runs[0], "--out", out).code == 0
    tables = Tables(out.read_text()).tables
    assert {row[0][0] for row in tables["all-runs-board"][1:]} == {"a/run", "b/run"}
    assert 'id="run-2-trust"' in out.read_text() and 'id="run-3-trust"' not in out.read_text()


def test_what_is_no_run_is_one_line_and_writes_nothing(tmp_path: Path, cli: Cli) -> None:
    said = cli("report", tmp_path, "--out", tmp_path / "page.html")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("mergesearch: ") and "is no run folder" in said.err
    assert not (tmp_path / "page.html").exists()


def test_a_diagnosis_in_the_folder_is_a_section(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", MODELS)
    assert "run-1-diagnosis" not in page([run])
    pair = Pair(first="one", second="<b>", cosine=0.25, shared=4, opposite=2, overlap=0.5)
    part = Part(
        layer=0,
        group="mlp",
        n_entries=9,
        base=10.0,
        deltas={"one": 1.0, "<b>": 0.5},
        ranks={"one": 2.0, "<b>": 1.0},
        pairs=(pair,),
    )
    found = Diagnosis(
        parents=("one", "<b>"),
        n_layers=1,
        blocks=((0, 1),),
        parts=(part,),
        differences=("rope_theta is 1e4 (one), 1e6 (<b>)",),
        advice=(Advice(rule="conflict", text="one & <b> conflict in the mlp"),),
    )
    (run / "diagnosis.json").write_text(found.to_json())
    text = page([run])
    assert "one &amp; &lt;b&gt; conflict in the mlp" in text
    assert all(table.title in text for table in tables_of(found))
    assert "<li>rope_theta is 1e4 (one), 1e6 (&lt;b&gt;)</li>" in text
    assert '<a href="#run-1-diagnosis">Diagnosis</a>' in text
    assert '<td class="number" data-value="0.1">10.00%</td>' in text
    (run / "diagnosis.json").write_text("{}")
    with pytest.raises(InputError, match=r"diagnosis\.json"):
        page([run])


def test_hashes_are_short_and_whole_in_a_title(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", MODELS)
    text = page([run])
    for recipe_hash in Record(run, writable=False).recipe_hashes:
        assert f'title="{recipe_hash}">{recipe_hash[:12]}</td>' in text


def test_a_long_recipe_has_its_button_beside_the_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", MODELS)
    assert "<details><summary>50 lines</summary>" not in page([run])
    monkeypatch.setattr(render, "write_recipe", lambda *_: "# line\n" * 50)
    code = re.search(r'<div class="code">.*?</div>', page([run]), re.DOTALL)
    assert code is not None
    assert 0 < code[0].index("</button>") < code[0].index("<details><summary>50 lines</summary>")


def test_answers_in_learning_are_a_part_of_those_that_trials_took(searched: Path) -> None:
    run = RunView.of(searched / "run")
    entry = PassEntry("key", "h", 1, {}, 300, 1, 1.0)
    run.record.add_pass(entry)
    with_trials = dict(spent(run))
    assert with_trials["of which in learning"] == "300" and "Documents answered" in with_trials
    (searched / "run" / "journal.log").unlink()
    alone = dict(spent(RunView.of(searched / "run")))
    assert alone["Answers in learning"] == "300" and "Documents answered" not in alone


def test_a_stop_holds_until_there_is_another_trial(searched: Path) -> None:
    record = Record(searched / "run")
    assert record.stop_reason == "the budget of 8 trials is spent"
    record.add_trial(record.trials[-1].__class__(99, "linear", None, None, error="none"))
    assert record.stop_reason is None


def test_a_run_is_shown_without_its_models(tmp_path: Path, cli: Cli) -> None:
    run = run_of(tmp_path / "run", 6)
    before = entries_of(run)
    shutil.rmtree(tmp_path / "models")
    assert [e.recipe.hash for e in entries_of(run)] == [e.recipe.hash for e in before]
    for command in ("leaderboard", "report", "status"):
        assert cli(command, run).code == 0
    assert "../models/winner" in page([run])
    exported = cli("export", run)
    assert (exported.code, exported.err.count("\n")) == (2, 1)
    assert "no such model folder" in exported.err


def test_code_and_names_are_whole_whatever_is_in_them(tmp_path: Path) -> None:
    name = "long " * 20
    models: list[Model] = [
        ("winner", "winner", right(90), right(80)),
        (name, "parent", right(1), right(1)),
    ]
    text = html.unescape(page([make_run(tmp_path / 'a "quoted" run', models)]))
    place = re.search(r"AutoTokenizer\.from_pretrained\((.*)\)", text)
    assert place is not None
    assert ast.literal_eval(place[1]) == str(tmp_path / 'a "quoted" run' / "export" / "top-1")
    assert f'title="{name}"' in text


def test_a_page_that_cannot_be_written_does_not_stop_its_search(tmp_path: Path) -> None:
    run, observer = run_of(tmp_path / "run", 6), RecordingObserver()
    (run / "report.html").mkdir()
    trial = Record(run, writable=False).trials[0]
    LivePage(run, observer).trial(trial, Limit("trials", 1, 6), 0.5)
    assert observer.trials == [trial]
    assert len(observer.stages) == 1 and observer.stages[0].startswith("no page for now: cannot")


def test_a_folder_whose_name_is_no_utf8_has_a_page(tmp_path: Path) -> None:
    run = run_of(tmp_path / os.fsdecode(b"caf\xe9"), 3)
    assert "<h1>caf?" in write_page([run]).read_text()
