"""Tiny relatives with prompts of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mergesearch.recipe import Recipe, read_recipe
from tests import tiny

#: Texts of one's and of two's, none as long as another, and one of them in both.
ONE = [f"w1 w2 w3 w{i} w5" + " w6" * (i % 4) for i in range(10)]
TWO = [f"w7 w{i} w9 w{27 - i}" + " w4" * (i % 3) for i in range(8)] + ONE[:1]

OfMethod = Callable[..., Recipe]


@pytest.fixture(scope="session")
def relatives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `models/base`, `models/one`, `models/two`; `one.txt` and `two.txt`."""
    folder = tmp_path_factory.mktemp("relatives")
    base = tiny.llama(folder / "models" / "base", 0)
    for seed, name in enumerate(("one", "two"), start=1):
        tiny.llama(folder / "models" / name, seed, base=base)
    (folder / "one.txt").write_text("\n".join(ONE))
    (folder / "two.txt").write_text("\n".join(TWO))
    return folder


@pytest.fixture
def of_method(relatives: Path) -> OfMethod:
    """A recipe of one and two by a method, with their prompts."""

    def make(name: str, more: str = "") -> Recipe:
        return read_recipe(
            f"{{merge_method: {name}, models: [{{model: models/one}}, {{model: models/two}}], "
            f"calibration: {{models/one: one.txt, models/two: two.txt}}{more}}}"
        ).resolved(relatives)

    return make
