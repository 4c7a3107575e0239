"""Plots as files, the tables behind them, and Optuna's dashboard."""

import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution

from mergesearch.errors import InputError
from mergesearch.recipe import read_recipe
from mergesearch.report import RunView, write_page
from mergesearch.report.coefficients import OTHERS, coefficients, spread
from mergesearch.report.dashboard import annotated
from mergesearch.report.plots import PLOTS, write_plot, writing
from mergesearch.report.plots.style import whole_ticks
from mergesearch.report.plots.table import figure_of
from mergesearch.scores import DocumentScore, Scores, TaskId, TaskScore, largest_changes, summary
from tests.cli.conftest import Cli, cli
from tests.report.hand_made import Model, right
from tests.report.runs import run_of, trials

__all__ = ["cli"]

RECIPE = """
merge_method: task_arithmetic
base_model: models/base
models:
- model: models/one
  parameters:
    weight:
    - {filter: self_attn, value: [0.0, 1.0, 3.0]}
    - {filter: embed_tokens, value: 9.0}
    - {value: 0.5}
- {model: models/two, parameters: {weight: 0.25}}
"""


def name_of(model: object) -> str:
    return str(model).rpartition("/")[2]


def test_coefficients_are_a_table_for_each_parent() -> None:
    found = coefficients(read_recipe(RECIPE), name_of)
    assert found is not None and found.parameter == "weight"
    assert (found.groups, found.n_layers) == (("self_attn", OTHERS), 3)
    assert found.tables["one"].tolist() == [[0.0, 1.0, 3.0], [0.5, 0.5, 0.5]]
    assert found.tables["two"].tolist() == [[0.25] * 3] * 2


def test_the_spread_is_that_of_the_recipes_on_the_same_layers() -> None:
    one = read_recipe(RECIPE)
    other = read_recipe(RECIPE.replace("0.25", "0.75").replace("[0.0, 1.0, 3.0]", "[2.0, 5.0]"))
    found = coefficients(one, name_of)
    assert found is not None
    tables = spread([one, other], found, name_of)
    assert np.allclose(tables["two"], 0.25)
    assert np.allclose(tables["one"][0], [1.0, 1.25, 1.0])  # 2, 3.5 and 5 beside 0, 1 and 3
    assert spread([one], found, name_of) == {}


def test_layers_that_a_parent_gives_alone_are_no_others() -> None:
    text = """
    merge_method: passthrough
    slices:
    - sources: [{model: models/one, layer_range: [0, 2], parameters: {scale: 0.5}}]
    - sources: [{model: models/two, layer_range: [1, 2]}]
    """
    found = coefficients(read_recipe(text), name_of)
    if found is not None:  # where a copy has a scale by tensor
        assert found.n_layers == 3


def test_the_largest_changes_are_half_gains_and_half_losses() -> None:
    id_ = TaskId("t", "acc", "none", True, "mean", fingerprint="f")

    def scores(values: list[tuple[float, float]]) -> Scores:
        documents = {i: DocumentScore(*pair) for i, pair in enumerate(values)}
        return Scores((TaskScore(id_, 1.0, **summary("mean", documents)),))

    ours = scores([(1.0, 2.0), (1.0, 3.0), (1.0, 4.0), (0.0, -1.0), (1.0, 1.0)])
    theirs = scores([(0.0, -1.0), (0.0, -1.0), (0.0, -1.0), (1.0, 1.0), (1.0, 1.0)])
    assert [c.doc_id for c in largest_changes(ours, theirs, 2)] == [2, 3]
    assert [c.value for c in largest_changes(ours, theirs)] == [1.0, 1.0, 1.0, -1.0]


@pytest.mark.parametrize("kind", [k for k in PLOTS if k != "front"])
def test_each_plot_is_drawn(tmp_path: Path, kind: str, cli: Cli) -> None:
    run = run_of(tmp_path / "run", 8)
    said = cli("plot", run, "--kind", kind, "--format", "html")
    assert said.out.strip() == str(run / f"{kind}.html"), said.err
    assert PLOTS[kind].title in (run / f"{kind}.html").read_text()


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 2)
    with pytest.raises(InputError, match="nothing to draw as front: that needs several objectives"):
        write_plot(run, "front", tmp_path / "p.html", "html")
    with pytest.raises(InputError, match="unknown plot 'histroy'; did you mean 'history'"):
        write_plot(run, "histroy", tmp_path / "p.html", "html")
    assert not (tmp_path / "p.html").exists()


