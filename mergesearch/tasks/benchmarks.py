"""Well-known benchmarks, and the splits on which the field reports its numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import lm_eval.tasks
from lm_eval.api.task import Task

#: Of most benchmarks.
_TEST = ("test",)
#: Where the labels of the test split are hidden or came late, and numbers are on validation.
_VALIDATION = ("validation", "val", "test")

_LM_EVAL = Path(lm_eval.tasks.__file__).parent.resolve()


@dataclass(frozen=True)
class Benchmark:
    """A benchmark with its variants and translations."""

    name: str
    #: Patterns of the names of lm-eval's own tasks.
    tasks: tuple[str, ...]
    #: Patterns of hub ids, whose namespaces do not count.
    datasets: tuple[str, ...]
    #: Splits that numbers are reported on.
    splits: tuple[str, ...] = _TEST

    def includes(self, name: str | None, dataset: str | None) -> bool:
        """Tell whether a task is one of the benchmark's, by either.

        Args:
            name: the task's; None where lm-eval did not choose it.
            dataset: the hub id of its data; None where it is local.
        """
        ids = (_bare(pattern) for pattern in self.datasets)
        return _matches(name, self.tasks) or _matches(dataset and _bare(dataset), ids)


#: A task belongs to the first that includes it.
BENCHMARKS = (
    # samples of several
    Benchmark("metabench", ("metabench_*",), ("HCAI/metabench",), ("primary", "secondary")),
    Benchmark("BIG-bench", ("bigbench_*",), ("hails/bigbench",), ("default",)),
    # knowledge
    Benchmark(
        "MMLU-Pro",
        ("*mmlu_pro", "mmlu_pro_*", "mmlu_prox_*"),
        ("TIGER-Lab/MMLU-Pro", "saeidasgari/mmlu-pro-plus", "li-lab/MMLU-ProX*"),
    ),
    Benchmark("CMMLU", ("cmmlu*",), ("haonan-li/cmmlu",)),
    Benchmark("KMMLU", ("kmmlu*",), ("HAERAE-HUB/KMMLU*",)),
    Benchmark("TMMLU+", ("tmmluplus*",), ("ikala/tmmluplus",)),
    Benchmark(
        "ArabicMMLU",
        ("arabicmmlu*", "aradice_arabicmmlu*"),
        ("MBZUAI/ArabicMMLU", "QCRI/AraDICE-ArabicMMLU-*"),
    ),
    Benchmark(
        "MMLU",
        ("*mmlu*",),
        (
            *("cais/mmlu", "hails/mmlu_no_train", "fxmarty/mmlu-redux-2.0-ok", "NiniCat/MMLU-SR"),
            *("openai/MMMLU", "CohereForAI/Global-MMLU*", "alexandrainst/m_mmlu"),
        ),
        (*_TEST, "latest"),  # the name in Meta's own evaluations
    ),
    Benchmark("C-Eval", ("ceval*",), ("ceval/ceval-exam",), _VALIDATION),
    Benchmark("AGIEval", ("*agieval*",), ("hails/agieval-*",)),
    Benchmark("GPQA", ("*gpqa*",), ("Idavidrein/gpqa",), ("train",)),
    Benchmark(
        "ARC",
        ("arc_*", "*_arc_*", "*-arc-*", "tinyarc"),
        ("allenai/ai2_arc", "alexandrainst/m_arc", "LumiOpen/arc_challenge_mt"),
    ),
    Benchmark("OpenBookQA", ("*openbook*",), ("allenai/openbookqa",)),
    Benchmark("SciQ", ("*sciq",), ("allenai/sciq",)),
    Benchmark("MedQA", ("medqa*",), ("GBaker/MedQA-USMLE-4-options-hf",)),
    Benchmark("MedMCQA", ("medmcqa",), ("openlifescienceai/medmcqa",), _VALIDATION),
    Benchmark("PubMedQA", ("pubmedqa",), ("bigbio/pubmed_qa",)),
    Benchmark("TruthfulQA", ("*truthfulqa*",), ("truthfulqa/truthful_qa",), _VALIDATION),
    # common sense
    Benchmark(
        "HellaSwag",
        ("*hellaswag*",),
        ("Rowan/hellaswag", "alexandrainst/m_hellaswag"),
        _VALIDATION,
    ),
    Benchmark("WinoGrande", ("*winogrande*",), ("allenai/winogrande",), _VALIDATION),
    Benchmark(
        "Winograd", ("wsc273", "*xwinograd*"), ("lighteval/winograd_wsc", "Muennighoff/xwinograd")
    ),
    Benchmark("Global PIQA", ("global_piqa_*",), ("mrlbenchmarks/global-piqa-*",)),
    Benchmark("PIQA", ("*piqa*",), ("baber/piqa",), _VALIDATION),
    Benchmark(
        "SocialIQA",
        ("social_iqa", "siqa_*"),
        ("lighteval/siqa", "allenai/social_i_qa"),
        _VALIDATION,
    ),
    Benchmark("CommonsenseQA", ("*commonsense*qa*",), ("tau/commonsense_qa",), _VALIDATION),
    Benchmark(
        "StoryCloze",
        ("*storycloze*",),
        ("LSDSem/story_cloze", "juletxara/xstory_cloze"),
        (*_TEST, "eval"),
    ),
    Benchmark("SWAG", ("swag",), ("allenai/swag",), _VALIDATION),
    # language understanding
    Benchmark("BoolQ", ("*boolq*",), ("google/boolq",), _VALIDATION),
    Benchmark(
        "GLUE",
        ("cola", "mnli", "mnli_mismatch", "mrpc", "qnli", "qqp", "rte", "sst2", "wnli"),
        ("nyu-mll/glue",),
        (*_VALIDATION, "validation_matched", "validation_mismatched"),
    ),
    Benchmark(
        "SuperGLUE",
        ("cb", "copa", "multirc", "record", "sglue_rte", "wic", "wsc", "super_glue-*"),
        ("aps/super_glue",),
        _VALIDATION,
    ),
    Benchmark("ANLI", ("anli_*",), ("facebook/anli",), ("test_r1", "test_r2", "test_r3")),
    Benchmark("XNLI", ("*xnli*",), ("facebook/xnli",), _VALIDATION),
    Benchmark("XCOPA", ("xcopa_*",), ("cambridgeltl/xcopa",)),
    Benchmark("PAWS-X", ("paws_*",), ("google-research-datasets/paws-x",)),
    Benchmark("Belebele", ("*belebele*",), ("facebook/belebele",)),
    Benchmark("LAMBADA", ("lambada_*",), ("cimec/lambada", "EleutherAI/lambada_*")),
    Benchmark(
        "WikiText", ("*wikitext*",), ("EleutherAI/wikitext_document_level", "Salesforce/wikitext")
    ),
    # questions about a text, and about the world
    Benchmark("RACE", ("race",), ("EleutherAI/race",)),
    Benchmark("SQuAD", ("squad*",), ("lighteval/squad_v2", "rajpurkar/squad"), _VALIDATION),
    Benchmark("XQuAD", ("xquad_*",), ("google/xquad",), _VALIDATION),
    Benchmark("DROP", ("drop",), ("EleutherAI/drop",), _VALIDATION),
    Benchmark("CoQA", ("coqa",), ("EleutherAI/coqa",), _VALIDATION),
    Benchmark("TyDiQA", ("tydiqa_*",), ("google-research-datasets/tydiqa",), _VALIDATION),
    Benchmark("TriviaQA", ("triviaqa",), ("mandarjoshi/trivia_qa",), _VALIDATION),
    Benchmark(
        "Natural Questions",
        ("nq_open",),
        ("google-research-datasets/nq_open", "google-research-datasets/natural_questions"),
        _VALIDATION,
    ),
    Benchmark("WebQuestions", ("webqs",), ("stanfordnlp/web_questions",)),
    # mathematics and reasoning
    Benchmark("MGSM", ("*mgsm*",), ("juletxara/mgsm", "masakhane/afrimgsm*")),
    Benchmark(
        "GSM8K",
        ("*gsm8k*", "gsm_plus*"),
        ("openai/gsm8k", "madrylab/gsm8k-platinum", "qintongli/GSM-Plus"),
        (*_TEST, "testmini"),
    ),
    Benchmark(
        "MATH",
        ("hendrycks_math*", "minerva_math*", "leaderboard_math_*", "hrm8k_math*"),
        (
            *("EleutherAI/hendrycks_math", "DigitalLearningGmbH/MATH-lighteval"),
            *("HuggingFaceH4/MATH-500", "hendrycks/competition_math"),
        ),
    ),
    Benchmark(
        "AIME",
        ("aime*",),
        ("gneubig/aime-1983-2024", "Maxwell-Jia/AIME_2024", "math-ai/aime25"),
        ("train", "test"),
    ),
    Benchmark("MathQA", ("mathqa",), ("regisss/math_qa",)),
    Benchmark("BBH", ("*bbh_*",), ("SaylorTwift/bbh",)),
    Benchmark(
        "MuSR",
        ("*musr_*",),
        ("TAUR-Lab/MuSR",),
        ("murder_mysteries", "object_placements", "team_allocation"),
    ),
    Benchmark("LogiQA", ("logiqa*", "logieval"), ("EleutherAI/logiqa", "baber/logiqa2")),
    # code and instructions
    Benchmark("HumanEval", ("humaneval*",), ("openai/openai_humaneval", "evalplus/humanevalplus")),
    Benchmark("MBPP", ("mbpp*",), ("google-research-datasets/mbpp", "evalplus/mbppplus")),
    Benchmark(
        "IFEval",
        ("*ifeval*",),
        ("google/IFEval", "wis-k/instruction-following-eval"),
        ("train", "test"),
    ),
)


def benchmark_of(task: Task) -> str | None:
    """Name the benchmark whose reported numbers are on the split that a task scores.

    The data set says so whoever wrote the task; the name does where lm-eval wrote it.
    """
    dataset = task.DATASET_PATH
    if dataset and Path(dataset).exists():
        dataset = None
    name = task.task_name if _is_lm_evals(task) else None
    owner = next((b for b in BENCHMARKS if b.includes(name, dataset)), None)
    return owner.name if owner and scored_split(task) in owner.splits else None


def dataset_of(task: Task) -> tuple[str, str | None] | None:
    """Name the hub's data set and subset that a task reads; None of other data."""
    path = task.DATASET_PATH
    if not path or "/" not in path or Path(path).exists():
        return None  # files, or a builder such as json
    return path, task.DATASET_NAME


def scored_split(task: Task) -> str:
    """Name the split that a task's scored documents come from."""
    # a class may read its data by methods, without splits in its settings
    if task.has_test_docs():
        return task.config.test_split or "test"
    return task.config.validation_split or "validation"


def _is_lm_evals(task: Task) -> bool:
    """Tell whether lm-eval brings a task, which names no files to read instead."""
    source = (task.config.metadata or {}).get("config_source")
    own = source is not None and Path(source).resolve().is_relative_to(_LM_EVAL)
    return own and "data_files" not in (task.config.dataset_kwargs or {})


def _matches(text: str | None, patterns: Iterable[str]) -> bool:
    return text is not None and any(
        fnmatchcase(text.lower(), pattern.lower()) for pattern in patterns
    )


def _bare(dataset: str) -> str:
    """Strip a hub id of its namespace, which changes when a data set moves."""
    return dataset.rsplit("/", 1)[-1]
