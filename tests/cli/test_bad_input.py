"""Whatever is wrong is one line, exit code 2, and nothing is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lm_eval.tasks import TaskManager
from safetensors.torch import load_file, save_file

from mergesearch.runs import hold, identity_of
from mergesearch.runtime import choose_device
from tests import tiny
from tests.cli.conftest import Cli, Said

Mischief = Callable[[Path], None]


def refused(said: Said) -> str:
    """The one line that a refused command says."""
    assert said.code == 2, said
    assert said.err.startswith("mergesearch: ") and said.err.endswith("\n")
    assert said.err.count("\n") == 1, said.err
    return said.err


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def in_space(**changes: Any) -> Mischief:
    def do(folder: Path) -> None:
        data = {**yaml.safe_load((folder / "space.yaml").read_text()), **changes}
        data = {key: value for key, value in data.items() if value is not None}
        (folder / "space.yaml").write_text(yaml.safe_dump(data, sort_keys=False))

    return do


def in_suite(old: str, new: str) -> Mischief:
    def do(folder: Path) -> None:
        text = (folder / "suite.yaml").read_text()
        assert old in text
        (folder / "suite.yaml").write_text(text.replace(old, new))

    return do


def in_config(**changes: Any) -> Mischief:
    def do(folder: Path) -> None:
        path = folder / "models" / "two" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return do


def another_model(**changes: Any) -> Mischief:
    def do(folder: Path) -> None:
        shutil.rmtree(folder / "models" / "two")
        tiny.llama(folder / "models" / "two", 2, **changes)

    return do


def truncated(folder: Path) -> None:
    path = folder / "models" / "two" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    path = folder / "models" / "two" / "model.safetensors"
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()


def without(*parts: str) -> Mischief:
    def do(folder: Path) -> None:
        path = folder.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return do


def cut_short(folder: Path) -> None:
    (folder / "space.yaml").write_text("base: models/base\nparents: {one: ")


def renamed_tensor(folder: Path) -> None:
    path = folder / "models" / "two" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.final.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, path, metadata={"format": "pt"})


def adapter_of_another_base(folder: Path) -> None:
    other = tiny.llama(folder / "other", 5, hidden_size=32)
    tiny.adapter(folder / "adapter", other, 6)
    in_space(parents={"one": "models/one", "two": "models/base+adapter"})(folder)


def adapter_of_more_rows(folder: Path) -> None:
    settings: dict[str, Any] = {"n_rows": 34, "save_embedding_layers": True}
    tiny.adapter(folder / "adapter", folder / "models" / "base", 6, **settings)
    in_space(parents={"one": "models/one", "two": "models/base+adapter"})(folder)


def pickled_adapter(folder: Path) -> None:
    adapter = tiny.adapter(folder / "adapter", folder / "models" / "base", 6)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    in_space(parents={"one": "models/one", "two": "models/base+adapter"})(folder)


SPACES: dict[str, tuple[Mischief, str]] = {
    "unknown key": (in_space(metods={}), "unknown key 'metods'; did you mean 'methods'?"),
    "unknown key of the suite": (
        in_suite("limit: 8", "limits: 8"),
        "suite.yaml: search.1: unknown key 'limits'; did you mean 'limit'?",
    ),
    "unknown method": (in_space(methods={"tie": {}}), "unknown method 'tie'; did you mean 'ties'?"),
    "unknown task": (in_suite("task: first", "task: frist"), "unknown task 'frist'; did you mean"),
    "unknown metric": (
        in_suite("second, metric: acc", "second, metric: acc_norm"),
        "task 'second': unknown metric 'acc_norm'; did you mean 'acc'?",
    ),
    "unknown sampler": (
        in_space(search={"sampler": "tpee"}),
        "unknown sampler 'tpee'; did you mean 'tpe'?",
    ),
    "density of zero": (
        in_space(methods={"ties": {"density": [0, 1]}}),
        "ties.density: density must be in (0, 1], got 0",
    ),
    "NaN weight": (
        in_space(methods={"linear": {"weight": float("nan")}}),
        "linear.weight: weight must be finite, got nan",
    ),
    "infinite weight": (
        in_space(methods={"linear": {"weight": [0, float("inf")]}}),
        "linear.weight: weight must be finite, got inf",
    ),
    "weights that sum to zero": (
        in_space(methods={"linear": {"weight": 0}}),
        "linear: weights must not sum to zero, got [0.0, 0.0]",
    ),
    "TIES without base": (in_space(base=None, methods={"ties": {}}), "ties needs a base"),
    "more blocks than layers": (
        in_space(granularity={"blocks": 5}),
        "granularity.blocks must be at most the models' 4 layers, got 5",
    ),
    "group of no tensor": (
        in_space(granularity={"groups": ["attn_block"]}),
        "granularity.groups: no tensor's name contains 'attn_block'; parts of names are "
        "embed_tokens, input_layernorm, mlp, norm, post_attention_layernorm, self_attn",
    ),
    "another architecture": (
        in_config(model_type="mistral"),
        "all models must be of one architecture: model_type is 'llama' in",
    ),
    "another hidden size": (
        another_model(hidden_size=32),
        "all models must be of one architecture: hidden_size is 16 in",
    ),
    "another depth": (
        another_model(num_hidden_layers=3),
        "layer_range must lie within the model's 3 layers, got [2, 4] for",
    ),
    "another width of the MLP": (
        another_model(intermediate_size=32),
        "model.layers.0.mlp.down_proj.weight must have one shape in all models, got [16, 24] in",
    ),
    "tensors of another name": (
        renamed_tensor,
        "a tensor that only some models have must be one that",
    ),
    "no checkpoint": (without("models", "two"), "no such model"),
    "no weights": (
        without("models", "two", "model.safetensors"),
        "two: no *.safetensors weights in the folder",
    ),
    "no configuration": (without("models", "two", "config.json"), "two: no config.json"),
    "truncated checkpoint": (truncated, "model.safetensors: truncated, or not a safetensors file"),
    "pickled checkpoint": (pickled, "two: only pickled weights (pytorch_model.bin), which can run"),
    "adapter of more rows": (
        adapter_of_more_rows,
        "an adapter adds rows to its base's; set tokenizer_source to base, union",
    ),
    "pickled adapter": (pickled_adapter, "only pickled weights (adapter_model.bin)"),
    "adapter of another base": (
        adapter_of_another_base,
        "the adapter was made for another base than",
    ),
    "no data of a task": (
        without("tasks", "second.jsonl"),
        "task 'second': data file 'second.jsonl' does not exist; put it beside",
    ),
    "no suite": (without("suite.yaml"), "space.yaml: suite: no such file: "),
    "no space": (without("space.yaml"), "no such file: "),
    "no YAML": (cut_short, "line 2: not valid YAML"),
}


@pytest.fixture
def own_tasks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the index of the thousands of tasks that lm-eval brings: it takes many seconds."""

    def manager(include_path: list[str], include_defaults: bool) -> TaskManager:
        return TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr("mergesearch.tasks.catalogue.TaskManager", manager)


