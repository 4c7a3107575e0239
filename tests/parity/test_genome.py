"""A genotype of mergekit-evolve 0.1.5 and the same numbers in the space that we read from its
genome file give every tensor the same arguments."""

import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from torch import Tensor

from mergesearch.config import Config
from mergesearch.errors import InputError
from mergesearch.merging import Job, plan_merge
from mergesearch.methods import METHODS
from mergesearch.parents import Parents
from mergesearch.recipe import ModelRef, Recipe, read_recipe
from mergesearch.space import SearchSpace, Shape, suggest
from mergesearch.space.domains import Range
from mergesearch.space.genome import Genome, GenomeFile, GenomeTask
from tests.parity.peer import needs_mergekit, run_script

pytestmark = needs_mergekit

N_LAYERS = 4
N_GENOTYPES = 3

ALONE: dict[str, Any] = {"models": ["one", "two", "three"]}
DELTAS: dict[str, Any] = {**ALONE, "base_model": "base"}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "blocks": {"layer_granularity": 2},
    "blocks of one layer": {"layer_granularity": 1},
    "one block": {"layer_granularity": 4},
    "filters": {"filters": ["self_attn", "mlp"]},
    "blocks and filters": {"layer_granularity": 2, "filters": ["mlp", "up_proj", "norm"]},
    "filters beside the layers": {"layer_granularity": 2, "filters": ["embed_tokens"]},
    "smooth": {"layer_granularity": 1, "smooth": True},
    "smooth filters": {"layer_granularity": 2, "smooth": True, "filters": ["mlp"]},
    "smooth beside the layers": {
        "layer_granularity": 2,
        "smooth": True,
        "filters": ["embed_tokens", "mlp"],
    },
    "negative": {"layer_granularity": 2, "allow_negative_weights": True},
    "normalized": {"normalize": True},
    "not normalized": {"normalize": False, "layer_granularity": 2},
}
GENOMES: dict[str, dict[str, Any]] = {
    **{
        f"{method}, {name}": {**models, **options, "merge_method": method}
        for method, models in {
            "linear": ALONE,
            "task_arithmetic": DELTAS,
            "ties": DELTAS,
            "dare_ties": DELTAS,
        }.items()
        for name, options in OPTIONS.items()
    },
    "ties, base among the models": {
        "models": ["one", "base", "two"],
        "base_model": "base",
        "merge_method": "ties",
        "layer_granularity": 2,
        "filters": ["mlp"],
    },
    "linear, base among the models": {
        "models": ["one", "base", "two"],
        "base_model": "base",
        "merge_method": "linear",
        "layer_granularity": 2,
    },
    "ties, vocabulary": {**DELTAS, "merge_method": "ties", "tokenizer_source": "union"},
    "slerp": {"models": ["one", "two"], "merge_method": "slerp"},
    "slerp, blocks": {"models": ["one", "two"], "merge_method": "slerp", "layer_granularity": 1},
    "slerp, negative": {
        "models": ["one", "two"],
        "merge_method": "slerp",
        "normalize": True,
        "allow_negative_weights": True,
    },
    "slerp, base among the models": {
        "models": ["base", "one"],
        "base_model": "base",
        "merge_method": "slerp",
    },
    "slerp, three models": {**ALONE, "merge_method": "slerp"},
}
#: A file but for its genome, with the keys that mergekit-evolve passes over.
EXTENDED: dict[str, Any] = {
    "tasks": ["any", {"name": "other", "weight": 0.5, "metric": "acc_norm,none"}],
    "limit": 100,
    "include_path": "tasks",
    "held_out": ["third"],
    "allow_benchmarks": True,
}

CONFIGS = """
import json, sys
import torch
from mergekit.evo.config import EvolMergeConfiguration
from mergekit.evo.genome import ModelGenome
configs = []
for file, genotypes in json.load(open(sys.argv[1])):
    genome = ModelGenome(EvolMergeConfiguration.model_validate(file).genome)
    tensors = [torch.tensor(g, dtype=torch.float64) for g in genotypes]
    configs.append([genome.genotype_merge_config(g).to_yaml() for g in tensors])
json.dump(configs, open(sys.argv[2], "w"))
"""
DECLARED = """
import json
from mergekit.evo.config import EvolMergeConfiguration, TaskConfiguration
from mergekit.evo.genome import METHOD_PARAM_MAPS, ModelGenomeDefinition
parts = EvolMergeConfiguration, ModelGenomeDefinition, TaskConfiguration
def default(field):
    return None if field.is_required() else field.default
fields = [{name: default(f) for name, f in part.model_fields.items()} for part in parts]
print(json.dumps({"fields": fields, "methods": METHOD_PARAM_MAPS}))
"""
TRIED = """
import json, sys
from mergekit.evo.genome import ModelGenome, ModelGenomeDefinition
from mergekit.merge import MergeOptions, run_merge
errors = []
for definition in json.load(open(sys.argv[1])):
    try:
        genome = ModelGenome(ModelGenomeDefinition.model_validate(definition))
        config = genome.genotype_merge_config(genome.initial_genotype())
        run_merge(config, sys.argv[3], options=MergeOptions(quiet=True))
        errors.append("")
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
json.dump(errors, open(sys.argv[2], "w"))
"""


