"""lm-eval's own tasks, their YAML and functions as they come, over documents made here."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mergesearch.evaluation import Evaluator
from mergesearch.scores import Scores
from mergesearch.tasks import Suite, TaskSpec
from tests.evaluating import answers_of

TASKS = Path(lm_eval.tasks.__file__).parent
WORDS = ["sun", "moon", "rain", "wind", "snow", "hail", "fog", "ice", "dew", "heat", "dust", "mist"]


def words(seed: int, n: int) -> str:
    return " ".join(WORDS[(7 * seed + 5 * k + seed * k) % len(WORDS)] for k in range(n))


def close(want: Any) -> Any:
    return pytest.approx(want, abs=1e-4, rel=1e-6)


def lettered(i: int, n: int) -> dict[str, list[str]]:
    return {"text": [words(i + k, 1 + k % 3) for k in range(n)], "label": list("ABCDE"[:n])}


@dataclass(frozen=True)
class BuiltIn:
    """One of lm-eval's YAML files, and a document for it."""

    file: str
    row: Callable[[int], dict[str, Any]]
    metrics: tuple[str, ...] = ("acc",)
    num_fewshot: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)


BUILT_IN = {
    "hellaswag": BuiltIn(
        "hellaswag/hellaswag.yaml",
        lambda i: {
            "activity_label": words(i, 1),
            "ctx_a": f"{words(i, 3)}.",
            "ctx_b": words(i + 1, 2),
            "endings": [words(i + k, 2 + k) for k in range(4)],
            "label": str(i % 4),
        },
        ("acc", "acc_norm"),
    ),
    "arc_easy": BuiltIn(
        "arc/arc_easy.yaml",
        lambda i: {
            "question": words(i, 4),
            "choices": lettered(i, 3 + i % 2),
            "answerKey": "ABC"[i % 3],
        },
        ("acc", "acc_norm"),
        num_fewshot=2,
    ),
    "piqa": BuiltIn(
        "piqa/piqa.yaml",
        lambda i: {
            "goal": words(i, 4),
            "sol1": words(i, 3),
            "sol2": words(i + 2, 5),
            "label": i % 2,
        },
        ("acc", "acc_norm"),
    ),
    "boolq": BuiltIn(
        "super_glue/boolq/default.yaml",
        lambda i: {"passage": words(i, 9), "question": words(i + 3, 4), "label": i % 2},
        num_fewshot=1,
    ),
    "winogrande": BuiltIn(
        "winogrande/default.yaml",
        lambda i: {
            "sentence": f"{words(i, 3)} because _ was {words(i + 4, 2)}",
            "option1": words(i, 1),
            "option2": words(i + 1, 2),
            "answer": str(1 + i % 2),
        },
        num_fewshot=2,
    ),
    "copa": BuiltIn(
        "super_glue/copa/default.yaml",
        lambda i: {
            "premise": f"{words(i, 3)}.",
            "choice1": f"{words(i + 1, 2)}.",
            "choice2": f"{words(i + 2, 3)}.",
            "question": ["cause", "effect"][i % 2],
            "label": i % 2,
        },
    ),
    "openbookqa": BuiltIn(
        "openbookqa/openbookqa.yaml",
        lambda i: {
            "question_stem": words(i, 5),
            "choices": lettered(i, 4),
            "answerKey": "ABCD"[i % 4],
        },
        ("acc_norm",),
    ),
    "sciq": BuiltIn(
        "sciq/sciq.yaml",
        lambda i: {
            "support": words(i, 6),
            "question": words(i + 1, 3),
            **{f"distractor{k}": words(i + k, k) for k in (1, 2, 3)},
            "correct_answer": words(i + 5, 2),
        },
    ),
    "truthfulqa_mc1": BuiltIn(  # a long prompt that all documents share
        "truthfulqa/truthfulqa_mc1.yaml",
        lambda i: {
            "question": words(i, 4),
            "mc1_targets": {"choices": [words(i + k, 2) for k in range(3)], "labels": [1, 0, 0]},
        },
    ),
    "truthfulqa_mc2": BuiltIn(  # graded by a function of its own
        "truthfulqa/truthfulqa_mc2.yaml",
        lambda i: {
            "question": words(i, 4),
            "mc2_targets": {"choices": [words(i + k, 2) for k in range(4)], "labels": [1, 1, 0, 0]},
        },
    ),
    "mmlu": BuiltIn(  # the same examples before every document
        "mmlu/default/mmlu_abstract_algebra.yaml",
        lambda i: {
            "question": words(i, 5),
            "choices": [words(i + k, 1 + k % 2) for k in range(4)],
            "answer": i % 4,
        },
        num_fewshot=3,
    ),
    "mrpc": BuiltIn(
        "glue/mrpc/default.yaml",
        lambda i: {"sentence1": words(i, 3), "sentence2": words(i + i % 2, 3), "label": i % 2},
        ("acc", "f1"),
    ),
    "cola": BuiltIn(
        "glue/cola/default.yaml",
        lambda i: {"sentence": words(i, 4), "label": i % 2},
        ("mcc",),
    ),
    "blimp": BuiltIn(  # no context at all
        "blimp/adjunct_island.yaml",
        lambda i: {"sentence_good": f"{words(i, 3)}.", "sentence_bad": f"{words(i + 1, 4)}."},
    ),
    "lambada_openai": BuiltIn(
        "lambada/lambada_openai.yaml", lambda i: {"text": words(i, 7)}, ("perplexity", "acc")
    ),
    "asdiv": BuiltIn(
        "asdiv/default.yaml",
        lambda i: {
            "body": f"{words(i, 4)}.",
            "question": words(i + 1, 3),
            "answer": f"{i} (days)",
        },
        num_fewshot=2,
    ),
    "wikitext": BuiltIn(  # in windows: the pages are longer than the context
        "wikitext/wikitext.yaml",
        lambda i: {"page": f" = {words(i, 2)} = \n {words(i, 60 * (1 + i % 3))} @-@ end . \n"},
        ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    ),
    "gsm8k": BuiltIn(  # generates, and its prompts are cut on the left
        "gsm8k/gsm8k.yaml",
        lambda i: {"question": f"{words(i, 4)} {i}", "answer": f"{words(i, 3)} #### {i}"},
        ("exact_match,strict-match", "exact_match,flexible-extract"),
        changes={"generation_kwargs": {"until": ["Question:"], "max_gen_toks": 12}},
    ),
    "triviaqa": BuiltIn(
        "triviaqa/default.yaml",
        lambda i: {"question": words(i, 4), "answer": {"aliases": [words(i, 1), "b", "w", "9"]}},
        ("exact_match",),
        changes={"generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 6}},
    ),
    "nq_open": BuiltIn(
        "nq_open/nq_open.yaml",
        lambda i: {"question": words(i, 4), "answer": [words(i, 1), "W"]},
        ("exact_match",),
        num_fewshot=2,
        changes={"generation_kwargs": {"until": ["\n"], "max_gen_toks": 6}},
    ),
}


def write(name: str, built_in: BuiltIn, folder: Path) -> None:
    """A task that includes lm-eval's YAML and reads documents made here."""
    files = {}
    for split, start, n in (("train", 0, 6), ("dev", 6, 5), ("validation", 20, 9), ("test", 40, 9)):
        path = folder / f"{name}-{split}.jsonl"
        rows = (built_in.row(i) for i in range(start, start + n))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = str(path)
    task = {
        "include": str(TASKS / built_in.file),
        "task": f"local_{name}",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        **built_in.changes,
    }
    (folder / f"local_{name}.yaml").write_text(json.dumps(task))


CASES = [
    pytest.param(name, metric, id=f"{name} {metric}")
    for name, built_in in BUILT_IN.items()
    for metric in built_in.metrics
]


@pytest.mark.parametrize(("name", "metric"), CASES)
def test_a_built_in_task_scores_what_lm_eval_makes_of_it(
    name: str,
    metric: str,
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    model: PreTrainedModel,
    lm_eval_run: Callable[..., dict[str, Any]],
) -> None:
    built_in = BUILT_IN[name]
    write(name, built_in, tmp_path)
    spec = TaskSpec(task=f"local_{name}", metric=metric, num_fewshot=built_in.num_fewshot)
    evaluator = Evaluator(Suite(include_path=(tmp_path,), search=(spec,)), tokenizer)
    scored: list[Scores] = []
    answers = answers_of(evaluator, lambda: scored.append(evaluator.score(model)))
    (score,) = scored[0].tasks
    theirs = lm_eval_run(model, spec.task, num_fewshot=built_in.num_fewshot)
    samples = [sample for sample in theirs["samples"] if sample["filter"] == score.id.filter]
    (task,) = evaluator.tasks()
    assert len(samples) == len(score.doc_ids) == task.n_available >= 6
    for value, sample in zip(score.values, samples, strict=True):
        expected = sample[score.id.metric]
        expected = list(expected) if isinstance(expected, tuple) else expected
        assert value == pytest.approx(expected, abs=1e-3)
    wanted = [want for sample in samples for of in sample["resps"] for want in of]
    for (_, got), want in zip(answers, wanted, strict=True):
        assert got == (want if isinstance(want, str) else close(want))
    key = f"{score.id.metric},{score.id.filter}"
    assert score.value == pytest.approx(theirs["results"][key], rel=1e-5)
