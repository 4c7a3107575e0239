"""What is scored: tasks over the test bed's documents, and the goals."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Workload:
    """One task, and how many times faster than lm-eval's own run it is to be scored."""

    name: str
    #: What is measured, in words.
    what: str
    #: The task of the test bed whose documents it takes.
    source: str
    #: Of its YAML, in place of the source's.
    changes: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "acc"
    num_fewshot: int | None = None
    n_documents: int = 200
    goal: float | None = None

    def write(self, sources: Path, out: Path) -> None:
        """Write the task's YAML, which is also JSON."""
        task = json.loads((sources / f"{self.source}.yaml").read_text())
        # solved examples come from other documents than those that are scored
        files = task["dataset_kwargs"]["data_files"]
        others = files["test"].replace("_dev", "_test")
        task |= {"training_split": "train", "fewshot_split": "train"}
        task["dataset_kwargs"] = {"data_files": {**files, "train": others}}
        task = {**task, "task": self.name, **self.changes}
        task = {key: value for key, value in task.items() if value is not None}
        (out / f"{self.name}.yaml").write_text(json.dumps(task))


_TYPES = ["description", "entity", "abbreviation", "person", "number", "location"]
#: Six choices of several tokens.
_LONG_CHOICES = [
    "a description of something",
    "an entity, such as an animal",
    "the meaning of an abbreviation",
    "a person or a group of people",
    "a number, a date or a price",
    "a location, such as a city",
]
#: The same solved examples before every document.
_SAME_SHOTS = {"fewshot_config": {"sampler": "first_n"}}
_GENERATES = {
    **_SAME_SHOTS,
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": "{{" + f"{_TYPES}[label]" + "}}",
    # never said, so that every document takes all of its tokens
    "generation_kwargs": {"until": ["<|never|>"], "max_gen_toks": 64, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}

WORKLOADS = (
    Workload("zero_shot", "zero-shot, one-token choices", "sst2_dev", goal=1.3),
    Workload(
        "long_choices",
        "zero-shot, six choices of several tokens",
        "trec_dev",
        {"doc_to_choice": _LONG_CHOICES},
        goal=3,
    ),
    Workload(
        "few_shot",
        "5-shot, the same examples for every document, one-token choices",
        "sst2_dev",
        _SAME_SHOTS,
        num_fewshot=5,
        n_documents=100,
        goal=8,
    ),
    Workload(
        "few_shot_long_choices",
        "5-shot, the same examples, six choices of several tokens",
        "trec_dev",
        {**_SAME_SHOTS, "doc_to_choice": _LONG_CHOICES},
        num_fewshot=5,
        n_documents=20,
        goal=8,
    ),
    Workload(
        "other_shots",
        "5-shot, other examples for every document",
        "sst2_dev",
        num_fewshot=5,
        n_documents=50,
    ),
    Workload(
        "generation",
        "generation, 5-shot, 64 new tokens",
        "trec_dev",
        _GENERATES,
        metric="exact_match",
        num_fewshot=5,
        n_documents=48,
        goal=1.5,
    ),
)
