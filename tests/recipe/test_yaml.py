"""Recipes as mergekit YAML: what is read, what is written, and what identifies them."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mergesearch.errors import InputError
from mergesearch.methods import METHODS, Parameter
from mergesearch.recipe import ModelPath, Recipe, Source, load_recipe, read_recipe
from mergesearch.recipe import write_recipe as write

MODELS = ["one", "models/two", "org/three@v1", "a+b", "org/c@x+d/lora@y", "../up", "/abs/olute"]
FILTERS = st.sampled_from(["mlp", "self_attn", "*", "layernorm"]) | st.text(max_size=6)


def _number(parameter: Parameter) -> st.SearchStrategy[Any]:
    low, high = max(parameter.low, -1e9), min(parameter.high, 1e9)
    if parameter.kind is bool:
        return st.booleans() | st.sampled_from(parameter.words or (True,))
    if parameter.kind is int:
        return st.integers(int(low), int(high))
    return st.floats(max(low, parameter.above), high, exclude_min=parameter.above >= low)


def _settings(parameter: Parameter) -> st.SearchStrategy[Any]:
    scalar = _number(parameter)
    over_depth = scalar | st.lists(scalar, min_size=1, max_size=3)
    case = st.fixed_dictionaries({"value": over_depth}, optional={"filter": FILTERS})
    return over_depth | case | st.lists(case, min_size=1, max_size=3)


@st.composite
def _parameters(draw: st.DrawFn, method: str, per_model: bool) -> dict[str, Any]:
    rows = [p for p in METHODS[method].parameters if p.per_model or not per_model]
    chosen = draw(st.lists(st.sampled_from(rows), unique=True)) if rows else []
    return {row.name: draw(_settings(row)) for row in chosen}


@st.composite
def _slice(draw: st.DrawFn, method: str, ranged: bool, base: str | None) -> dict[str, Any]:
    low, high = METHODS[method].n_models
    n = draw(st.integers(low, int(min(high, 3))))
    names = [name for name in draw(st.permutations(MODELS)) if name != base][:n]
    if base is not None and draw(st.booleans()):
        names = [base, *names]
    length = draw(st.integers(1, 4))
    sources = []
    for name in names:
        source: dict[str, Any] = {"model": name, "parameters": draw(_parameters(method, True))}
        if ranged:
            first = draw(st.integers(0, 9))
            source["layer_range"] = [first, first + length]
        sources.append(source)
    own = {"parameters": draw(_parameters(method, False))} if ranged else {}
    return {"sources": sources, **own}


SOURCES = st.sampled_from(["base", "union", *MODELS])
ROWS = st.sampled_from(
    [
        *({}, {"force": True}, {"source": {"kind": "zero"}}, {"source": MODELS[0], "force": True}),
        {"source": {"kind": "model_token", "model": MODELS[1], "token": "<x>"}},
        {"source": {"kind": "model_token", "model": MODELS[1], "token_id": 0}},
    ]
)
BLOCKS = st.fixed_dictionaries(
    {"source": SOURCES, "tokens": st.dictionaries(st.text(max_size=3), ROWS, max_size=3)},
    optional={"pad_to_multiple_of": st.integers(1, 64)},
).filter(lambda block: block["tokens"] or "pad_to_multiple_of" in block)
TOKENIZERS: st.SearchStrategy[dict[str, Any]] = (
    st.just({})
    | st.fixed_dictionaries({"tokenizer_source": SOURCES})
    | st.fixed_dictionaries({"tokenizer": BLOCKS})
)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    method = draw(st.sampled_from(sorted(METHODS)))
    base = draw(st.sampled_from(MODELS)) if METHODS[method].needs_base else None
    ranged = draw(st.booleans())
    n_slices = draw(st.integers(1, 3)) if ranged else 1
    return Recipe.model_validate(
        {
            "merge_method": method,
            "slices": [draw(_slice(method, ranged, base)) for _ in range(n_slices)],
            "base_model": base,
            "parameters": draw(_parameters(method, False)),
            "dtype": draw(st.sampled_from([None, "float32", "bfloat16"])),
            "out_dtype": draw(st.sampled_from([None, "float16"])),
            **draw(TOKENIZERS),
            "chat_template": draw(st.none() | st.text(max_size=8).map(lambda s: "{" + s)),
            "seed": draw(st.integers(0, 2**70)),
        }
    )


@settings(max_examples=100, deadline=None)
@given(recipe=recipes())
def test_what_is_written_reads_back_the_same(recipe: Recipe) -> None:
    if not recipe.method.random:
        assert recipe.seed == 0 or "seed" in write(recipe)
    again = read_recipe(write(recipe))
    assert again == recipe
    assert again.hash == recipe.hash
    assert write(again) == write(recipe)


@settings(max_examples=25, deadline=None)
@given(recipe=recipes())
def test_what_is_written_is_plain_yaml_without_our_own_keys(recipe: Recipe) -> None:
    data = yaml.safe_load(write(recipe))
    assert "seed" not in data
    assert ("models" in data) != ("slices" in data)
    assert data["merge_method"] == recipe.merge_method


def test_the_seed_of_a_random_method_is_always_written() -> None:
    recipe = read_recipe(
        "{merge_method: dare_ties, base_model: b, models: [{model: a, parameters: {weight: 1}}]}"
    )
    assert write(recipe).startswith("# mergesearch: {seed: 0}\n")
    assert read_recipe(write(recipe.model_copy(update={"seed": 7}))).seed == 7


LINEAR = """\
merge_method: linear
models:
  - model: one
    parameters: {weight: 1}
  - model: two
    parameters: {weight: 0.1}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("weight: 1}", "weight: 1.0}"),
        ("weight: 0.1}", 'weight: "1e-1"}'),
        ("weight: 0.1}", "weight: 1e-1}"),
        ("merge_method: linear\n", ""),  # given last instead
        ("models:", "parameters: {}\ndtype: null\nmodels:"),
        ("models:", "# a comment\nmodels:"),
    ],
)
def test_the_hash_is_the_same_for_the_same_in_other_words(old: str, new: str) -> None:
    other = LINEAR.replace(old, new)
    if "merge_method" not in other:
        other += "merge_method: linear\n"
    assert other != LINEAR
    assert read_recipe(other).hash == read_recipe(LINEAR).hash


