# ruff: noqa: RUF001 - the sign for "times" is meant
"""Hooks of the site's build: pages from beside docs/, and tables that are made of the code's own.

Pages link to files beside docs/ as they do in the repository (`../results/benchmarks/search.md`),
so that links hold there and on the site.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mergesearch.methods import METHODS, REQUIRED, Method, Parameter

if TYPE_CHECKING:
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
#: What the site shows of the files beside docs/.
BESIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "evals/*.yaml",
    "results/*/*.csv",
    "results/*/*.md",
    "results/*/*.svg",
    "results/*/*.yaml",
    "search_spaces/*.yaml",
)
#: Pages that are linked from others, and in no menu.
UNLISTED = ("results/smollm2-three-skills/leaderboard.md",)


def on_files(files: "Files", config: Any) -> "Files":
    """Add the files from beside docs/ under their own paths."""
    from mkdocs.structure.files import File, InclusionLevel

    for path in beside():
        name = path.relative_to(ROOT).as_posix()
        level = InclusionLevel.NOT_IN_NAV if name in UNLISTED else InclusionLevel.UNDEFINED
        files.append(File.generated(config, name, abs_src_path=str(path), inclusion=level))
    return files


def on_page_markdown(markdown: str, page: "Page", **_: Any) -> str:
    """Fill in the tables, and turn links to files beside docs/ into those of the site."""
    source = page.file.src_uri
    if source == "methods.md":
        markdown = markdown.replace("<!-- table of methods -->", methods_table())
        markdown = markdown.replace("<!-- table of parameters -->", parameters_table())
    if source.startswith("results/"):
        return markdown
    return markdown.replace("](../", "](").replace("](docs/", "](")


def beside() -> list[Path]:
    """List the files beside docs/ that the site shows."""
    return [path for pattern in BESIDE for path in sorted(ROOT.glob(pattern))]


def methods_table() -> str:
    """Make a row for each method: its use, its parameters, and how it was measured.

    Raises:
        KeyError: docs/methods.yaml has no line for a method.
    """
    uses = yaml.safe_load((DOCS / "methods.yaml").read_text())
    float32, bfloat16 = (figures(dtype) for dtype in ("float32", "bfloat16"))
    head = ("method", "what it does", "parameters", "beside mergekit", "float32", "bfloat16")
    return table(
        head,
        (
            (
                f"`{name}`",
                f"{uses[name]} ({source(method)})",
                ", ".join(f"`{p.name}`" for p in method.parameters) or "none",
                parity(method),
                float32.get(name, "-"),
                bfloat16.get(name, "-"),
            )
            for name, method in METHODS.items()
        ),
    )


def parameters_table() -> str:
    """Make a row for each declaration of a parameter, with the methods that share it."""
    sharing: dict[Parameter, list[str]] = {}
    for name, method in METHODS.items():
        for parameter in method.parameters:
            sharing.setdefault(parameter, []).append(name)
    rows = sorted(sharing.items(), key=lambda item: item[0].name)
    head = ("parameter", "for", "values", "default", "searched", "methods")
    return table(
        head,
        (
            (
                f"`{p.name}`",
                "each model" if p.per_model else "the merge",
                values(p),
                default(p),
                searched(p),
                ", ".join(f"`{name}`" for name in names),
            )
            for p, names in rows
        ),
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a Markdown table."""
    cells = [list(head), *(list(row) for row in rows)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]])


def source(method: Method) -> str:
    """Name where a method comes from, as a link where there is a paper."""
    scheme, _, name = method.source.partition(":")
    hosts = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
    return f"[{name}]({hosts[scheme]}{name})" if scheme in hosts else method.source


def parity(method: Method) -> str:
    """Say how a method's tensors compare with mergekit's, as tests/parity holds them."""
    if not method.in_mergekit:
        return "-"
    return "in distribution" if method.random else "≤ 1e-6"


def figures(dtype: str) -> dict[str, str]:
    """Give seconds of one more candidate, and how many copies of its bytes that is, by method."""
    measured = json.loads((ROOT / "results" / "benchmarks" / "merge.json").read_text())
    rows = next(family["rows"] for family in measured["families"] if family["dtype"] == dtype)
    return {
        row["method"]: _unbroken(f"{row['per_candidate']:.2f} s, {row['times_copy']:.1f} ×")
        for row in rows
    }


def _unbroken(text: str) -> str:
    """Keep a text on one line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def values(parameter: Parameter) -> str:
    """Say which values a parameter may take."""
    words = [f"`{word}`" for word in parameter.words]
    if parameter.kind is bool:
        return ", ".join(["`true`", "`false`", *words])
    kind = "whole numbers" if parameter.kind is int else "numbers"
    bounded = parameter.interval != Parameter("any").interval
    interval = _unbroken(parameter.interval.replace("inf", "∞"))
    return f"{kind} in {interval}" if bounded else f"any {kind.removesuffix('s')}"


def default(parameter: Parameter) -> str:
    """Say what holds where a recipe leaves a parameter out."""
    if parameter.default is REQUIRED:
        return "none: must be given"
    return "-" if parameter.default is None else f"`{yaml_word(parameter.default)}`"


def searched(parameter: Parameter) -> str:
    """Say what a search tries where the space gives no range."""
    return "".join(_searched(parameter)) or "-"


def _searched(parameter: Parameter) -> Iterator[str]:
    if parameter.search is not None:
        yield _unbroken("[{:g}, {:g}]".format(*parameter.search))
    elif parameter.choices:
        yield ", ".join(f"`{yaml_word(choice)}`" for choice in parameter.choices)
    if parameter.by_block:
        yield ", by block and group"


def yaml_word(value: bool | float | str) -> str:
    """Write a value as YAML does."""
    return str(value).lower() if isinstance(value, bool) else str(value)