def located(genome: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The genome with its models in a folder, since mergekit's paths begin where it runs."""
    moved = dict(genome)
    moved["models"] = [str(folder / name) for name in genome["models"]]
    if "base_model" in genome:
        moved["base_model"] = str(folder / genome["base_model"])
    return moved


def genotypes(genome: Mapping[str, Any]) -> Tensor:
    """Some genotypes: for each block, model, filter or none, and parameter a number in [-1, 1]."""
    granularity = genome.get("layer_granularity", 0)
    shape = (
        N_GENOTYPES,
        N_LAYERS // granularity if granularity else 1,
        len(genome["models"]),
        len(genome.get("filters", ())) + 1,
        2 if METHODS[genome["merge_method"]].parameter("density") else 1,
    )
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, shape, generator=generator) * 2 - 1
    # four digits, of which a space's suggestions are; and no density so small that it has none
    return signs * (0.05 + 0.95 * torch.rand(shape, generator=generator)).double().round(decimals=4)


@pytest.fixture(scope="module")
def configs(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Recipe]]:
    """What mergekit-evolve makes of the genotypes of each genome."""
    folder = tmp_path_factory.mktemp("genomes")
    asked = [
        (EXTENDED | {"genome": located(genome, models / "plain")}, genotypes(genome))
        for genome in GENOMES.values()
    ]
    calls, answers = folder / "calls.json", folder / "answers.json"
    calls.write_text(json.dumps([(file, tensor.tolist()) for file, tensor in asked]))
    run_script(CONFIGS, calls, answers)
    texts = json.loads(answers.read_text())
    return {
        name: [read_recipe(text) for text in of] for name, of in zip(GENOMES, texts, strict=True)
    }


def load(genome: Mapping[str, Any], folder: Path) -> SearchSpace:
    path = folder / "genome.yml"
    (folder / "tasks").mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(EXTENDED | {"genome": dict(genome)}))
    return SearchSpace.load(path)


def outside(genome: Mapping[str, Any]) -> frozenset[str]:
    """The filters that match no tensor of a layer."""
    return frozenset({"embed_tokens"} & set(genome.get("filters", ())))


def values(
    genome: Mapping[str, Any], genotype: Tensor, parents: Mapping[str, str]
) -> dict[str, float]:
    """A genotype's numbers by their names in the study; `parents` says how models are called."""
    groups = [f".{name}" for name in (*genome.get("filters", ()), "rest")]
    found: dict[str, float] = {}
    for (b, block), (m, model), (g, group) in product(
        enumerate(genotype), enumerate(genome["models"]), enumerate(groups)
    ):
        if model not in parents:  # the base among the models, whose delta is zero
            continue
        at = f".{b}" if len(genotype) > 1 and group[1:] not in outside(genome) else ""
        key = f".{parents[model]}{at}{group if len(groups) > 1 else ''}"
        weight, *densities = block[m, g].tolist()
        if not genome.get("allow_negative_weights"):
            weight = abs(weight)
        # what is before the layers is merged with the first block's values: those are kept
        found.setdefault(f"weight{key}", weight)
        for density in densities:
            found.setdefault(f"{genome['merge_method']}.density{key}", abs(density))
    return found


def pair_values(
    genome: Mapping[str, Any], genotype: Tensor, parents: Mapping[str, str]
) -> dict[str, Any]:
    """The same for slerp: the two largest weights are the pair, and their softmax its t."""
    found: dict[str, Any] = {}
    for b, weights in enumerate(genotype[:, :, 0, 0]):
        first, second = sorted(weights.topk(2).indices.tolist())
        found["slerp.pair"] = "|".join(parents[genome["models"][i]] for i in (first, second))
        key = f"slerp.t.{b}" if len(genotype) > 1 else "slerp.t"
        found[key] = float(torch.sigmoid(weights[second] - weights[first]))
    return found


