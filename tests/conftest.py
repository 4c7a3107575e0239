import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test needs a network

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from tests import tiny

#: Marks of tests that take long.
LONG = {"slow", "testbed", "training"}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with long tests first, so that none is left to one process at the end."""
    n_tests = Counter(item.path for item in items)
    long = {item.path for item in items if LONG & {mark.name for mark in item.iter_markers()}}
    items.sort(key=lambda item: (item.path not in long, -n_tests[item.path]))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # models this small only lose by sharing their work


@pytest.fixture(scope="session")
def _family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def family(_family: Path, tmp_path: Path) -> Path:
    """A tiny family of the test's own: it may change or break what it likes."""
    return Path(shutil.copytree(_family, tmp_path / "family"))


@pytest.fixture(scope="session")
def _searched(_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mergesearch.api import search
    from mergesearch.space import SearchSpace

    folder = tmp_path_factory.mktemp("searched") / "family"
    shutil.copytree(_family, folder)
    search(SearchSpace.load(folder / "space.yaml"), folder / "run", device="cpu")
    return folder


@pytest.fixture
def searched(_searched: Path, tmp_path: Path) -> Path:
    """A tiny family of the test's own, with a finished search of its space in `run`."""
    return Path(shutil.copytree(_searched, tmp_path / "searched"))