@pytest.mark.usefixtures("own_tasks_only")
@pytest.mark.parametrize(("mischief", "message"), SPACES.values(), ids=SPACES)
def test_a_space_with_a_mistake_is_refused(
    family: Path, cli: Cli, mischief: Mischief, message: str
) -> None:
    mischief(family)
    before = snapshot(family)
    assert message in refused(cli("search", family / "space.yaml", "--out", family / "run"))
    assert snapshot(family) == before
    assert not (family / "run").exists()


@pytest.mark.usefixtures("own_tasks_only")
@pytest.mark.parametrize("mistake", ["unknown key", "unknown metric", "another hidden size"])
def test_check_and_soup_refuse_a_space_as_search_does(family: Path, cli: Cli, mistake: str) -> None:
    mischief, message = SPACES[mistake]
    mischief(family)
    before = snapshot(family)
    assert message in refused(cli("check", family / "space.yaml"))
    assert message in refused(cli("soup", family / "space.yaml", "--out", family / "run"))
    assert snapshot(family) == before


def recipe_of(**changes: Any) -> dict[str, Any]:
    models = [
        {"model": "models/one", "parameters": {"weight": 1.0}},
        {"model": "models/two", "parameters": {"weight": 0.5}},
    ]
    return {"merge_method": "linear", "models": models, **changes}


def sliced(first: int, end: int) -> dict[str, Any]:
    source = {"model": "models/one", "layer_range": [first, end]}
    return {"merge_method": "passthrough", "slices": [{"sources": [source]}]}


