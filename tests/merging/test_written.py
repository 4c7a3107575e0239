"""Only tensors that change are written: a candidate is the same, whatever the model was before."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import CandidateError
from mergesearch.merging import LiveModel, build, digest_of, kernel, merge_into, plan_merge
from mergesearch.merging.plan import Job
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe, read_recipe
from tests import tiny
from tests.merging import recipes
from tests.merging.test_conversion import make

CPU = torch.device("cpu")
#: Weights by block of layers and by the kind of matrix.
BLOCKS = """{note}
merge_method: {method}
base_model: base
models:
  - {{model: one, parameters: {{weight: [{a}, {b}, {b}], density: 0.5}}}}
  - model: two
    parameters: {{weight: [{{filter: mlp, value: {c}}}, {{value: 0.4}}], density: 0.5}}
"""
#: NaN or infinite in a layer that is not the first.
TOO_LARGE = """
merge_method: task_arithmetic
dtype: float16
base_model: base
models: [{model: one, parameters: {weight: [{filter: layers.1, value: 1.0e+30}, {value: 0.5}]}}]
"""
#: What is learned in between.
LEARNED = BLOCKS.format(note="", method="task_arithmetic", a=0.2, b=0.3, c=0.4)
METHODS = st.sampled_from(["task_arithmetic", "ties", "dare_linear"])
NUMBERS = st.sampled_from(["0.3", "0.0", "-0.0", "0.7"])
CANDIDATES = st.builds(
    BLOCKS.format,
    note=st.sampled_from(["", "# mergesearch: {seed: 5}"]),
    method=METHODS,
    a=NUMBERS,
    b=NUMBERS,
    c=NUMBERS,
)
#: What becomes of a model besides: a failure half-way, a lesson, and parents' tensors in its place.
OTHERS = {
    "mixtral": [TOO_LARGE, "learn"],
    "llama": [TOO_LARGE, "learn", recipes.STACK.format(p="")],
}


def written(live: LiveModel, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the tensors that are written when a model becomes a recipe's."""
    names = set()
    merge_tensor = kernel.merge_tensor

    def counting(job: Job, *arguments: object, **more: object) -> None:
        names.add(job.name)
        merge_tensor(job, *arguments, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(kernel, "merge_tensor", counting)
        live.become(recipe)
    return names


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for seed, name in enumerate(("base", "one", "two")):
        make(folder / "mixtral" / name, "mixtral", seed)
        tiny.llama(folder / "llama" / name, seed, base=folder / "llama/base" if seed else None)
    return folder


@pytest.mark.parametrize("kind", OTHERS)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_a_candidate_is_the_same_whatever_the_model_was(
    kinds: Path, kind: str, data: st.DataObject
) -> None:
    start = read_recipe(LEARNED).resolved(kinds / kind)
    parents = Parents(start.models)
    live, other = LiveModel(parents, CPU), build(plan_merge(start, parents), CPU)
    steps = st.lists(CANDIDATES | st.sampled_from(OTHERS[kind]), min_size=2, max_size=8)
    for step in data.draw(steps):
        if step == "learn":
            with live.learnable(plan_merge(start, parents)) as learnable:
                learnable.model(input_ids=torch.tensor([[4, 5, 6]])).logits.sum().backward()
            continue
        recipe = read_recipe(step).resolved(kinds / kind)
        if step == TOO_LARGE:
            with pytest.raises(CandidateError):
                live.become(recipe)
            continue
        assert live.become(recipe) == digest_of(recipe, parents)
        if not live.plan.is_stack:
            merge_into(other, recipe, parents)
            theirs = other.state_dict()
            for name, tensor in live.model.state_dict().items():
                assert torch.equal(tensor, theirs[name]), name


def test_tensors_that_stay_are_not_written(kinds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(**changes: str) -> Recipe:
        text = BLOCKS.format(
            **{"note": "", "method": "ties", "a": 0.2, "b": 0.3, "c": 0.4, **changes}
        )
        return read_recipe(text).resolved(kinds / "llama")

    parents = Parents(read().models)
    live = LiveModel(parents, CPU)
    assert len(written(live, read(), monkeypatch)) == len(plan_merge(read(), parents).jobs)
    assert not written(live, read(), monkeypatch)
    assert not written(
        live, read(note="# mergesearch: {seed: 5}"), monkeypatch
    )  # of no random method
    names = written(live, read(c="0.5"), monkeypatch)
    assert names == {n for n in live.plan.shapes if ".mlp." in n}


def test_experts_are_written_together(kinds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(weight: str) -> Recipe:
        text = """
        merge_method: linear
        models:
        - {model: one, parameters: {weight: [{filter: %s, value: 0.2}, {value: 0.6}]}}
        - {model: two, parameters: {weight: 0.5}}
        """
        return read_recipe(text % weight).resolved(kinds / "mixtral")

    parents = Parents(read("w1").models)
    live = LiveModel(parents, CPU)
    live.become(read("layers.0.block_sparse_moe.experts.3.w1"))
    names = written(live, read("layers.0.block_sparse_moe.experts.2.w1"), monkeypatch)
    assert names == {n for n in live.plan.shapes if "layers.0" in n and ("w1" in n or "w3" in n)}
