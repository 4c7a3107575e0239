"""A wrong recipe is one clear line, whatever is wrong with it."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mergesearch.errors import InputError
from mergesearch.recipe import Recipe, load_recipe, read_recipe

ONE = "models: [{model: a, parameters: {weight: 1}}]"
TIES = "merge_method: ties\nbase_model: b\n"
SLICE = "merge_method: linear\nparameters: {weight: 1}\nslices:\n"

BAD = {
    "unknown key": (f"merge_methd: linear\n{ONE}", "unknown key 'merge_methd'; did you mean 'mer"),
    "unknown key in a source": (
        "merge_method: linear\nmodels: [{model: a, parameter: {weight: 1}}]",
        r"slices.0.sources.0: unknown key 'parameter'; did you mean 'parameters'",
    ),
    "unknown method": (
        f"merge_method: tis\nbase_model: b\n{ONE}",
        "unknown merge_method 'tis'; did you mean 'ties'[?] available: linear, slerp",
    ),
    "unknown parameter": (
        f"{TIES}parameters: {{densty: 1}}\n{ONE}",
        "unknown parameter 'densty'; did you mean 'density'",
    ),
    "no method": (ONE, "merge_method: is missing"),
    "no models": ("merge_method: linear", "give either models or slices"),
    "empty models": ("merge_method: linear\nmodels: []", "at least one model"),
    "models no list": ("merge_method: linear\nmodels: {model: a}", "models must be a list"),
    "models and slices": (
        f"merge_method: linear\n{ONE}\nslices: [{{sources: [{{model: a, layer_range: [0, 1]}}]}}]",
        "give either models or slices, and one of them",
    ),
    "empty slices": ("merge_method: linear\nslices: []", "1 or more entries"),
    "empty sources": ("merge_method: linear\nslices: [{sources: []}]", "1 or more entries"),
    "zero density": (f"{TIES}parameters: {{density: 0}}\n{ONE}", r"density must be in \(0, 1\], g"),
    "density above 1": (
        f"{TIES}parameters: {{density: [0.5, {{}}]}}\n{ONE}".replace("{}", "1.2"),
        r"density must be in \(0, 1\], got 1.2",
    ),
    "density in a filter": (
        f"{TIES}parameters: {{density: [{{filter: mlp, value: [0.1, -1]}}, {{value: 1}}]}}\n{ONE}",
        r"density must be in \(0, 1\], got -1",
    ),
    "NaN weight": (f"{TIES}models: [{{model: a, parameters: {{weight: .nan}}}}]", "finite, got n"),
    "infinite weight": (
        f"{TIES}models: [{{model: a, parameters: {{weight: -.inf}}}}]",
        "must be finite, got -inf",
    ),
    "infinite in words": (
        f"{TIES}models: [{{model: a, parameters: {{weight: infinity}}}}]",
        "must be finite, got inf",
    ),
    "a word for a number": (
        f"{TIES}models: [{{model: a, parameters: {{weight: heavy}}}}]",
        "weight must be a number, got 'heavy'",
    ),
    "a number for a switch": (
        f"{TIES}parameters: {{normalize: 2}}\n{ONE}",
        "normalize must be true or false, got 2",
    ),
    "slerp with three parents": (
        "merge_method: slerp\nbase_model: a\nparameters: {t: 0.5}\n"
        "models: [{model: a}, {model: b}, {model: c}]",
        "slerp takes exactly 1 model besides the base, got 2",
    ),
    "slerp with its base alone": (
        "merge_method: slerp\nbase_model: a\nparameters: {t: 0.5}\nmodels: [{model: a}]",
        "slerp takes exactly 1 model besides the base, got 0",
    ),
    "slerp without base": (
        "merge_method: slerp\nparameters: {t: 0.5}\nmodels: [{model: a}, {model: b}]",
        "slerp needs a base_model; name the common ancestor",
    ),
    "passthrough of two": (
        "merge_method: passthrough\nmodels: [{model: a}, {model: b}]",
        "passthrough takes exactly 1 model, got 2",
    ),
    "ties without base": (f"merge_method: ties\n{ONE}", "ties needs a base_model"),
    "ties of the base alone": (f"{TIES}models: [{{model: b}}]", "at least 1 model besides"),
    "dare_linear without base": (f"merge_method: dare_linear\n{ONE}", "dare_linear needs a base"),
    "a model twice": (
        "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: a}]",
        "a slice takes each model once, got twice: a",
    ),
    "layers backwards": (
        SLICE + "  - sources: [{model: a, layer_range: [2, 1]}]",
        r"layer_range must be \[first, end\) with 0 <= first <= end, got \[2, 1\]",
    ),
    "no layers": (SLICE + "  - sources: [{model: a, layer_range: [1, 1]}]", "every layer_range"),
    "negative layers": (SLICE + "  - sources: [{model: a, layer_range: [-1, 1]}]", "first <= end"),
    "three bounds": (SLICE + "  - sources: [{model: a, layer_range: [0, 1, 2]}]", "layer_range"),
    "half a layer": (SLICE + "  - sources: [{model: a, layer_range: [0, 1.5]}]", "a whole number"),
    "uneven ranges": (
        SLICE + "  - sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 2]}]",
        "layer ranges of a slice must be equally long",
    ),
    "slice without range": (
        SLICE + "  - sources: [{model: a}]",
        r"every source needs a layer_range: \[first, end\]",
    ),
    "key twice": (f"merge_method: linear\nmerge_method: ties\n{ONE}", "line 2: .*given twice"),
    "not YAML": ("merge_method: [", "not valid YAML"),
    "a list": ("- merge_method: linear", "must be a mapping of keys, got list"),
    "nothing": ("", "must be a mapping of keys, got NoneType"),
    "a tag": ("merge_method: !!python/object/apply:os.getcwd []", "not valid YAML"),
    "holds itself": (
        "merge_method: linear\nmodels: [{model: a, parameters: &p {weight: *p}}]",
        "holds itself",
    ),
    "no name": ("merge_method: linear\nmodels: [{model: ' '}]", "path or path@revision"),
    "a number for a model": ("merge_method: linear\nmodels: [{model: 7}]", "model"),
    "dtype": (f"dtype: int8\nmerge_method: linear\n{ONE}", "'float32', 'bfloat16' or 'float16'"),
    "tokenizer_source": (
        f"tokenizer_source: [a]\nmerge_method: linear\n{ONE}",
        r"tokenizer_source.*, got \['a'\]",
    ),
    "tokenizer": (f"tokenizer: {{source: 7}}\nmerge_method: linear\n{ONE}", "_source.*, got 7"),
    "tokenizer key": (
        f"tokenizer: {{source: base, pad_to_multiple: 8}}\nmerge_method: linear\n{ONE}",
        "tokenizer: unknown key 'pad_to_multiple'; did you mean 'pad_to_multiple_of'?",
    ),
    "padding": (
        f"tokenizer: {{pad_to_multiple_of: -8}}\nmerge_method: linear\n{ONE}",
        "tokenizer.pad_to_multiple_of: .*, got -8",
    ),
    "a token's row": (
        f"tokenizer: {{tokens: {{x: {{source: {{kind: one}}}}}}}}\nmerge_method: linear\n{ONE}",
        "tokenizer.tokens.x.source: kind must be zero or model_token, got 'one'",
    ),
    "a row of no token": (
        "tokenizer: {tokens: {x: {source: {kind: model_token, model: a}}}}\n"
        f"merge_method: linear\n{ONE}",
        "tokenizer.tokens.x.source.model_token: give either token or token_id, and one of them",
    ),
    "tokenizer a name": (f"tokenizer: base\nmerge_method: linear\n{ONE}", "must be a mapping"),
    "tokenizer twice": (
        f"tokenizer: {{source: base}}\ntokenizer_source: base\nmerge_method: linear\n{ONE}",
        "give either tokenizer or tokenizer_source",
    ),
    "modules": (f"modules: {{text: {{}}}}\nmerge_method: linear\n{ONE}", "modules form is not"),
    "chat_template": (f"chat_template: chat\nmerge_method: linear\n{ONE}", "or a Jinja"),
    "seed": (f"# mergesearch: {{seed: -1}}\nmerge_method: linear\n{ONE}", "seed"),
    "our comment": (f"# mergesearch: seed\nmerge_method: linear\n{ONE}", "comment: must be a map"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_that_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_recipe(text, "my.yaml")
    assert str(caught.value).startswith("my.yaml")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file: .*gone\.yaml"):
        load_recipe(tmp_path / "gone.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not UTF-8"):
        load_recipe(tmp_path / "r.yaml")


WORDS = [
    "merge_method", "models", "slices", "sources", "model", "layer_range", "parameters", "weight",
    "density", "t", "scale", "lambda", "normalize", "rescale", "value", "filter", "base_model",
    "dtype", "out_dtype", "tokenizer_source", "chat_template", "seed", "modules", "tokenizer",
    "tokens", "source", "force", "kind", "zero", "model_token", "pad_to_multiple_of",
    "linear", "slerp", "ties", "dare_ties", "passthrough", "float32", "base", "a", "b+c", "d@e",
    "path", "revision", "lora", "name", "random_seed", "experts", "embed_slerp",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([10**400, -(2**63), 2**64])
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=5)
    | st.just(date(2026, 1, 2))
    | st.binary(max_size=3)
)
DATA = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | SCALARS.filter(bool), inner, max_size=4)
    ),
    max_leaves=12,
)
ALMOST = st.fixed_dictionaries(
    {"merge_method": st.sampled_from(["linear", "ties", "slerp", "passthrough"]) | DATA},
    optional={
        "models": DATA | st.lists(st.dictionaries(st.sampled_from(WORDS), DATA, max_size=4)),
        "slices": DATA
        | st.lists(
            st.fixed_dictionaries(
                {"sources": st.lists(st.dictionaries(st.sampled_from(WORDS), DATA, max_size=4))}
            ),
            max_size=2,
        ),
        "base_model": DATA,
        "parameters": DATA | st.dictionaries(st.sampled_from(WORDS), DATA, max_size=4),
        "dtype": DATA,
        "tokenizer_source": DATA,
        "tokenizer": DATA | st.dictionaries(st.sampled_from(WORDS), DATA, max_size=3),
        "seed": DATA,
    },
)


def _recipe_or_input_error(text: str) -> None:
    try:
        recipe = read_recipe(text)
    except InputError as error:
        assert str(error)
    else:
        assert isinstance(recipe, Recipe)
        assert len(recipe.hash) == 64


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=ALMOST | DATA)
def test_any_yaml_is_a_recipe_or_an_input_error(data: Any) -> None:
    _recipe_or_input_error(yaml.dump(data))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40) | st.text("{}[]:,&*!|>-# \n'\"abc<=", max_size=30))
def test_any_text_is_a_recipe_or_an_input_error(text: str) -> None:
    _recipe_or_input_error(text)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_recipe_is_a_recipe_or_an_input_error(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([text for text, _ in BAD.values()]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    splice = data.draw(st.text("{}[]:,&*!|>-# \n'\"0.1anif", max_size=4))
    _recipe_or_input_error(text[:start] + splice + text[end:])