def weighted(*weights: float) -> list[dict[str, Any]]:
    names = ("models/one", "models/two")
    return [
        {"model": name, "parameters": {"weight": weight}}
        for name, weight in zip(names, weights, strict=True)
    ]


RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (
        recipe_of(merge_metod="linear"),
        "recipe.yaml: unknown key 'merge_metod'; did you mean 'merge_method'?",
    ),
    "unknown method": (
        recipe_of(merge_method="liner"),
        "unknown merge_method 'liner'; did you mean 'linear'?",
    ),
    "unknown parameter": (
        recipe_of(parameters={"wieght": 1}),
        "unknown parameter 'wieght'; did you mean 'weight'?",
    ),
    "density above one": (
        recipe_of(merge_method="ties", base_model="models/base", parameters={"density": 1.1}),
        "density must be in (0, 1], got 1.1",
    ),
    "density of zero": (
        recipe_of(merge_method="dare_ties", base_model="models/base", parameters={"density": 0}),
        "density must be in (0, 1], got 0",
    ),
    "NaN weight": (recipe_of(models=weighted(1, float("nan"))), "must be finite, got nan"),
    "infinite weight": (recipe_of(models=weighted(1, float("inf"))), "must be finite, got inf"),
    "weights that sum to zero": (
        recipe_of(models=weighted(1, -1)),
        "linear: weights must not sum to zero, got [1.0, -1.0]",
    ),
    "slerp of three": (
        recipe_of(merge_method="slerp", base_model="models/base", parameters={"t": 0.5}),
        "slerp takes exactly 1 model besides the base, got 2",
    ),
    "TIES without base": (recipe_of(merge_method="ties"), "ties needs a base_model"),
    "layers out of bounds": (
        sliced(2, 5),
        "layer_range must lie within the model's 4 layers, got [2, 5]",
    ),
    "layers upside down": (sliced(3, 1), "layer_range must be [first, end) with 0 <= first <= end"),
    "missing model": (
        recipe_of(models=[{"model": "models/three/x/y"}]),
        "no such model folder: ",
    ),
}


