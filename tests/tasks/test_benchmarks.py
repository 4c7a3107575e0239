"""Which tasks are a benchmark's test set, and that a search runs on one only if told to."""

import json
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import lm_eval.tasks
import pytest
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import PreTrainedTokenizerFast

from mergesearch.errors import InputError
from mergesearch.evaluation import Evaluator
from mergesearch.searching.runs import suite_entry
from mergesearch.tasks import Suite, TaskSpec
from mergesearch.tasks.benchmarks import BENCHMARKS, benchmark_of

TASKS = Path(lm_eval.tasks.__file__).parent

#: Known ids of benchmarks that lm-eval reads elsewhere.
ELSEWHERE = {
    "google/boolq",
    "google-research-datasets/natural_questions",
    "hendrycks/competition_math",
    "allenai/social_i_qa",
    "rajpurkar/squad",
    "Salesforce/wikitext",
}

Build = Callable[..., Evaluator]
Write = Callable[..., Path]


@cache
def lm_evals(key: str) -> set[str]:
    """What lm-eval's files give for a key, in lower case."""
    line = re.compile(rf"^[ -]*\W?{key}\W?\s*[:=]\s*\W?([\w./-]+)", re.MULTILINE | re.IGNORECASE)
    files = (path for path in TASKS.rglob("*") if path.suffix in {"", ".yaml", ".py"})
    texts = (path.read_text(encoding="utf-8", errors="ignore") for path in files if path.is_file())
    return {found.lower() for text in texts for found in line.findall(text)}


def settings(file: str, **changes: Any) -> Any:
    """A task as lm-eval's file describes it, without its documents."""
    path = TASKS / file
    config = {"metadata": {"config_source": str(path)}, "dataset_kwargs": None}
    config = load_yaml(path, resolve_func=False) | config | changes
    return SimpleNamespace(
        DATASET_PATH=config["dataset_path"],
        task_name=config["task"],
        config=SimpleNamespace(
            test_split=config.get("test_split"),
            validation_split=config.get("validation_split"),
            metadata=config["metadata"],
            dataset_kwargs=config["dataset_kwargs"],
        ),
        has_test_docs=lambda: config.get("test_split") is not None,
    )


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_the_table_names_what_there_is(benchmark: Any) -> None:
    for pattern in benchmark.tasks:
        assert any(fnmatchcase(name, pattern) for name in lm_evals("task")), pattern
    known = lm_evals("dataset_path") | {id.lower() for id in ELSEWHERE}
    for pattern in benchmark.datasets:
        assert any(fnmatchcase(id, pattern.lower()) for id in known), pattern
    assert set(benchmark.splits) <= lm_evals("test_split") | lm_evals("validation_split")


@pytest.mark.parametrize(
    ("file", "benchmark"),
    [
        ("mmlu/default/mmlu_professional_law.yaml", "MMLU"),
        ("mmlu_pro/mmlu_pro_law.yaml", "MMLU-Pro"),
        ("leaderboard/mmlu_pro/mmlu_pro.yaml", "MMLU-Pro"),
        ("gsm8k/gsm8k.yaml", "GSM8K"),
        ("hendrycks_math/hendrycks_math_algebra.yaml", "MATH"),
        ("minerva_math/minerva_math_algebra.yaml", "MATH"),
        ("arc/arc_easy.yaml", "ARC"),
        ("arc/arc_challenge.yaml", "ARC"),
        ("hellaswag/hellaswag.yaml", "HellaSwag"),
        ("winogrande/default.yaml", "WinoGrande"),
        ("truthfulqa/truthfulqa_mc1.yaml", "TruthfulQA"),
        ("piqa/piqa.yaml", "PIQA"),
        ("siqa/siqa.yaml", "SocialIQA"),
        ("openbookqa/openbookqa.yaml", "OpenBookQA"),
        ("super_glue/boolq/default.yaml", "BoolQ"),
        ("super_glue/copa/default.yaml", "SuperGLUE"),
        ("glue/sst2/default.yaml", "GLUE"),
        ("lambada/lambada_openai.yaml", "LAMBADA"),
        ("bbh/cot_fewshot/navigate.yaml", "BBH"),
        ("gpqa/zeroshot/gpqa_diamond_zeroshot.yaml", "GPQA"),
        ("ifeval/ifeval.yaml", "IFEval"),
        ("leaderboard/musr/musr_team_allocation.yaml", "MuSR"),
        ("triviaqa/default.yaml", "TriviaQA"),
        ("drop/default.yaml", "DROP"),
        ("wikitext/wikitext.yaml", "WikiText"),
        ("ceval/ceval-valid_accountant.yaml", "C-Eval"),
        ("cmmlu/cmmlu_agronomy.yaml", "CMMLU"),
        ("okapi/hellaswag_multilingual/hellaswag_fr.yaml", "HellaSwag"),
        ("darijahellaswag/darijahellaswag.yaml", "HellaSwag"),  # by its name alone
        ("cnn_dailymail/cnn_dailymail.yaml", None),
        ("prost/corypaik_prost.yaml", None),
    ],
)
def test_lm_evals_own_tasks(file: str, benchmark: str | None) -> None:
    assert benchmark_of(settings(file)) == benchmark