def test_a_picture_without_kaleido_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(InputError, match=r"png needs the package kaleido; pip install 'merge"):
        write_plot(run_of(tmp_path / "run", 2), "history", tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()


def test_whole_numbers_are_ticked_at_whole_numbers() -> None:
    assert whole_ticks(0, 0) == {"tick0": 0, "dtick": 1, "tickformat": ",d"}  # of one layer
    assert whole_ticks(1, 3)["dtick"] == 1 and whole_ticks(0, 47)["dtick"] == 5


def test_a_parameter_of_whole_numbers_has_whole_labels(tmp_path: Path) -> None:
    view = RunView.of(run_of(tmp_path / "run", 8))
    study = optuna.create_study()
    whole = IntDistribution(1, 3)
    for n, trial in enumerate(trials(8, view.record.recipe_hashes[0])):
        params = {"weight.0": trial.params["weight.0"], "layers.in_a_block": 1 + n % 3}
        of = {"weight.0": trial.distributions["weight.0"], "layers.in_a_block": whole}
        study.add_trial(
            optuna.trial.create_trial(
                value=trial.value, params=params, distributions=of, user_attrs=trial.user_attrs
            )
        )
    vars(view)["method_study"] = study
    drawn = PLOTS["parallel"].draw(view)
    assert drawn is not None
    (x,) = [n for n, text in enumerate(drawn.layout.xaxis.ticktext) if "in_a" in text]
    labels = [a.text for a in drawn.layout.annotations if a.x == x]
    assert labels == ["1", "2", "3"]
    assert drawn.layout.xaxis.ticktext[x] == "layers.in_a_<br>block"
    assert all(a.font.color is None for a in drawn.layout.annotations)
    slices = PLOTS["slices"].draw(view)
    assert slices is not None
    ticks = {axis.title.text: axis.dtick for axis in slices.select_xaxes()}
    assert ticks["layers.in_a_<br>block"] == 1 and ticks["weight.0"] is None


def test_a_file_says_its_format_by_its_ending(tmp_path: Path, cli: Cli) -> None:
    run = run_of(tmp_path / "run", 2)
    write_plot(run, "history", tmp_path / "p.html")
    assert "<html>" in (tmp_path / "p.html").read_text()
    said = cli("plot", run, "--out", tmp_path / "p.svg", "--format", "html")
    assert said.code == 2 and said.err == (
        "mergesearch: a file that ends in .svg is not written as html; name it p.html, or leave "
        "--format out\n"
    )
    assert not (tmp_path / "p.svg").exists()


def test_a_picture_is_of_its_files_format_and_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def picture(figure: object, form: str) -> bytes:
        drawn.append(form)
        return b"drawn"

    monkeypatch.setattr(writing, "_picture", picture)
    run = run_of(tmp_path / "run", 2)
    for name in ("p.svg", "p.png", "p"):
        write_plot(run, "history", tmp_path / name)
    assert drawn == ["svg", "png", "png"]
    with pytest.raises(InputError, match=r"cannot write .*p\.svg: No such file or directory"):
        write_plot(run, "history", tmp_path / "no" / "dir" / "p.svg")


@pytest.mark.parametrize("verb", ["report", "plot"])
def test_optuna_has_nothing_to_say(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], verb: str
) -> None:
    run = run_of(tmp_path / "run", 8)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    if verb == "report":
        write_page([run])
    else:
        write_plot(run, "parallel", tmp_path / "p.html")
    assert "A new study" not in "".join(capfd.readouterr())