def made(job: Job) -> tuple[tuple[ModelRef, ...], dict[str, Any]]:
    """What a tensor is made of, the base first, and the arguments; slerp's in one order."""
    models, arguments = tuple(one.model for one in job.inputs), dict(job.arguments)
    if "t" in arguments and str(models[0]) > str(models[1]):
        return models[::-1], {"t": 1 - arguments["t"]}
    return models, arguments


@pytest.mark.parametrize("name", GENOMES)
def test_a_genotype_means_the_same_merge(
    configs: dict[str, list[Recipe]], models: Path, tmp_path: Path, name: str
) -> None:
    genome = GENOMES[name]
    space = load(located(genome, models / "plain"), tmp_path)
    vocabulary = space.tokenizer_source or "error"
    parents = Parents(space.models, vocabulary=vocabulary, base=space.base)
    names = {Path(ref.model.path).name: name for name, ref in space.parents.items()}
    is_slerp = genome["merge_method"] == "slerp"
    for genotype, theirs in zip(genotypes(genome), configs[name], strict=True):
        params = (pair_values if is_slerp else values)(genome, genotype, names)
        trial = optuna.trial.FixedTrial(params)
        ours = suggest(space, trial, Shape(N_LAYERS, outside(genome)))
        assert isinstance(ours, Recipe)
        assert ours.tokenizer_source == theirs.tokenizer_source
        jobs, expected = plan_merge(ours, parents).jobs, plan_merge(theirs, parents).jobs
        assert [job.name for job in jobs] == [job.name for job in expected]
        for job, other in zip(jobs, expected, strict=True):
            sources, arguments = made(job)
            their_sources, their_arguments = made(other)
            assert sources == their_sources, job.name
            assert arguments.keys() == their_arguments.keys()
            for argument, value in their_arguments.items():
                # four digits of a softmax; the genotypes' own have no more
                close = pytest.approx(value, abs=1e-4 if is_slerp else 1e-9)
                assert arguments[argument] == close, (job.name, argument)


@pytest.fixture(scope="module")
def declared() -> dict[str, Any]:
    """What mergekit-evolve says of the keys of its files and of its methods."""
    return json.loads(run_script(DECLARED))


def test_the_keys_of_a_genome_file_are_mergekits_with_their_defaults(
    declared: dict[str, Any],
) -> None:
    ours: tuple[type[Config], ...] = (GenomeFile, Genome, GenomeTask)
    for part, fields in zip(ours, declared["fields"], strict=True):
        own = {
            name: None if field.is_required() else field.default
            for name, field in part.model_fields.items()
        }
        beside = {"include_path", "held_out", "allow_benchmarks"} if part is GenomeFile else set()
        assert {name: default for name, default in own.items() if name not in beside} == fields


def test_the_methods_of_a_genome_are_mergekits_with_what_it_searches(
    declared: dict[str, Any], models: Path, tmp_path: Path
) -> None:
    theirs = declared["methods"]
    accepted = {}
    for method in METHODS:
        genome = {"models": ["one", "two", "base"], "base_model": "base", "merge_method": method}
        try:
            space = load(located(genome, models / "plain"), tmp_path)
        except InputError:
            continue
        domains = space.domains[method]
        accepted[method] = {key for key, domain in domains.items() if isinstance(domain, Range)}
    assert accepted == {method: set(searched) for method, searched in theirs.items()}


FAILING: dict[str, dict[str, Any]] = {
    "linear, base beside the models": {**DELTAS, "merge_method": "linear"},
    "slerp, base beside the models": {**DELTAS, "merge_method": "slerp"},
    "slerp, filters": {**ALONE, "merge_method": "slerp", "filters": ["mlp"]},
    "slerp, smooth": {**ALONE, "merge_method": "slerp", "smooth": True},
    "slerp, one model": {"models": ["one"], "merge_method": "slerp"},
    "ties, no base": {**ALONE, "merge_method": "ties"},
    "della": {**DELTAS, "merge_method": "della"},
}


def test_what_fails_in_mergekit_evolve_is_refused_here(models: Path, tmp_path: Path) -> None:
    genomes = {name: located(genome, models / "plain") for name, genome in FAILING.items()}
    calls, answers = tmp_path / "calls.json", tmp_path / "answers.json"
    calls.write_text(json.dumps(list(genomes.values())))
    run_script(TRIED, calls, answers, tmp_path / "merged")
    for error, (name, genome) in zip(json.loads(answers.read_text()), genomes.items(), strict=True):
        assert error, name
        with pytest.raises(InputError):
            load(genome, tmp_path)
