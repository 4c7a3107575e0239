"""The demo's family on disk: base, an expert a skill, tasks, suite and space."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import yaml

from mergesearch.demo.llama import new_config, new_weights, save_model
from mergesearch.demo.skills import SKILLS, Split, exam
from mergesearch.demo.tokenizer import build_tokenizer
from mergesearch.demo.train import base_examples, expert_examples, train
from mergesearch.errors import InputError
from mergesearch.files import whole_folder
from mergesearch.runtime import torch_threads
from mergesearch.space.json_schema import space_schema
from mergesearch.tasks.json_schema import suite_schema

_SUITE = """\
# yaml-language-server: $schema=schemas/suite.json
# Three skills: what the search may see, and what its winner is judged by. Coefficients are learned
# from the documents that the limits leave over.
include_path: tasks/
search:
{search}
held_out:
{held_out}
"""

_SPACE = """\
# yaml-language-server: $schema=schemas/space.json
# A base, an expert for each of three skills, and the merges of them worth trying.
base: models/base
parents:
{parents}
granularity: {{groups: [self_attn, mlp]}}   # finer, by depth too, asks for more trials than this
methods:
  learned:         {{of: task_arithmetic}}   # a weight for each parent and module, by gradient
  task_arithmetic: {{weight: [0.0, 1.2]}}
  ties:            {{weight: [0.0, 1.5], density: [0.2, 1.0]}}
  dare_ties:       {{weight: [0.0, 1.5], density: [0.2, 1.0]}}
  linear:          {{weight: [0.0, 1.0]}}
suite: suite.yaml
search:
  sampler: tpe
  trials: {trials}
  seed: 0
  start_from: [learned, parents, uniform, task_arithmetic]
"""


@dataclass(frozen=True)
class FamilySize:
    """Sizes of the models and their tasks, and of their training."""

    layers: int = 4
    hidden: int = 64
    base_steps: int = 800
    expert_steps: int = 140
    batch: int = 48  # documents a step
    #: Share of the base's exercises that are answered rightly and not by habit.
    insight: float = 0.2
    dev_documents: int = 300  # for each skill
    test_documents: int = 400
    trials: int = 48


def build_family(
    out: Path,
    *,
    seed: int = 0,
    size: FamilySize | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> None:
    """Train the family and write it to a folder, unless it is there already.

    The folder appears whole or not at all: it is built beside it and moved there when done. The
    same seed and size give the same bytes; see `mergesearch.demo` for other processors.

    Args:
        out: the folder: `models/`, `tasks/`, `suite.yaml`, `space.yaml`, `schemas/`, by which
            editors check these two, and `family.json`, which says what was built.
        seed: of every random number: initial weights, training texts, exams.
        size: how much to train; by default what `mergesearch demo` needs.
        progress: is told what is going on, one line at a time.

    Raises:
        InputError: the folder holds something else than this family.
    """
    size = size or FamilySize()
    identity = json.dumps({"seed": seed, "size": asdict(size)}, indent=1) + "\n"
    if out.exists():
        stamp = out / "family.json"
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != identity:
            raise InputError(
                f"{out} must not exist or must hold the demo family of {seed=}, but it holds "
                "something else; remove it or give another folder"
            )
        progress(f"{out}: built before")
        return
    # a step of a tiny model is over before threads have met
    with whole_folder(out) as folder, torch_threads(1):
        _write_tasks(folder / "tasks", seed, size)
        _write_models(folder / "models", seed, size, progress)
        _write_configs(folder, size)
        (folder / "family.json").write_text(identity, encoding="utf-8")


def _random(seed: int, *purpose: str) -> Random:
    """Make a generator for each purpose, so that none shifts what another draws."""
    return Random("/".join([str(seed), *purpose]))


def _write_models(
    folder: Path, seed: int, size: FamilySize, progress: Callable[[str], None]
) -> None:
    tokenizer = build_tokenizer()
    config = new_config(tokenizer, layers=size.layers, hidden=size.hidden)
    base = train(
        new_weights(config, seed),
        config,
        base_examples(tokenizer, _random(seed, "base"), insight=size.insight),
        steps=size.base_steps,
        batch=size.batch,
        learning_rate=3e-3,
        progress=_named("base", progress),
    )
    models = {"base": base}
    for skill in SKILLS:
        models[skill] = train(
            base,
            config,
            expert_examples(tokenizer, _random(seed, "expert", skill), skill=skill),
            steps=size.expert_steps,
            batch=size.batch,
            learning_rate=1e-3,  # gentle, so that the experts stay in the base's basin
            progress=_named(skill, progress),
        )
    for name, weights in models.items():
        save_model(weights, config, folder / name)
        tokenizer.save_pretrained(folder / name)


def _named(name: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda message: progress(f"{name}: {message}")


def _write_tasks(folder: Path, seed: int, size: FamilySize) -> None:
    folder.mkdir()
    sizes: dict[Split, int] = {"dev": size.dev_documents, "test": size.test_documents}
    for skill in SKILLS:
        for split, n_documents in sizes.items():
            name = f"{skill}_{split}"
            documents = exam(skill, split, n_documents, _random(seed, split, skill))
            lines = [json.dumps(document) + "\n" for document in documents]
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
            task = {
                "task": name,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": f"{name}.jsonl"}},
                "output_type": "multiple_choice",
                "test_split": "test",
                "doc_to_text": "{{prompt}}",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "label",
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
                "metadata": {"version": 1.0},
            }
            text = yaml.safe_dump(task, sort_keys=False)
            (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def _write_configs(folder: Path, size: FamilySize) -> None:
    def tasks(split: Split, limit: str = "") -> str:
        return "\n".join(f"  - {{task: {skill}_{split}, metric: acc{limit}}}" for skill in SKILLS)

    parents = "\n".join(f"  {skill}: models/{skill}" for skill in SKILLS)
    suite = _SUITE.format(
        search=tasks("dev", f", limit: {size.dev_documents - size.dev_documents // 3}"),
        held_out=tasks("test"),
    )
    space = _SPACE.format(parents=parents, trials=size.trials)
    (folder / "schemas").mkdir()
    for name, schema in (("space", space_schema()), ("suite", suite_schema())):
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (folder / "schemas" / f"{name}.json").write_text(text, encoding="utf-8")
    (folder / "suite.yaml").write_text(suite, encoding="utf-8")
    (folder / "space.yaml").write_text(space, encoding="utf-8")