def test_the_hash_does_not_depend_on_the_order_of_parameters_or_the_sign_of_zero() -> None:
    ties = "{{merge_method: ties, base_model: b, models: [{{model: a, parameters: {{{}}}}}]}}"
    same = ["density: 0.5, weight: 0", "weight: 0.0, density: 0.5", "weight: -0.0, density: .5"]
    assert len({read_recipe(ties.format(text)).hash for text in same}) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("weight: 0.1}", "weight: 0.11}"),
        ("weight: 0.1}", "weight: [0.1, 0.1]}"),
        ("weight: 0.1}", "weight: [{filter: mlp, value: 0.1}]}"),
        ("model: two", "model: three"),
        ("model: two", "model: two@main"),
        ("model: two", "model: two+lora"),
        ("models:", "dtype: float32\nmodels:"),
        ("models:", "out_dtype: bfloat16\nmodels:"),
        ("models:", "parameters: {normalize: false}\nmodels:"),
        ("models:", "tokenizer_source: base\nmodels:"),
        ("models:", "tokenizer: {source: union}\nmodels:"),
        ("models:", "tokenizer_source: one\nmodels:"),
        ("models:", "tokenizer: {pad_to_multiple_of: 8}\nmodels:"),
        ("models:", "tokenizer: {tokens: {a: {source: one}}}\nmodels:"),
        ("models:", "# mergesearch: {seed: 1}\nmodels:"),
        ("merge_method: linear", "merge_method: task_arithmetic\nbase_model: one"),
    ],
)
def test_the_hash_differs_for_another_recipe(old: str, new: str) -> None:
    assert read_recipe(LINEAR.replace(old, new)).hash != read_recipe(LINEAR).hash


def test_a_slice_of_whole_models_says_nothing_of_its_own() -> None:
    """mergekit's `models` form has no place for it, so it would be lost in writing."""
    for own in ({"parameters": {"t": 0.9}}, {"base_model": "a"}):
        data = {
            "merge_method": "slerp",
            "base_model": "a",
            "slices": [{"sources": [{"model": "b"}], **own}],
            "parameters": {"t": 0.2},
        }
        with pytest.raises(ValueError, match="give them to the recipe"):
            Recipe.model_validate(data)


def test_merge_keys_of_yaml_are_read() -> None:
    recipe = read_recipe(
        "merge_method: linear\nmodels:\n- &one {model: a, parameters: {weight: 2}}\n"
        "- {<<: *one, model: b}\n"
    )
    assert [dict(source.parameters) for source in recipe.slices[0].sources] == [{"weight": 2.0}] * 2


@pytest.mark.parametrize(
    "text",
    [
        "tokenizer_source: model:one",
        "tokenizer: {source: one}",
        "tokenizer: {source: one, tokens: {}}",
    ],
)
def test_a_named_tokenizer_has_one_spelling(text: str) -> None:
    plain = read_recipe(f"{LINEAR}tokenizer_source: one\n")
    assert read_recipe(f"{LINEAR}{text}\n") == plain
    assert write(plain).splitlines()[1] == "tokenizer_source: one"


def test_every_model_that_a_tokenizer_block_names_moves_with_the_file(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / "models" / name).mkdir(parents=True)
    tokens = "{a: {source: one}, b: {source: {kind: model_token, model: two, token: b}}}"
    (tmp_path / "models" / "r.yaml").write_text(
        f"{LINEAR}tokenizer: {{source: three, tokens: {tokens}}}"
    )
    recipe = load_recipe(tmp_path / "models" / "r.yaml")
    absolute = [str((tmp_path / "models" / name).resolve()) for name in ("three", "one", "two")]
    assert all(f'"{path}"' in str(recipe.tokenizer) for path in absolute)
    written = write(recipe, tmp_path / "out")
    assert str(tmp_path) not in written
    assert "source: ../models/three" in written
    assert read_recipe(written).resolved(tmp_path / "models") == recipe


