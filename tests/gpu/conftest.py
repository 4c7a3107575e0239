"""What runs on a GPU, by `make test-gpu`; nothing of it says anything about a CPU."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks.testbed import PREPARE, lay_out

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = None
    if not torch.cuda.is_available():
        missing = "there is no GPU"
    elif not PREPARE.exists():
        missing = "the test bed does not lie beside the project"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test bed's base model, adapters and tasks."""
    return lay_out(tmp_path_factory.mktemp("gpu") / "bed")
