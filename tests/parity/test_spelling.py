"""Configurations as mergekit's users have them are the same models here."""

from pathlib import Path

import pytest

from mergesearch import load_recipe, merge
from tests.parity.families import weights
from tests.parity.peer import needs_mergekit, run_mergekit
from tests.parity.test_mergekit import assert_equal

pytestmark = needs_mergekit

_MODELS = """\
merge_method: ties
base_model: plain/base
models:
- model: plain/one
  parameters: {weight: 0.8, density: 0.5}
- model: plain/two
  parameters: {weight: 0.4, density: 0.5}
dtype: float32
"""
_SLICES = """\
merge_method: task_arithmetic
base_model: plain/base
dtype: float32
parameters: {int8_mask: 1.0, normalize: 1.0}
slices:
- merge_method: task_arithmetic
  sources:
  - {model: plain/one, layer_range: [0, 1], parameters: {weight: 0.8}}
  - {model: plain/two, layer_range: [0, 1], parameters: {weight: 0.4}}
  - {model: plain/base, layer_range: [0, 1]}
- sources:
  - {model: plain/one, layer_range: [1, 4], parameters: {weight: 0.3}}
  - {model: plain/two, layer_range: [1, 4], parameters: {weight: 0.6}}
  - {model: plain/base, layer_range: [1, 4]}
"""
_SLERP = """\
merge_method: slerp
base_model: plain/one
dtype: float32
parameters: {t: 0.5}
slices:
"""
#: An output head of one model alone.
_HEAD = f"""\
{_SLERP}- sources:
  - {{model: plain/one, layer_range: [0, 4]}}
  - {{model: plain/two, layer_range: [0, 4]}}
- sources:
  - {{model: plain/one, layer_range: [4, 4]}}
  - {{model: plain/two, layer_range: [4, 4]}}
  parameters: {{t: 0}}
"""
#: Embeddings of one model alone.
_EMBEDDINGS = f"""\
{_SLERP}- sources:
  - {{model: plain/one, layer_range: [0, 0]}}
  - {{model: plain/two, layer_range: [0, 0]}}
  parameters: {{t: 0}}
- sources:
  - {{model: plain/one, layer_range: [0, 4]}}
  - {{model: plain/two, layer_range: [0, 4]}}
"""

WRITTEN = {
    "as mergekit-evolve writes it": _SLICES,
    "a switch that is off as a number": _SLICES.replace("normalize: 1.0", "normalize: 0.0"),
    "a genome's key": _SLICES + "allow_negative_weights: true\n",
    "a switch in words": _MODELS + 'parameters: {normalize: "true"}\n',
    "old parameters and names": _MODELS
    + "parameters: {normalize: false, embed_slerp: true}\nname: mine\nrandom_seed: 3\n",
    "layers of whole models": _MODELS.replace(
        "- model: plain/one", "- model: plain/one\n  layer_range: [1, 2]"
    ),
    "a head by a slice of no layers": _HEAD,
    "embeddings by a slice of no layers": _EMBEDDINGS,
}


@pytest.fixture(scope="module")
def folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside which every configuration has been run by mergekit."""
    out = tmp_path_factory.mktemp("spelling")
    (out / "plain").symlink_to(models / "plain")
    return out


@pytest.fixture(scope="module")
def theirs(folder: Path) -> dict[str, Path]:
    """What mergekit wrote for each."""
    texts = [text.replace("plain/", "../plain/") for text in WRITTEN.values()]
    found = run_mergekit(texts, folder / "theirs")
    assert [error for _, error in found if error] == []
    return {name: path for name, (path, _) in zip(WRITTEN, found, strict=True)}


@pytest.mark.parametrize("name", WRITTEN)
def test_mergekit_gives_our_tensors(folder: Path, theirs: dict[str, Path], name: str) -> None:
    path = folder / f"{name}.yaml"
    path.write_text(WRITTEN[name])
    merge(load_recipe(path), folder / name)
    assert_equal(weights(folder / name), weights(theirs[name]))


@pytest.mark.parametrize(
    ("text", "name"), [(_HEAD, "model.norm.weight"), (_EMBEDDINGS, "model.embed_tokens.weight")]
)
def test_an_empty_slice_gives_what_lies_outside_the_layers(
    folder: Path, tmp_path: Path, text: str, name: str
) -> None:
    (folder / "r.yaml").write_text(text)
    merge(load_recipe(folder / "r.yaml"), tmp_path / "out")
    merged, one, two = map(
        weights, (tmp_path / "out", *(folder / "plain" / n for n in ("one", "two")))
    )
    assert (merged[name] == one[name]).all()
    inside = "model.layers.1.mlp.up_proj.weight"
    assert (merged[inside] != one[inside]).any() and (one[name] != two[name]).any()