def test_relative_paths_resolve_against_the_folder_of_the_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("models/one", "adapter", "configs/two"):
        (tmp_path / name).mkdir(parents=True)
    path = tmp_path / "configs" / "recipe.yaml"
    path.write_text(
        "{merge_method: linear, parameters: {weight: 1},"
        " models: [{model: ../models/one+../adapter}, {model: two}, {model: org/hub@v2}]}"
    )
    monkeypatch.chdir("/")
    recipe = load_recipe(path)
    assert [str(ref) for ref in recipe.models] == [
        f"{tmp_path}/models/one+{tmp_path}/adapter",
        f"{tmp_path}/configs/two",
        "org/hub@v2",
    ]
    monkeypatch.chdir(tmp_path)
    assert load_recipe(Path("configs/recipe.yaml")).hash == recipe.hash


def test_one_model_by_two_spellings_is_one_recipe(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    hashes = set()
    for name in ("one", "./one", "one/", str(tmp_path / "one"), "../" + tmp_path.name + "/one"):
        (tmp_path / "r.yaml").write_text(
            f"{{merge_method: passthrough, models: [{{model: {name}}}]}}"
        )
        hashes.add(load_recipe(tmp_path / "r.yaml").hash)
    assert len(hashes) == 1


def test_written_into_a_folder_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "lora").mkdir()
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "r.yaml").write_text(
        "{merge_method: passthrough, models: [{model: models/one+lora}]}"
    )
    recipe = load_recipe(tmp_path / "r.yaml")
    text = write(recipe, tmp_path / "runs" / "x")
    assert str(tmp_path) not in text
    (tmp_path / "runs" / "x" / "r.yaml").write_text(text)
    assert load_recipe(tmp_path / "runs" / "x" / "r.yaml") == recipe


def test_a_folder_whose_path_holds_signs_of_our_own_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "c++ me@home"
    (folder / "one").mkdir(parents=True)
    (folder / "r.yaml").write_text("{merge_method: passthrough, models: [{model: one}]}")
    (ref,) = load_recipe(folder / "r.yaml").models
    assert ref.model.path == os.fspath(folder / "one")
    assert ref.lora is None


@pytest.mark.parametrize("adapter", ["", "lora", "lo+ra", "+@+"])
@pytest.mark.parametrize("model", ["c++/one", "release@v2/one", "a+b", "a@b@c", "+x", "me@", "x+"])
def test_a_model_whose_name_holds_signs_of_our_own_is_the_folder_that_is_there(
    tmp_path: Path, model: str, adapter: str
) -> None:
    for name in (model, adapter, "runs/x"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    text = f"{model}+{adapter}" if adapter else model
    (tmp_path / "r.yaml").write_text(f"{{merge_method: passthrough, models: [{{model: {text}}}]}}")
    recipe = load_recipe(tmp_path / "r.yaml")
    (ref,) = recipe.models
    assert ref.model.path == os.fspath(tmp_path / model)
    assert ref.lora == (ModelPath(path=os.fspath(tmp_path / adapter)) if adapter else None)
    (tmp_path / "runs/x/r.yaml").write_text(write(recipe, tmp_path / "runs/x"))
    assert load_recipe(tmp_path / "runs/x/r.yaml") == recipe


def test_what_is_not_there_is_read_as_a_repository(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    line = "{merge_method: passthrough, models: [{model: org/m@v1+lora}]}"
    (tmp_path / "r.yaml").write_text(line)
    (ref,) = load_recipe(tmp_path / "r.yaml").models
    assert str(ref) == f"org/m@v1+{tmp_path}/lora"


@pytest.mark.parametrize(
    ("text", "message"),
    [("a+b+c", "a model takes one adapter"), ("a@b@c", "no such model folder: .*/a@b@c")],
)
def test_names_that_are_nothing_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(f"{{merge_method: passthrough, models: [{{model: {text}}}]}}")
    with pytest.raises(InputError, match=message):
        load_recipe(tmp_path / "r.yaml")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("{merge_method: passthrough, models: [{model: ./gone}]}")
    with pytest.raises(InputError, match=f"no such model folder: {tmp_path}/gone"):
        load_recipe(tmp_path / "r.yaml")


def test_references_name_revision_and_adapter() -> None:
    (source,) = (
        read_recipe("{merge_method: passthrough, models: [{model: org/m@v1+org/lora@v2}]}")
        .slices[0]
        .sources
    )
    assert (source.model.model.path, source.model.model.revision) == ("org/m", "v1")
    assert source.model.lora is not None
    assert (source.model.lora.path, source.model.lora.revision) == ("org/lora", "v2")
    assert str(source.model) == "org/m@v1+org/lora@v2"
    assert source == Source(model=source.model)


def test_models_lists_every_model_once_and_the_base_first() -> None:
    recipe = read_recipe(
        "{merge_method: ties, base_model: b, parameters: {weight: 1},"
        " models: [{model: x}, {model: b}, {model: y}]}"
    )
    assert [str(ref) for ref in recipe.models] == ["b", "x", "y"]
