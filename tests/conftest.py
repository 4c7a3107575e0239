import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test needs a network

import shutil
from pathlib import Path

import pytest
import torch

from tests import tiny


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def _family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def family(_family: Path, tmp_path: Path) -> Path:
    """A tiny family of the test's own: it may change or break what it likes."""
    return Path(shutil.copytree(_family, tmp_path / "family"))
