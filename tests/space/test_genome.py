from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from transformers import AutoTokenizer

from mergesearch.api import search
from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.merging import plan_merge
from mergesearch.parents import Parents
from mergesearch.recipe import Recipe
from mergesearch.searching.policies.starts import starts
from mergesearch.space import SearchSpace, Shape, suggest
from mergesearch.space.domains import Fixed, Range
from mergesearch.space.genome import is_genome
from tests import tiny

SHAPE = Shape(n_layers=4)
GENOME: dict[str, Any] = {
    "models": ["models/one", "models/two"],
    "merge_method": "ties",
    "base_model": "models/base",
}
FILE: dict[str, Any] = {
    "genome": GENOME,
    "tasks": [{"name": "first"}],
    "include_path": "tasks",
    "apply_chat_template": False,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A genome's models and tasks, which exist by name only: reading it opens neither."""
    for name in ("models/base", "models/one", "models/two", "models/other/one", "tasks"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def load(folder: Path, genome: dict[str, Any] | None = None, **changes: Any) -> SearchSpace:
    """A genome file with some keys changed; those that are None are left out."""
    data = {**FILE, "genome": {**GENOME, **(genome or {})}, **changes}
    given = {key: value for key, value in data.items() if value is not None}
    given["genome"] = {k: v for k, v in data["genome"].items() if v is not None}
    (folder / "genome.yml").write_text(yaml.safe_dump(given, sort_keys=False))
    return SearchSpace.load(folder / "genome.yml")


def test_a_genome_is_told_from_a_space_by_its_key() -> None:
    assert is_genome(FILE)
    assert not is_genome(yaml.safe_load(tiny.SPACE))


def test_what_a_genome_leaves_out_is_as_in_mergekit_evolve(folder: Path) -> None:
    space = load(folder, apply_chat_template=None)
    assert list(space.parents) == ["one", "two"]
    assert str(space.base) == str(folder / "models/base")
    assert space.granularity.layers_per_block is None
    assert (space.granularity.groups, space.granularity.smooth) == ((), False)
    assert space.tokenizer_source is None
    assert (space.search.trials, space.search.seed) == (100, 0)
    (task,) = space.load_suite().search
    assert (task.task, task.metric, task.weight) == ("first", "acc,none", 1)
    assert (task.limit, task.num_fewshot) == (None, None)
    assert task.apply_chat_template and task.fewshot_as_multiturn


def test_a_block_has_so_many_layers_and_each_filter_its_own_parameters(folder: Path) -> None:
    space = load(folder, {"layer_granularity": 2, "filters": ["self_attn", "mlp"], "smooth": True})
    granularity = space.granularity
    assert (granularity.layers_per_block, granularity.smooth) == (2, True)
    assert granularity.groups == ("self_attn", "mlp")
    assert granularity.by_block == granularity.per_parent == ("density",)


@pytest.mark.parametrize("layers", [0, -1])
def test_a_granularity_below_one_is_one_set_for_all_layers(folder: Path, layers: int) -> None:
    assert load(folder, {"layer_granularity": layers}).granularity.layers_per_block is None


DOMAINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": (
        {"merge_method": "linear", "base_model": None},
        {"weight": Range(0, 1), "normalize": Fixed(True)},
    ),
    "linear of any weights": (
        {
            "merge_method": "linear",
            "base_model": None,
            "normalize": False,
            "allow_negative_weights": True,
        },
        {"weight": Range(-1, 1), "normalize": Fixed(False)},
    ),
    "task_arithmetic": (
        {"merge_method": "task_arithmetic"},
        {"weight": Range(0, 1.5), "normalize": Fixed(False), "lambda": Fixed(1.0)},
    ),
    "ties": (
        {"allow_negative_weights": True},
        {
            "weight": Range(-1.5, 1.5),
            "density": Range(0.01, 1),
            "normalize": Fixed(True),
            "lambda": Fixed(1.0),
        },
    ),
    "dare_ties": (
        {"merge_method": "dare_ties", "normalize": False},
        {
            "weight": Range(0, 1.5),
            "density": Range(0.01, 1),
            "normalize": Fixed(False),
            "lambda": Fixed(1.0),
        },
    ),
    "slerp": ({"merge_method": "slerp", "base_model": None}, {"t": Range(0, 1)}),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_each_method_searches_what_its_genotype_holds(folder: Path, name: str) -> None:
    genome, expected = DOMAINS[name]
    space = load(folder, genome)
    assert space.methods == {genome.get("merge_method", "ties"): expected}


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_ties"])
def test_a_base_among_the_models_has_no_delta_to_weigh(folder: Path, method: str) -> None:
    models = ["models/one", "models/base", "models/two"]
    space = load(folder, {"models": models, "merge_method": method})
    assert space == load(folder, {"merge_method": method})


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_base_among_the_models_is_one_of_them_where_there_are_no_deltas(
    folder: Path, method: str
) -> None:
    models = ["models/one", "models/base", "models/two"]
    space = load(folder, {"models": models, "merge_method": method})
    assert space.base is None
    assert [Path(ref.model.path).name for ref in space.parents.values()] == ["one", "base", "two"]


NAMES = {
    "last parts": (["models/one", "org/my.model@v2"], ["one", "my-model-v2"]),
    "adapters": (["models/one+loras/a", "models/one+loras/b"], ["a", "b"]),
    "an adapter of two models": (["models/one+x", "models/two+x"], ["one-x", "two-x"]),
    "as much as tells them apart": (
        ["models/one", "models/other/one"],
        ["models-one", "other-one"],
    ),
    "not the base's": (["models/base", "models/two"], ["models-base", "models-two"]),
    "not the search's best": (["models/winner", "winner"], ["model-1", "model-2"]),
    "not the best parent's": (["models/parents", "models/two"], ["models-parents", "models-two"]),
    "sizes": (["models/7B", "models/1e3"], ["7B", "1e3"]),
    "numbers where nothing does": (["models/one", "base"], ["model-1", "model-2"]),
    "the same but for what a name may not have": (["a.b", "a@b"], ["model-1", "model-2"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_parents_are_named_after_the_ends_of_their_references(folder: Path, case: str) -> None:
    made = ("base", "winner", "x", "loras/a", "loras/b", "a.b")
    for name in (*made, "models/winner", "models/parents", "models/7B", "models/1e3"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    models, names = NAMES[case]
    space = load(folder, {"models": models, "merge_method": "linear", "base_model": None})
    assert list(space.parents) == names


def test_tasks_have_weights_metrics_and_what_is_said_for_all_of_them(folder: Path) -> None:
    tasks = ["first", {"name": "second", "weight": 2, "metric": "exact_match,strict-match"}]
    held_out = [{"name": "third", "metric": "acc"}]
    space = load(
        folder,
        tasks=tasks,
        limit=5,
        num_fewshot=3,
        apply_chat_template=True,
        fewshot_as_multiturn=False,
        held_out=held_out,
        allow_benchmarks=True,
    )
    read = space.load_suite()
    assert [(s.task, s.metric, s.weight, s.limit) for s in read.search] == [
        ("first", "acc,none", 1, 5),
        ("second", "exact_match,strict-match", 2, 5),
    ]
    assert [(s.task, s.metric, s.limit) for s in read.held_out] == [("third", "acc", None)]
    for spec in (*read.search, *read.held_out):
        assert (spec.num_fewshot, spec.apply_chat_template) == (3, True)
        assert not spec.fewshot_as_multiturn
    assert read.include_path == (folder / "tasks",)
    assert read.allow_benchmarks


def test_the_metric_that_is_left_out_is_accuracy(family: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(family / "models" / "base")
    (task,) = Evaluator(load(family).load_suite(), tokenizer).tasks("search")
    assert (task.id.metric, task.id.filter, task.id.higher_is_better) == ("acc", "none", True)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"max_fevals": 3}, "unknown key 'max_fevals'; "),
    "unknown key of the genome": (
        {"genome": {"filter": ["mlp"]}},
        "genome: unknown key 'filter'; did you mean 'filters'?",
    ),
    "unknown key of a task": (
        {"tasks": [{"name": "first", "wieght": 2}]},
        "tasks.0: unknown key 'wieght'; did you mean 'weight'?",
    ),
    "unknown method": (
        {"genome": {"merge_method": "tise"}},
        "genome.merge_method: unknown merge_method 'tise'; did you mean 'ties'?",
    ),
    "method of a space only": (
        {"genome": {"merge_method": "della"}},
        "genome.merge_method: mergekit-evolve searches linear, task_arithmetic, ties, dare_ties, "
        "slerp, got 'della'; write a space, whose key methods takes every method",
    ),
    "no models": ({"genome": {"models": []}}, "genome.models: "),
    "no base": (
        {"genome": {"base_model": None}},
        "genome: ties needs a base_model; name the models' common ancestor",
    ),
    "the base alone": (
        {"genome": {"models": ["models/base"]}},
        "genome: models must name a model beside the base_model, got models/base alone",
    ),
    "linear with a base beside the models": (
        {"genome": {"merge_method": "linear"}},
        "genome: linear merges models only, and base_model models/base is none of them; add it to "
        "models or leave it out",
    ),
    "linear with a tokenizer": (
        {"genome": {"merge_method": "linear", "base_model": None, "tokenizer_source": "union"}},
        "genome: tokenizer_source goes with methods that have a base, not with linear; leave it "
        "out, which merges models of one vocabulary",
    ),
    "tokenizer of no model": (
        {"genome": {"tokenizer_source": "models/a/b/c"}},
        "no such model folder: ",
    ),
    "slerp by filter": (
        {"genome": {"merge_method": "slerp", "base_model": None, "filters": ["mlp"]}},
        "genome: slerp takes neither smooth nor filters, as in mergekit-evolve; write a space",
    ),
    "smooth slerp": (
        {"genome": {"merge_method": "slerp", "base_model": None, "smooth": True}},
        "genome: slerp takes neither smooth nor filters",
    ),
    "slerp of one model": (
        {"genome": {"merge_method": "slerp", "base_model": None, "models": ["models/one"]}},
        "genome: slerp needs two models, got 1",
    ),
    "a pair for each block": (
        {
            "genome": {
                "merge_method": "slerp",
                "models": ["models/base", "models/one", "models/two"],
                "layer_granularity": 2,
            }
        },
        "genome: slerp of 3 models chooses one pair for all layers, and layer_granularity would "
        "choose one a block; leave it out, or give two models",
    ),
    "same model twice": (
        {"genome": {"models": ["models/one", "models/one"]}},
        "parents: model-1 and model-2 are the same model",
    ),
    "missing model": ({"genome": {"models": ["models/a/b/c"]}}, "no such model folder: "),
    "no tasks": ({"tasks": []}, "tasks: "),
    "negative weight": (
        {"tasks": [{"name": "first", "weight": -1.5}]},
        "tasks.0.weight: a weight must be above 0, since the task itself says whether lower is "
        "better, got -1.5; write 1.5",
    ),
    "weight of zero": (
        {"tasks": [{"name": "first", "weight": 0}]},
        "tasks.0.weight: a weight must be above 0, got 0; leave the task out",
    ),
    "a task twice": (
        {"tasks": ["first", {"name": "first", "metric": "f1"}]},
        "a task may appear once in a split, but 'first' appears 2 times",
    ),
    "limit of zero": ({"limit": 0}, "limit: "),
    "shuffled sample": (
        {"shuffle": True, "limit": 5},
        "shuffle with limit: 5 scores other documents in every process, which leaves candidates "
        "that cannot be compared; leave shuffle out",
    ),
    "missing folder of tasks": ({"include_path": "task"}, "include_path: must be a folder, but"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_a_genome_is_one_line_that_begins_with_the_file(
    folder: Path, case: str
) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(InputError) as raised:
        load(folder, **changes)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{folder / 'genome.yml'}: ")
    assert "\n" not in str(raised.value)


def test_shuffling_what_is_scored_in_full_changes_nothing(folder: Path) -> None:
    assert load(folder, shuffle=True) == load(folder)


STARTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "linear": ({"base_model": None}, ["uniform soup", "one", "two"]),
    "task_arithmetic": (
        {},
        ["uniform soup", *(f"task arithmetic at {n}" for n in ("0.3", "0.5", "1")), "one", "two"],
    ),
    "ties": ({"layer_granularity": 2, "filters": ["mlp"]}, ["one", "two"]),
    "dare_ties": ({}, []),
    "slerp": ({"base_model": None}, []),
}


@pytest.mark.parametrize("method", STARTS)
def test_a_search_begins_with_points_that_its_space_holds(folder: Path, method: str) -> None:
    genome, labels = STARTS[method]
    genome = {**genome, "merge_method": method}
    found, left_out = starts(load(folder, genome), SHAPE)
    assert ([start.label for start in found], left_out) == (labels, [])
    assert starts(load(folder, genome, random_init=True), SHAPE) == ([], [])


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_densities_vary_by_model_block_and_filter(family: Path, method: str, smooth: bool) -> None:
    genome = {"merge_method": method, "layer_granularity": 2, "filters": ["mlp"], "smooth": smooth}
    space = load(family, genome)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    recipe = suggest(space, trial, SHAPE)
    assert isinstance(recipe, Recipe)
    jobs = plan_merge(recipe, Parents(space.models)).jobs
    densities = {
        job.name: job.arguments["density"] for job in jobs if job.name.startswith("model.layers")
    }
    ends = [
        densities[f"model.layers.{layer}.{part}.weight"]
        for layer in (0, 3)
        for part in ("mlp.up_proj", "self_attn.q_proj")
    ]
    assert len({density for pair in ends for density in pair}) == 8
    assert all(0.01 <= density <= 1 for pair in densities.values() for density in pair)


def test_a_genome_is_searched(family: Path) -> None:
    space = load(family, {"layer_granularity": 2}, tasks=["first", {"name": "second", "weight": 2}])
    space = space.model_copy(update={"search": space.search.model_copy(update={"trials": 3})})
    outcome = search(space, family / "run", device="cpu")
    assert outcome.best.recipe.merge_method == "ties"
