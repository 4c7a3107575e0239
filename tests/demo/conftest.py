from pathlib import Path

import pytest

from mergesearch.demo import build_family


@pytest.fixture(scope="session")
def demo_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family of `mergesearch demo`, trained in full."""
    folder = tmp_path_factory.mktemp("trained") / "family"
    build_family(folder)
    return folder
