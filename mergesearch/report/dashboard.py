"""Optuna's dashboard on a copy of a run's journal, with notes and plots."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mergesearch.errors import InputError
from mergesearch.files import drop_torn_line
from mergesearch.recipe import write_recipe
from mergesearch.report.plots import PLOTS
from mergesearch.report.run import JOURNAL, RunView, damaged
from mergesearch.report.verdict import verdict
from mergesearch.runs import TrialRecord

if TYPE_CHECKING:
    import optuna

_HOST = "127.0.0.1"


def serve(run: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve a run's trials until the process is interrupted.

    The journal is copied first: a run has one writer, and notes are written.

    Args:
        run: the run's folder.
        port: on this machine; 0 takes a free one.
        say: is told the address.

    Raises:
        InputError: optuna-dashboard is not installed, the folder is no run's or has no journal, or
            the port is taken, or the journal is damaged.
    """
    try:
        import optuna_dashboard
    except ImportError:
        raise InputError(
            "the dashboard needs the package optuna-dashboard; pip install 'mergesearch[dashboard]'"
        ) from None
    from wsgiref.simple_server import make_server

    with TemporaryDirectory() as folder:
        study = annotated(RunView.of(run), Path(folder))
        application = optuna_dashboard.wsgi(study._storage)
        try:
            server = make_server(_HOST, port, application)
        except OSError as error:
            raise InputError(
                f"cannot serve on port {port}: {error.strerror}; name another by --port"
            ) from None
        with server:
            say(f"http://{_HOST}:{server.server_port}/ shows {run}; Ctrl-C ends it")
            server.serve_forever()


def annotated(run: RunView, folder: Path) -> "optuna.Study":
    """Copy a run's study into a folder, with a note a trial and the page's plots.

    Raises:
        InputError: the run's folder has no journal with trials.
    """
    from optuna_dashboard import save_note, save_plotly_graph_object

    if run.study is None:
        raise InputError(
            f"{run.folder} has no journal of a search: search its space, or open what --storage "
            "named by optuna-dashboard itself"
        )
    shutil.copy(run.folder / JOURNAL, folder / JOURNAL)
    drop_torn_line(folder / JOURNAL)  # of a search under way, or one that was killed
    study = RunView(folder, run.label, run.record, run.entries, run.space).study
    assert study is not None, "a copy has what it was copied from"
    try:
        save_note(study, f"{verdict(list(run.entries))}\n")
    except ValueError:  # Optuna passes over a last line that it cannot read, until there is another
        raise damaged(run.folder / JOURNAL) from None
    records = {trial.number: trial for trial in run.trials}
    for trial in study.get_trials(deepcopy=False):
        if trial.number in records:
            save_note(trial_of(study, trial), _note(run, records[trial.number]))
    for kind, plot in PLOTS.items():
        if (figure := plot.draw(run)) is not None:
            figure.update_layout(title_text=plot.title)
            save_plotly_graph_object(study, figure, graph_object_id=kind)
    return study


def trial_of(study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> "optuna.Trial":
    """Give an ended trial as notes are written to it."""
    import optuna

    return optuna.Trial(study, trial._trial_id)


def _note(run: RunView, trial: TrialRecord) -> str:
    """Write what the run knows of a trial in Markdown: scores by task, and the recipe."""
    if trial.recipe_hash is None:
        return f"Failed: {trial.error}\n"
    digest = run.record.digest_of(trial.recipe_hash) or ""
    scores = run.record.scores(digest, "search")
    lines = [f"{trial.method}, {trial.share * 100:.0f} % of the documents", ""]
    if scores is not None:
        lines += ["| task | value |", "|:--|:--|"]
        lines += [f"| {t.id.task} {t.id.metric} | {t.value:.4f} |" for t in scores.tasks]
        lines.append("")
    recipe = write_recipe(run.record.recipe(trial.recipe_hash), run.folder)
    return "\n".join([*lines, "```yaml", recipe.rstrip(), "```", ""])
