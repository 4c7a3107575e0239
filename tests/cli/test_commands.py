import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from mergesearch.cli.sizes import bytes_of
from mergesearch.evaluation import Evaluator
from mergesearch.parents import Checkpoint
from mergesearch.runs import Record
from tests import tiny
from tests.cli.conftest import Cli

HEAVY = "torch", "transformers", "lm_eval", "optuna", "pandas", "pydantic", "rich.progress"


def test_help_and_the_package_import_nothing_heavy() -> None:
    code = f"""
import sys
import mergesearch
from mergesearch.cli import main
sys.argv = ["mergesearch", "--help"]
try:
    main()
except SystemExit as ended:
    assert ended.code == 0
print(sorted(set({HEAVY!r}) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    *shown, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    verbs = ("demo", "check", "search", "soup", "merge", "evaluate", "lm-eval", "export")
    for verb in (*verbs, "leaderboard"):
        assert any(f" {verb} " in line for line in shown)


def test_check_says_what_a_search_would_take_and_reads_no_weight(
    family: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Checkpoint, name: str) -> None:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(Checkpoint, "read", read)
    before = {p for p in family.rglob("*")}
    code, out, err = cli("check", family / "space.yaml", "--device", "cpu")
    assert (code, err) == (0, "")
    lines = {line.split(maxsplit=1)[0]: line for line in out.splitlines()}
    assert "linear, task_arithmetic, ties" in lines["methods"]
    assert "first (acc, 12), second (acc, 8)" in lines["tasks"]
    assert lines["documents"].split()[1] == "20"
    assert "8 trials in at most " in lines["time"]
    assert "of a budget of" in lines["memory"]
    assert {"live", "merging"} <= lines.keys()
    assert lines["Nothing"] == "Nothing is wrong with this space."
    assert set(family.rglob("*")) == before


def test_a_search_shows_its_trials_its_verdict_and_where_it_is(family: Path, cli: Cli) -> None:
    run = family / "run"
    code, out, err = cli("search", family / "space.yaml", "--out", run, "--trials", "3")
    assert code == 0
    trials = [line for line in err.splitlines() if line.startswith("trial ")]
    assert [line.split("]")[0].split("[")[1] for line in trials] == ["1/3", "2/3", "3/3"]
    assert "linear (uniform soup)" in trials[0]
    assert out.startswith("The winner ")
    assert "| **winner** " in out
    assert f"Run folder: {run}" in out
    assert out.endswith(f"mergesearch export {run}\n")
    again = cli("search", family / "space.yaml", "--out", run, "--trials", "3")
    assert (again.code, again.out) == (0, out)
    assert "trial " not in again.err
    assert "the search ends: the budget of 3 trials is spent" in again.err


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (("--documents", "50"), "the budget of 50 documents is spent"),
        (("--minutes", "0.0001"), "the budget of 0.0001 minutes is spent"),
    ],
)
def test_a_budget_of_documents_or_time_ends_a_search(
    family: Path, cli: Cli, budget: tuple[str, str], reason: str
) -> None:
    command = ("search", family / "space.yaml", "--out", family / "run")
    said = cli(*command, *budget)
    assert said.code == 0
    assert f"the search ends: {reason}" in said.err
    n_trials = len(Record(family / "run", writable=False).trials)
    assert 0 < n_trials < 8
    # the budget is no part of what makes the run
    assert cli(*command, "--trials", str(n_trials + 1)).code == 0
    assert len(Record(family / "run", writable=False).trials) == n_trials + 1


def test_a_front_is_searched_shown_and_exported(family: Path, cli: Cli) -> None:
    space = yaml.safe_load(tiny.SPACE)
    space["methods"] = {"stacking": {"depth": [2, 6], "scale": [0.5, 1.5]}}
    space["search"] = {"trials": 12, "objectives": ["score", "size"], "sampler": "random"}
    (family / "space.yaml").write_text(yaml.safe_dump(space))
    run = family / "run"
    said = cli("search", family / "space.yaml", "--out", run)
    assert said.code == 0
    assert f"The front:  mergesearch leaderboard {run} --front\n" in said.out
    text = cli("leaderboard", run, "--front", "--format", "csv").out
    front = list(csv.DictReader(io.StringIO(text)))
    assert len(front) > 1
    assert {row["model"].split()[0] for row in front} == {"winner", "front"}
    ordered = sorted(front, key=lambda row: int(row["parameters"]))
    assert [row["search"] for row in ordered] == sorted(row["search"] for row in ordered)
    assert f"{len(front)} models are on the front of score and size." in said.out
    assert "Nothing to compare" not in cli("leaderboard", run, "--front").out
    exported = cli("export", run, "--front")
    assert exported.code == 0
    for folder, row in zip(exported.out.split(), front, strict=True):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.num_parameters() == int(row["parameters"])


def test_paths_are_relative_to_the_file_that_states_them(
    family: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    space = Path("..") / "family" / "space.yaml"
    assert cli("check", space, "--device", "cpu").code == 0
    assert cli("search", space, "--trials", "2").code == 0
    assert Record(elsewhere / "results" / "space", writable=False).trials[0].score is not None
    assert cli("export", "results/space", "--out", "out").code == 0
    assert (elsewhere / "out" / "top-1" / "model.safetensors").exists()
    # an exported recipe finds its models from where it lies
    code, out, _ = cli("merge", "out/top-1/mergekit_config.yml", "again")
    assert code == 0
    assert out.startswith("again  (tensors xxh3 ")
    weights = [elsewhere / name / "model.safetensors" for name in ("out/top-1", "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_recipe_is_merged_in_another_dtype_and_in_shards(family: Path, cli: Cli) -> None:
    recipe = {"merge_method": "linear", "models": [{"model": "models/one"}]}
    recipe["parameters"] = {"weight": 1}  # type: ignore[assignment]
    (family / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = family / "out"
    arguments = ("--dtype", "bfloat16", "--max-shard-size", "8KB")
    assert cli("merge", family / "recipe.yaml", out, *arguments).code == 0
    assert len(list(out.glob("*.safetensors"))) > 1
    model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert str(model.dtype) == "torch.bfloat16"


def test_evaluate_writes_what_lm_eval_would(family: Path, cli: Cli) -> None:
    file = family / "scores.json"
    model, suite = family / "models" / "one", family / "suite.yaml"
    code, out, _ = cli("evaluate", model, suite, "--json", file, "--device", "cpu")
    assert code == 0
    data = json.loads(file.read_text())
    assert set(data["results"]) == {"first", "second"}
    value = data["results"]["second"]["acc,none"]
    assert 0 <= value <= 1
    assert data["results"]["second"]["alias"] == "second"
    assert data["n-samples"]["second"] == {"original": 12, "effective": 8}
    assert data["higher_is_better"] == {"first": {"acc": True}, "second": {"acc": True}}
    assert data["config"]["model_args"] == {"recipe": str(model)}
    assert data["model_name"] == str(model)
    head, rule, *rows = [line.strip("|\n").split("|") for line in out.splitlines()]
    assert [cell.strip() for cell in head] == [
        *("Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"),
        "95 % interval",
    ]
    assert set("".join(rule)) == {"-"}
    cells = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert list(cells) == ["first", "second", "total"]
    stderr = data["results"]["second"]["acc_stderr,none"]
    shown = ["1.0", "none", "0", "acc", "↑", f"{value:.4f}", "±", f"{stderr:.4f}"]
    assert cells["second"][:-1] == shown
    total = (data["results"]["first"]["acc,none"] + 2 * value) / 3
    assert cells["total"][5] == f"{total:.4f}"
    for *_, bounds in cells.values():
        low, high = (float(bound) for bound in bounds.strip("[]").split(", "))
        assert 0 <= low < high <= 1


def test_a_group_is_shown_and_written_with_its_tasks(family: Path, cli: Cli) -> None:
    group = {
        "group": "both",
        "task": ["first", "second"],
        "aggregate_metric_list": [{"metric": "acc"}],
    }
    (family / "tasks" / "both.yaml").write_text(yaml.safe_dump(group))
    suite = {"include_path": "tasks", "search": [{"task": "both", "metric": "acc", "limit": 9}]}
    (family / "suite.yaml").write_text(yaml.safe_dump(suite))
    file = family / "scores.json"
    arguments = ("--json", file, "--device", "cpu", "--memory-budget", "4GB", "--batch-size", "3")
    said = cli("evaluate", family / "models" / "one", family / "suite.yaml", *arguments)
    assert said.code == 0
    data = json.loads(file.read_text())
    values = [data["results"][name]["acc,none"] for name in ("first", "second")]
    assert data["groups"]["both"]["acc,none"] == pytest.approx(sum(values) / 2)
    assert data["group_subtasks"] == {"both": ["first", "second"]}
    assert data["config"]["batch_size"] == 3
    names = [line.split("|")[1] for line in said.out.splitlines()[2:]]
    assert [name.rstrip() for name in names] == [" both", "  - first", "  - second", " total"]


def test_evaluate_stays_within_a_memory_budget(family: Path, cli: Cli) -> None:
    model, suite = family / "models" / "one", family / "suite.yaml"
    said = cli("evaluate", model, suite, "--device", "cpu", "--memory-budget", "1KB")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "memory" in said.err


def test_a_merge_of_one_model_scores_as_the_model_does(family: Path, cli: Cli) -> None:
    recipe = {"merge_method": "passthrough", "models": [{"model": "models/one"}]}
    (family / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    held_out = ("--split", "held_out", "--device", "cpu")
    shown = [
        cli("evaluate", model, family / "suite.yaml", *held_out)
        for model in (family / "models" / "one", family / "recipe.yaml")
    ]
    assert [said.code for said in shown] == [0, 0]
    assert shown[0].out == shown[1].out
    assert "third" in shown[0].out


@pytest.mark.parametrize("soup", ["--uniform", "--greedy"])
def test_a_soup_is_made_shown_and_exported(family: Path, cli: Cli, soup: str) -> None:
    run = family / "run"
    code, out, err = cli("soup", family / "space.yaml", soup, "--out", run)
    assert code == 0
    label = f"{soup.strip('-')} soup"
    assert out.startswith(f"The {label} ")
    if soup == "--greedy":
        steps = [line for line in err.splitlines() if "(kept " in line or "(dropped " in line]
        assert len(steps) == 2
    assert cli("export", run).code == 0
    assert (run / "export" / "top-1" / "config.json").exists()


def test_models_that_differ_are_said_wherever_they_are_merged(family: Path, cli: Cli) -> None:
    two = family / "models" / "two"
    tiny.llama(two, 2, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-3)
    heads = "num_attention_heads is 4 in base and one, 2 in two"
    norm = "rms_norm_eps is 1e-06 in base and one, 0.001 in two"
    code, out, err = cli("check", family / "space.yaml", "--allow-mismatch")
    assert code == 0, err
    assert f"differ     {heads}" in out and f"differ     {norm}" in out
    assert "all match" not in out

    run = family / "run"
    options = ("--uniform", "--out", run, "--device", "cpu")
    code, out, err = cli("soup", family / "space.yaml", *options, "--allow-mismatch")
    assert code == 0, err
    assert f"the models differ: {heads}" in err and f"the models differ: {norm}" in err
    assert out.count(norm) == 1
    assert norm in json.loads(cli("leaderboard", run, "--format", "json").out)[0]["models_differ"]
    code, _, err = cli("export", run)
    assert code == 0, err
    card = (run / "export" / "top-1" / "README.md").read_text()
    assert card.count("rms_norm_eps") == 1

    recipe = family / "recipe.yaml"
    models = "[{model: models/one}, {model: models/two}]"
    recipe.write_text(f"{{merge_method: linear, parameters: {{weight: 1}}, models: {models}}}")
    code, _, err = cli("merge", recipe, family / "out", "--allow-mismatch")
    assert code == 0, err
    assert "the models differ: rms_norm_eps is 1e-06 in one, 0.001 in two\n" in err


def test_a_leaderboard_is_written_in_each_format_over_many_runs(searched: Path, cli: Cli) -> None:
    second = searched / "second"
    assert cli("search", searched / "space.yaml", "--out", second, "--trials", "2").code == 0
    runs = (searched / "run", second)
    markdown = cli("leaderboard", *runs, "--format", "md").out
    assert markdown.splitlines()[0].startswith("| run ")
    assert markdown.count("**winner**") == 2
    rows = list(csv.DictReader(io.StringIO(cli("leaderboard", *runs, "--format", "csv").out)))
    assert {row["run"] for row in rows} == {"run", "second"}
    data = json.loads(cli("leaderboard", *runs, "--format", "json").out)
    assert len(data) == len(rows)
    finalists = [row["model"].startswith("finalist") for row in data]
    assert any(finalists) and finalists == sorted(finalists)  # last, whatever they come to
    for was_chosen in (True, False):
        of = [row for row, other in zip(data, finalists, strict=True) if other is not was_chosen]
        held_out = [row["held_out"]["total"] for row in of]
        assert held_out == sorted(held_out, reverse=True)
    one = cli("leaderboard", searched / "run").out
    assert one.startswith("The winner ")
    assert "| run " not in one


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("5GB", 5 * 10**9),
        ("500MB", 5 * 10**8),
        ("1.5 kb", 1500),
        ("2TB", 2 * 10**12),
        ("100B", 100),
        ("1000000", 10**6),
        (" 5gb ", 5 * 10**9),
    ],
)
def test_sizes_are_counted_by_powers_of_ten(text: str, n_bytes: int) -> None:
    assert bytes_of(text) == n_bytes


def test_an_interrupted_search_says_how_to_go_on(
    family: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    command = ("search", family / "space.yaml", "--out", family / "run", "--trials", "2")
    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "score", interrupted)
        code, _, err = cli(*command)
    assert code == 130
    assert err.endswith("\nmergesearch: stopped; run the same command again to go on\n")
    assert cli(*command).code == 0


def test_an_adapter_is_searched_as_a_parent(family: Path, cli: Cli) -> None:
    tiny.adapter(family / "adapter", family / "models" / "base", 6)
    data = yaml.safe_load(tiny.SPACE)
    data["parents"] = {"one": "models/one", "two": "models/base+adapter"}
    (family / "space.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    run = family / "run"
    assert cli("search", family / "space.yaml", "--out", run, "--trials", "3").code == 0
    assert cli("export", run).code == 0
