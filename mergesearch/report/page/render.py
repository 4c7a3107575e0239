"""The page: contexts of its sections, put into the template."""

import json
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergesearch.files import write_whole
from mergesearch.recipe import ModelRef, Recipe, write_recipe
from mergesearch.report.entries import caution, path_labels, ranked
from mergesearch.report.page.assets import asset, packed_plotly, script_json
from mergesearch.report.page.board import board
from mergesearch.report.page.contrast import examples, matrices
from mergesearch.report.page.diagnosis import findings_of
from mergesearch.report.page.facts import cuts, ending, fingerprints, hashes, origins, spent
from mergesearch.report.plots import PLOTS
from mergesearch.report.run import RunView
from mergesearch.report.verdict import verdict_lines

if TYPE_CHECKING:
    from jinja2 import Template

#: The page's name in a run's folder.
PAGE = "report.html"
#: Seconds after which a page of a search under way loads itself again.
_RELOAD = 10


def page(
    runs: Sequence[Path], *, live: bool = False, texts: bool = True, paths: bool = True
) -> str:
    """Write the page of one run or several as HTML.

    Args:
        runs: their folders, each once.
        live: the page loads itself again every few seconds.
        texts: with the documents of largest change in words; without, it quotes no data set.
        paths: with folders and commands as they are on this disk; without, models are called by
            their names in the space, and the run by that of its folder.

    Raises:
        InputError: one is no run folder, or is damaged.
    """
    labels = path_labels(run.resolve() for run in runs)
    views = [RunView.of(run, labels[run.resolve()]) for run in runs]
    entries = ranked([entry for view in views for entry in view.entries])
    figures: dict[str, Any] = {}
    sections = [_section(n, view, figures, texts, paths) for n, view in enumerate(views, start=1)]
    return _template().render(
        title=", ".join(view.label for view in views),
        runs=sections,
        board=board(entries) if len(runs) > 1 else None,
        reload=_RELOAD if live else 0,
        figures={name: script_json(figure.to_json()) for name, figure in figures.items()},
        plotly=packed_plotly(),
        asset=asset,
    )


def write_page(
    runs: Sequence[Path], out: Path | None = None, *, live: bool = False, texts: bool = True
) -> Path:
    """Write the page of runs into a file, which is whole at any time.

    Args:
        runs: their folders.
        out: the file; in the first run's folder if none is named.
        live: as for `page`.
        texts: likewise.

    Returns:
        The file.

    Raises:
        InputError: one is no run folder, or the file cannot be written.
    """
    path = out or runs[0] / PAGE
    text = page(runs, live=live, texts=texts)
    # folders' names may have bytes that are no UTF-8, and a page has none
    write_whole(path, text.encode(errors="replace").decode())
    return path


def _section(
    n: int, run: RunView, figures: dict[str, Any], texts: bool, paths: bool
) -> dict[str, Any]:
    """Gather what the template says of a run, its figures among the page's."""
    heights: dict[str, int] = {}
    for kind, plot in PLOTS.items():
        if (figure := plot.draw(run)) is not None:
            figures[f"run-{n}-{kind}"] = figure
            heights[kind] = figure.layout.height
    recipe, warning = run.best_recipe, caution(list(run.entries))
    place = str(run.folder) if paths else run.label
    folder = shlex.quote(place)
    best = run.best_trials[0] if run.best_trials else None
    which = "" if run.merge or best is None else f" --trial {best.number}"
    return {
        "id": f"run-{n}",
        "run": run,
        "caution": warning,
        "verdict": [line for line in verdict_lines(list(run.entries)) if line != warning],
        "best": best,
        "recipe": _recipe(run, recipe, paths) if recipe else None,
        "recipe_hash": recipe.hash[:12] if recipe else None,
        "in_mergekit": bool(recipe and not recipe.beyond_mergekit),
        "export": f"mergesearch export {folder}{which}",
        "exported": json.dumps(f"{place}/export/top-1", ensure_ascii=False),
        "board": board(list(run.entries)) if run.entries else None,
        "heights": heights,
        "top": _best(run),
        "spent": spent(run),
        "ending": ending(run),
        "matrices": matrices(run),
        "examples": examples(run) if texts else {},
        "texts": texts,
        "cuts": [(c.model, c.split, c.task, f"{100 * c.share:.1f}") for c in cuts(run)],
        "origins": origins(run, commands=paths),
        "hashes": hashes(run),
        "tasks": fingerprints(run),
        "diagnosis": findings_of(run.folder),
    }


def _recipe(run: RunView, recipe: Recipe, paths: bool) -> str:
    """Write a recipe with the paths of its models, or with their names."""

    def named(ref: ModelRef) -> ModelRef:
        is_here = ref.model.is_local or (ref.lora is not None and ref.lora.is_local)
        return ModelRef.model_validate(run.name_of(ref)) if is_here else ref

    return write_recipe(recipe if paths else recipe.with_paths(named), run.folder)


def _best(run: RunView, n: int = 10) -> list[tuple[Any, ...]]:
    """List the best trials: number, method, score, share of the documents."""
    return [(t.number, t.method, f"{t.score:.4f}", f"{t.share:.2f}") for t in run.best_trials[:n]]


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mergesearch.report.page", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
