import shutil
from pathlib import Path

import pytest

from tests import tiny
from tests.cli.conftest import cli
from tests.docs.pages import EXAMPLES

__all__ = ["cli"]


@pytest.fixture(scope="session")
def _documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documented")
    base = tiny.llama(folder / "models" / "smollm2-135m", 0)
    tiny.llama(folder / "models" / "questions", 1, base=base)
    tiny.adapter(folder / "adapters" / "sst2", base, 2)
    for seed, name in enumerate(("sst2_dev", "sst2_test")):
        tiny.task(folder / "tasks", name, seed=seed)
    for file in EXAMPLES.glob("*.yaml"):
        shutil.copy(file, folder)
    (folder / "questions.jsonl").write_text('{"prompt": "w1 w2"}\n{"prompt": "w3 w4"}\n')
    space = folder / "space.yaml"
    space.write_text(space.read_text().replace("trials: 100", "trials: 6"))  # a test's patience
    return folder


@pytest.fixture
def documented(_documented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the pages' examples name, tiny; the working directory."""
    folder = Path(shutil.copytree(_documented, tmp_path / "documented"))
    monkeypatch.chdir(folder)
    return folder
