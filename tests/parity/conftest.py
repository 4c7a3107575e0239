from pathlib import Path

import pytest

from tests.parity.families import write_families


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every family of models, written once."""
    return write_families(tmp_path_factory.mktemp("models"))