@pytest.mark.parametrize(("recipe", "message"), RECIPES.values(), ids=RECIPES)
def test_a_recipe_with_a_mistake_is_refused(
    family: Path, cli: Cli, recipe: dict[str, Any], message: str
) -> None:
    (family / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    before = snapshot(family)
    assert message in refused(cli("merge", family / "recipe.yaml", family / "out"))
    assert snapshot(family) == before
    assert not (family / "out").exists()
    line = refused(cli("evaluate", family / "recipe.yaml", family / "suite.yaml"))
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"eos_token_id": [2, 7', "two/generation_config.json: cannot be read as JSON"),
        ("[2, 7]", "two/generation_config.json: must hold a JSON object"),
        ('{"max_new_tokens": 0}', "transformers cannot read it (`max_new_tokens` must be greater"),
        ('{"pad_token_id": [3]}', "two/generation_config.json: transformers cannot read it"),
        ('{"watermarking_config": 7}', "two/generation_config.json: transformers cannot read it"),
    ],
)
def test_a_generation_config_that_is_none_is_refused(
    family: Path, cli: Cli, text: str, message: str
) -> None:
    (family / "models/two/generation_config.json").write_text(text)
    recipe = {"merge_method": "passthrough", "models": [{"model": "models/two"}]}
    (family / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    before = snapshot(family)
    for command in (
        ("merge", family / "recipe.yaml", family / "out"),
        ("evaluate", family / "models/two", family / "suite.yaml"),
        ("check", family / "space.yaml"),
        ("search", family / "space.yaml", "--out", family / "run"),
    ):
        assert message in refused(cli(*command))
    assert snapshot(family) == before


def test_a_merge_is_not_written_over_something(family: Path, cli: Cli) -> None:
    (family / "recipe.yaml").write_text(yaml.safe_dump(recipe_of()))
    before = snapshot(family)
    line = refused(cli("merge", family / "recipe.yaml", family / "models" / "one"))
    assert "exists and is not empty; name another folder" in line
    line = refused(cli("merge", family / "recipe.yaml", family / "suite.yaml"))
    assert "exists and is not empty; name another folder" in line
    assert snapshot(family) == before


def test_a_run_folder_of_another_space_is_refused(searched: Path, cli: Cli) -> None:
    in_space(methods={"linear": {}, "ties": {"density": 0.5}})(searched)
    before = snapshot(searched)
    for verb in ("search", "soup"):
        line = refused(cli(verb, searched / "space.yaml", "--out", searched / "run"))
        assert "run was made by another space (space.methods.task_arithmetic was " in line
        assert snapshot(searched) == before


def test_another_seed_is_another_search(searched: Path, cli: Cli) -> None:
    line = refused(cli("search", searched / "space.yaml", "--out", searched / "run", "--seed", "1"))
    assert "(space.search.seed was 0 and is 1)" in line


def test_a_run_folder_in_use_is_refused(searched: Path, cli: Cli) -> None:
    about = identity_of(searched / "run")
    before = snapshot(searched)
    with hold(searched / "run", about):
        for verb in ("search", "soup"):
            line = refused(cli(verb, searched / "space.yaml", "--out", searched / "run"))
            assert "is in use by another process" in line
    assert snapshot(searched) == before
    assert cli("leaderboard", searched / "run").code == 0


def test_a_folder_of_other_things_is_no_run_folder(family: Path, cli: Cli) -> None:
    before = snapshot(family)
    for verb in ("search", "soup"):
        line = refused(cli(verb, family / "space.yaml", "--out", family / "models"))
        assert "is not empty and is no run folder; give --out another name" in line
    for verb in ("export", "leaderboard"):
        for folder in (family / "models", family / "nowhere"):
            assert "is no run folder" in refused(cli(verb, folder))
    assert snapshot(family) == before


@pytest.mark.parametrize("n_writes", [0, 2, 17])
def test_a_full_device_ends_a_search_that_can_go_on(
    family: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, n_writes: int
) -> None:
    """`fsync` is what reports a device that is full, to the run's files and to Optuna's."""
    left = n_writes

    def fsync(_: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")

    command = ("search", family / "space.yaml", "--out", family / "run", "--trials", "2")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fsync)
        said = cli(*command)
    assert said.code == 2
    last = said.err.splitlines()[-1]
    assert last.startswith("mergesearch: ") and "no space left on" in last.lower()
    assert "Traceback" not in said.err
    assert cli(*command).code == 0


def test_a_full_device_is_said_before_a_merge(
    family: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (family / "recipe.yaml").write_text(yaml.safe_dump(recipe_of()))
    usage = shutil.disk_usage(family)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    before = snapshot(family)
    line = refused(cli("merge", family / "recipe.yaml", family / "out"))
    assert "no space left on the device for " in line
    assert snapshot(family) == before
    assert not (family / "out").exists()


@pytest.mark.parametrize("size", ["five", "0", "-1GB", "GB", "5 gibibytes", "nan", "inf", "1e400"])
def test_a_size_that_is_none_is_refused(family: Path, cli: Cli, size: str) -> None:
    (family / "recipe.yaml").write_text(yaml.safe_dump(recipe_of()))
    line = refused(cli("merge", family / "recipe.yaml", family / "out", "--max-shard-size", size))
    assert "a size is a number with KB, MB, GB or TB, e.g. 5GB, got " in line


def test_an_unknown_device_and_split_are_named(family: Path, cli: Cli) -> None:
    line = refused(cli("check", family / "space.yaml", "--device", "gpu"))
    assert "device must be auto, cpu, cuda or mps, got 'gpu'" in line
    if choose_device("auto").type == "cpu":
        line = refused(cli("check", family / "space.yaml", "--device", "cuda"))
        assert "device must be auto, cpu, cuda or mps, got 'cuda'" in line
    line = refused(
        cli("evaluate", family / "models" / "one", family / "suite.yaml", "--split", "heldout")
    )
    assert "unknown split 'heldout'; did you mean 'held_out'?" in line


def test_a_model_or_suite_that_is_none_cannot_be_evaluated(family: Path, cli: Cli) -> None:
    suite = family / "suite.yaml"
    assert "no such" in refused(cli("evaluate", family / "models" / "three", suite))
    assert "takes one adapter" in refused(cli("evaluate", "a+b+c", suite))
    line = refused(cli("evaluate", family / "models" / "one", family / "no.yaml"))
    assert "no such file: " in line


def test_a_parent_that_changed_since_is_not_exported(searched: Path, cli: Cli) -> None:
    for seed, name in enumerate(("one", "two"), start=7):
        tiny.llama(searched / "models" / name, seed, base=searched / "models" / "base")
    before = snapshot(searched)
    said = cli("export", searched / "run")
    assert said.code == 1
    assert said.err.startswith("mergesearch: the rebuilt model differs from the one that was")
    assert said.err.count("\n") == 1
    assert snapshot(searched) == before


def test_too_many_or_unknown_candidates_are_not_exported(searched: Path, cli: Cli) -> None:
    line = refused(cli("export", searched / "run", "--top", "99"))
    assert "distinct candidates, fewer than --top 99" in line
    line = refused(cli("export", searched / "run", "--trial", "99"))
    assert "has no scored trial 99; there are 8: [0, 1, 2, 3, 4, 5, 6, 7]" in line
    assert not (searched / "run" / "export").exists()


def test_candidates_that_all_fail_are_no_mistake_of_the_users(family: Path, cli: Cli) -> None:
    for name in ("one", "two"):
        path = family / "models" / name / "model.safetensors"
        tensors = load_file(path)
        tensors["model.norm.weight"][0] = float("nan")
        save_file(tensors, path, metadata={"format": "pt"})
    command = ("search", family / "space.yaml", "--out", family / "run", "--trials", "3")
    said = cli(*command)
    assert said.code == 1
    lines = said.err.splitlines()
    assert lines[-1].startswith("mergesearch: every candidate failed")
    trials = [line for line in lines if line.startswith("trial ")]
    assert len(trials) == 3
    assert all("model.norm.weight has NaN" in line for line in trials)


def merging(verb: str, family: Path, out: Path) -> tuple[str | Path, ...]:
    """The command by which a verb opens the family's two models."""
    (family / "recipe.yaml").write_text(
        "{merge_method: linear, parameters: {weight: 1},"
        " models: [{model: models/one}, {model: models/two}]}"
    )
    return {
        "merge": ("merge", family / "recipe.yaml", out),
        "search": ("search", family / "space.yaml", "--out", out),
        "check": ("check", family / "space.yaml"),
        "soup": ("soup", family / "space.yaml", "--out", out),
    }[verb]


@pytest.mark.parametrize("verb", ["merge", "search", "check"])
def test_a_memory_budget_that_nothing_fits_is_refused(
    family: Path, tmp_path: Path, cli: Cli, verb: str
) -> None:
    command = merging(verb, family, tmp_path / "out")
    said = cli(*command, "--memory-budget", "1MB")
    assert said.code == 2
    assert said.err.startswith("mergesearch: what a merge holds while it streams every model must")
    assert "raise the budget" in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_options_that_exclude_each_other_or_ask_for_nothing_are_refused(
    searched: Path, cli: Cli
) -> None:
    for arguments, says in (
        (("export", searched / "run", "--front", "--trial", "2"), "give --front or --trial, got b"),
        (("export", searched / "run", "--front"), "has no front: it was searched for one obj"),
        (("leaderboard", searched / "run", "--front"), "has no front: it was searched for one "),
        (
            ("search", searched / "space.yaml", "--out", searched / "run", "--minutes", "0"),
            "search: minutes: must be above 0, got 0.0",
        ),
    ):
        said = cli(*arguments)
        assert (said.code, said.out) == (2, "")
        assert said.err.count("\n") == 1
        assert says in said.err


@pytest.mark.parametrize("verb", ["merge", "search", "check", "soup"])
def test_models_of_other_heads_are_refused(
    family: Path, tmp_path: Path, cli: Cli, verb: str
) -> None:
    another_model(num_attention_heads=2, num_key_value_heads=1)(family)
    command = merging(verb, family, tmp_path / "out")
    line = refused(cli(*command))
    assert "num_attention_heads is 4 in " in line and ", 2 in two; " in line
    assert "--allow-mismatch" in line
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_ours_to_read_is_one_line(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "run/record.jsonl")

    monkeypatch.setattr("mergesearch.report.entries_of", denied)
    line = refused(cli("leaderboard", tmp_path))
    assert "run/record.jsonl: Permission denied; it must be ours" in line
