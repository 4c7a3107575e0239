"""mergekit-multi 0.1.5 gives the tensors that we give of several documents in one file."""

import os
from pathlib import Path

from mergesearch import merge
from tests import tiny
from tests.parity.families import weights
from tests.parity.peer import needs_mergekit, run_script
from tests.parity.test_vocabulary import assert_close

pytestmark = needs_mergekit

STAGES = """
name: pair
merge_method: linear
dtype: float32
models:
  - {{model: {0}/one, parameters: {{weight: 0.3}}}}
  - {{model: {0}/two, parameters: {{weight: 0.7}}}}
---
merge_method: ties
base_model: {0}/base
dtype: float32
models:
  - {{model: pair, parameters: {{weight: 0.8, density: 0.6}}}}
  - {{model: third, parameters: {{weight: 0.5, density: 0.7}}}}
---
name: third
merge_method: slerp
base_model: pair
dtype: float32
models: [{{model: pair}}, {{model: {0}/two}}]
parameters: {{t: 0.4}}
"""


MULTI = """
from mergekit.scripts.multimerge import main
main()
"""


def run_multi(file: Path, out: Path) -> None:
    """Run mergekit-multi in the folder of its file."""
    options: list[str | Path] = [
        "--out-path",
        out,
        "-I",
        f"{out}-stages",
        "--no-write-model-card",
        "--quiet",
    ]
    run_script(MULTI, file, *options, folder=file.parent)


def test_a_file_of_stages_gives_what_mergekit_multi_gives(tmp_path: Path) -> None:
    base = tiny.llama(tmp_path / "models" / "base", 0)
    for i, name in enumerate(("one", "two"), start=1):
        tiny.llama(tmp_path / "models" / name, i, base=base)
    file = tmp_path / "stages.yaml"
    file.write_text(STAGES.format(tmp_path / "models"))
    run_multi(file, tmp_path / "theirs")
    merge(file, tmp_path / "ours")
    ours, theirs = weights(tmp_path / "ours"), weights(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert_close(ours[name], expected)
    # what lies beside the weights is the whole file, for both
    again = tmp_path / "ours" / "mergekit_config.yml"
    run_multi(again, tmp_path / "again")
    for name, tensor in weights(tmp_path / "again").items():
        assert_close(tensor, ours[name])
    assert not any(entry.name.startswith(".") for entry in os.scandir(tmp_path))
