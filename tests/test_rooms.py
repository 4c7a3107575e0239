import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mergesearch

PACKAGE = Path(mergesearch.__file__).parent
#: The rooms in import order: each may import those before it.
ROOMS = (
    "errors",
    "files",
    "logs",
    "config",
    "schemas",
    "plugins",
    "runtime",
    "products",
    "requests",
    "methods",
    "scores",
    "recipe",
    "objectives",
    "samplers",
    "tasks",
    "parents",
    "runs",
    "space",
    "merging",
    "calibration",
    "engines",
    "evaluation",
    "learning",
    "diagnosis",
    "workers",
    "searching",
    "report",
    "tracking",
    "exporting",
    "api",
    "integrations",
    "testing",
    "demo",
    "cli",
)
#: Rooms that know less than their place in the order would let them.
ONLY = {
    "scores": {"errors"},
    "requests": set(),
    "tasks": {"errors", "config", "schemas", "logs", "requests", "scores"},
    "engines": {"errors", "config", "logs", "plugins", "runtime", "products", "requests"},
    "evaluation": {"errors", "config", "logs", "runtime", "scores", "tasks", "engines"},
    "objectives": {"plugins", "scores", "recipe"},
    "samplers": {"plugins"},
    "demo": {"errors", "files", "runtime", "space", "tasks"},
}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.stem not in ("__init__", "__main__")
}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(tree: ast.AST, *, everywhere: bool = True) -> Iterator[str]:
    """What a module imports; or only what it imports when it is itself imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif everywhere or not (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ):
            yield from imports(node, everywhere=everywhere)


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_earlier_rooms(module: str) -> None:
    room = room_of(module)
    allowed = ONLY.get(room, set(ROOMS[: ROOMS.index(room)])) | {room}
    for name in imports(parsed(module)):
        if name.split(".")[0] == "mergesearch":
            assert name != "mergesearch", "the package's front door is for its users"
            assert room_of(name) in allowed, f"{module} imports {name}"


def reached_from(start: str) -> set[str]:
    """The modules of the package that importing one of them imports as well."""
    found: set[str] = set()
    todo = [start]
    while todo:
        module = todo.pop()
        known = f"{module}.__init__" if f"{module}.__init__" in MODULES else module
        if known not in MODULES or known in found:
            continue
        found.add(known)
        parents = module.split(".")
        todo += [".".join(parents[:n]) for n in range(2, len(parents))]
        todo += imports(parsed(known), everywhere=False)
    return found


def test_the_report_reaches_torch_through_the_methods_functions_only() -> None:
    reached = reached_from("mergesearch.report")
    assert "mergesearch.scores.scores" in reached
    heavy = {"torch", "transformers", "lm_eval", "optuna", "peft", "safetensors", "datasets"}
    users = {
        module
        for module in reached
        if heavy & {name.split(".")[0] for name in imports(parsed(module), everywhere=False)}
    }
    assert {room_of(module) for module in users} <= {"methods"}


def test_the_report_loads_neither_transformers_nor_lm_eval_nor_optuna() -> None:
    code = "import sys, mergesearch.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"transformers", "lm_eval", "optuna", "peft"} & set(done.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_longer_than_a_reader_can_hold(module: str) -> None:
    assert len(MODULES[module].read_text().splitlines()) <= 400


def test_lm_eval_is_used_in_narrow_places_and_its_private_parts_in_two() -> None:
    users = {
        module
        for module in MODULES
        if any(name.split(".")[0] == "lm_eval" for name in imports(parsed(module)))
    }
    hflm = "mergesearch.engines.torch.hflm"
    assert {room_of(module) for module in users - {hflm}} <= {"tasks", "scores", "integrations"}
    private = {
        module for module in users if any(_is_private(part) for part in _of_others(parsed(module)))
    }
    assert {m for m in private if room_of(m) != "tasks"} <= {hflm}


_ONESELF = {ast.dump(ast.parse(name, mode="eval").body) for name in ("self", "cls")}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _of_others(tree: ast.AST) -> Iterator[str]:
    """The parts of lm-eval's modules that are imported, and attributes of objects but oneself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lm_eval"):
            yield from (node.module or "").split(".")
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.dump(node.value) not in _ONESELF:
            yield node.attr


#: A riddle for a first line: what follows is a clause, and no noun phrase or imperative.
RIDDLES = ("What", "Whether", "How", "Where", "Why", "Which", "When")


def first_lines(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text.splitlines()[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_docstring_begins_with_a_short_line_that_says_it(module: str) -> None:
    lines = list(first_lines(parsed(module)))
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in lines if line.split()[0] in RIDDLES] == []


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_of_one_operating_system_only(module: str) -> None:
    names = {name.split(".")[0] for name in imports(parsed(module))}
    assert not names & {"fcntl", "grp", "msvcrt", "pwd", "resource", "termios"}