@pytest.mark.parametrize(
    ("changes", "benchmark"),
    [
        ({"test_split": "train"}, None),
        ({"test_split": None, "validation_split": "train"}, None),
        ({"dataset_path": "gsm8k"}, "GSM8K"),
        ({"dataset_path": "OpenAI/GSM8K"}, "GSM8K"),
        ({"dataset_path": "a-copy-of/gsm8k"}, "GSM8K"),
        ({"dataset_path": "mine/sums"}, None),
        ({"dataset_path": "json"}, None),
    ],
    ids=str,
)
def test_a_task_of_ones_own_is_known_by_its_data_alone(
    changes: dict[str, Any], benchmark: str | None
) -> None:
    """Its name is gsm8k throughout."""
    task = settings("gsm8k/gsm8k.yaml", metadata={"config_source": "/mine/gsm8k.yaml"}, **changes)
    assert benchmark_of(task) == benchmark


def test_a_task_of_lm_evals_on_other_files_is_none_of_its_benchmark() -> None:
    """As a group of one's own may change it."""
    changes = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "mine.jsonl"}}}
    assert benchmark_of(settings("gsm8k/gsm8k.yaml", **changes)) is None


def test_a_folder_with_a_benchmarks_name_is_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gsm8k").mkdir()
    monkeypatch.chdir(tmp_path)
    for path in ("gsm8k", str(tmp_path / "gsm8k")):
        changes = {"dataset_path": path, "metadata": None}
        assert benchmark_of(settings("gsm8k/gsm8k.yaml", **changes)) is None


HELLASWAG = [
    {
        "activity_label": "sun",
        "ctx_a": f"sun {i}.",
        "ctx_b": "rain",
        "endings": ["a b", "c", "d e f", "g"],
        "label": str(i % 4),
    }
    for i in range(8)
]
MMLU = [
    {"question": f"sun {i}?", "choices": ["a", "b", "c", "d"], "answer": i % 4} for i in range(5)
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub with the data sets of two benchmarks."""

    def load(path: str, name: str | None = None, **_: Any) -> datasets.DatasetDict:
        rows = {"Rowan/hellaswag": HELLASWAG, "cais/mmlu": MMLU}[path]
        splits = ("train", "dev", "validation", "test")
        return datasets.DatasetDict({s: datasets.Dataset.from_list(rows) for s in splits})

    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.fixture
def build_suite(tokenizer: PreTrainedTokenizerFast) -> Build:
    def build(*folders: Path, **suite: Any) -> Evaluator:
        return Evaluator(Suite(include_path=folders, **suite), tokenizer)

    return build


def spec(task: str) -> TaskSpec:
    return TaskSpec(task=task, metric="acc")


def write_train(folder: Path) -> Path:
    """The train split of a benchmark."""
    train = {
        "include": str(TASKS / "hellaswag" / "hellaswag.yaml"),
        "task": "hellaswag_train",
        "validation_split": "train",
    }
    (folder / "hellaswag_train.yaml").write_text(json.dumps(train))
    return folder


@pytest.mark.usefixtures("hub")
def test_a_search_on_a_benchmark_is_refused(build_suite: Build) -> None:
    with pytest.raises(InputError) as caught:
        build_suite(TASKS / "hellaswag", search=(spec("hellaswag"),))
    assert str(caught.value) == (
        "a search task must not be a benchmark's test set, but 'hellaswag' reads the split "
        "'validation' of HellaSwag, on which its numbers are reported; search on another split or "
        "a task of your own and keep this one under held_out, or set allow_benchmarks: true, and "
        "the report will say so"
    )


@pytest.mark.usefixtures("hub")
def test_learning_from_a_benchmark_is_refused_unless_the_suite_allows_it(
    build_suite: Build, tmp_path: Path
) -> None:
    suite = {"search": (spec("hellaswag_train"),), "learn": (spec("hellaswag"),)}
    folders = (write_train(tmp_path), TASKS / "hellaswag")
    with pytest.raises(InputError) as caught:
        build_suite(*folders, **suite)
    assert str(caught.value).startswith(
        "a task to learn from must not be a benchmark's test set, but 'hellaswag' reads the split "
        "'validation' of HellaSwag, on which its numbers are reported; learn from another split or "
    )
    evaluator = build_suite(*folders, **suite, allow_benchmarks=True)
    assert [task.benchmark for task in evaluator.tasks("learn")] == ["HellaSwag"]


@pytest.mark.usefixtures("hub")
def test_a_group_of_a_benchmark_is_refused(build_suite: Build) -> None:
    with pytest.raises(InputError, match=r"but 'mmlu_\w+' of group 'mmlu' reads .* of MMLU, on"):
        build_suite(TASKS / "mmlu" / "default", search=(spec("mmlu"),))


@pytest.mark.usefixtures("hub")
def test_a_benchmark_is_taken_where_the_suite_says_so_and_a_run_keeps_it(
    build_suite: Build,
) -> None:
    search = (spec("hellaswag"),)
    evaluator = build_suite(TASKS / "hellaswag", search=search, allow_benchmarks=True)
    assert [task.benchmark for task in evaluator.tasks()] == ["HellaSwag"]
    assert suite_entry(evaluator).searched_benchmarks == {"hellaswag": "HellaSwag"}


@pytest.mark.usefixtures("hub")
def test_a_benchmark_may_be_held_out_and_its_train_split_searched(
    build_suite: Build, tmp_path: Path
) -> None:
    write_train(tmp_path)
    evaluator = build_suite(
        *(TASKS / "hellaswag", tmp_path),
        search=(spec("hellaswag_train"),),
        held_out=(spec("hellaswag"),),
    )
    assert [task.benchmark for task in evaluator.tasks()] == [None]
    assert [task.benchmark for task in evaluator.tasks("held_out")] == ["HellaSwag"]


def test_local_documents_are_no_benchmark_whatever_they_are_called(
    write_task: Write, build: Build
) -> None:
    write_task("hellaswag")
    (task,) = build("hellaswag").tasks()
    assert task.benchmark is None
