import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

import mergesearch

CHECKOUT = Path(mergesearch.__file__).parents[1]
FOREIGN = Path(__file__).parent / "foreign"
#: The package that the documentation shows: one row of each table.
SHOWN = Path(__file__).parents[2] / "docs" / "examples" / "plugin"


@dataclass(frozen=True)
class Environment:
    """A throw-away environment with the foreign package, and what this one has."""

    python: Path
    #: A copy of the foreign package, with its own tests.
    package: Path

    def run(self, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """`python *arguments` in the environment."""
        hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_ADDOPTS")
        variables = {k: v for k, v in os.environ.items() if k not in hidden}
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment, made without a network: packages of this one are seen through a `.pth`."""
    folder = tmp_path_factory.mktemp("plugins")
    package = Path(shutil.copytree(FOREIGN, folder / "foreign"))
    shown = Path(shutil.copytree(SHOWN, folder / "shown"))
    venv.create(folder / "env", with_pip=False, symlinks=os.name != "nt")
    scheme = {"base": str(folder / "env"), "platbase": str(folder / "env")}
    site = Path(sysconfig.get_path("purelib", "venv", scheme))
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "outer.pth").write_text("\n".join([str(CHECKOUT), *sorted(here)]))
    python = Path(sysconfig.get_path("scripts", "venv", scheme)) / Path(sys.executable).name
    install = [
        sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
        "--no-build-isolation", "--no-index", "--disable-pip-version-check",
        str(package), str(shown),
    ]  # fmt: skip
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Environment(python, package)