def test_a_torn_line_is_dropped_from_the_dashboards_copy(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    run = run_of(tmp_path / "run", 8)
    journal, copy = run / "journal.log", tmp_path / "copy"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    copy.mkdir()
    assert len(annotated(RunView.of(run), copy).get_trials()) == 8


@pytest.mark.parametrize("place", [3, -1])
def test_a_damaged_journal_is_one_line(tmp_path: Path, place: int) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    run = run_of(tmp_path / "run", 8)
    lines = (run / "journal.log").read_bytes().splitlines(keepends=True)
    lines[place] = b'{"op_code": 4,\n'
    (run / "journal.log").write_bytes(b"".join(lines))
    (tmp_path / "copy").mkdir()
    with pytest.raises(InputError, match=r"journal\.log is damaged: a line of it is no operation"):
        annotated(RunView.of(run), tmp_path / "copy")


def test_an_emptied_record_is_one_line(tmp_path: Path, cli: Cli) -> None:
    run = run_of(tmp_path / "run", 5)
    record = run / "record.jsonl"
    first, *_ = record.read_text().splitlines(keepends=True)
    for left in ("", first):
        record.write_text(left)
        said = cli("report", run, "--out", tmp_path / "page.html")
        assert (said.code, said.out) == (2, "")
        assert said.err.count("\n") == 1 and "record.jsonl has no candidate " in said.err


def test_a_trial_that_ended_while_the_run_was_read_is_not_in_it(tmp_path: Path) -> None:
    run = RunView.of(run_of(tmp_path / "run", 5))
    assert run.study is not None
    run.study.add_trial(next(trials(1, "0" * 64)))
    assert len(run.trials) == 5


def test_the_dashboard_has_notes_and_plots_in_a_copy(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    run = run_of(tmp_path / "run", 8)
    before = (run / "journal.log").read_bytes()
    (tmp_path / "copy").mkdir()
    study = annotated(RunView.of(run), tmp_path / "copy")
    notes = study._storage.get_study_system_attrs(study._study_id)
    text = "".join(str(value) for value in notes.values())
    assert "merge_method: linear" in text and "The winner beats the best parent, one" in text
    assert "history" in "".join(notes)
    assert len(study.get_trials()) == 8 and isinstance(study, optuna.Study)
    assert (run / "journal.log").read_bytes() == before


def test_a_title_has_room_of_its_own(tmp_path: Path) -> None:
    run = RunView.of(run_of(tmp_path / "run", 8))
    for kind in ("history", "coefficients", "tasks"):
        plain, titled = PLOTS[kind].draw(run), figure_of(run, kind)
        assert plain is not None
        room = titled.layout.height - plain.layout.height
        assert titled.layout.margin.t - plain.layout.margin.t == room > titled.layout.title.pad.t
        legend = titled.layout.legend
        assert (legend.yref, legend.yanchor) == ("container", "top")
        assert legend.y * titled.layout.height == pytest.approx(titled.layout.height - room)


def test_finalists_that_were_not_chosen_are_one_kind(tmp_path: Path) -> None:
    models: list[Model] = [
        ("winner", "winner", right(90), right(80)),
        ("one", "parent", right(60), right(50)),
        *((f"finalist {n}", "finalist", right(90 - n), right(80 - n)) for n in (2, 3)),
    ]
    run = RunView.of(run_of(tmp_path / "run", 2, models))
    trust, tasks = PLOTS["trust"].draw(run), PLOTS["tasks"].draw(run)
    assert trust is not None and tasks is not None
    assert [dots.name for dots in trust.data] == ["equal", "winner", "one", "other finalists"]
    _, winner, parent, finalists = trust.data
    assert list(finalists.text) == ["finalist 2", "finalist 3"]
    assert finalists.marker.color == winner.marker.color != parent.marker.color
    assert finalists.marker.symbol == "circle-open"
    assert [bars.name for bars in tasks.data] == ["winner", "one"]


def test_names_below_slices_are_broken_into_lines(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 8)
    journal = (run / "journal.log").read_text()
    name = "weight.successor.0.self_attn"
    (run / "journal.log").write_text(journal.replace("weight.1", name))
    drawn = figure_of(RunView.of(run), "slices")
    titles = [axis.title.text for axis in drawn.select_xaxes()]
    assert "weight.<br>successor.0.<br>self_attn" in titles
