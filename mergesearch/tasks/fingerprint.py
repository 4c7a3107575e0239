"""The hash of a task, which changes when a model's scores on it could."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def fingerprint(
    source: Task,
    documents: Sequence[Sequence[Instance]],
    metric: tuple[Any, ...],
    tokenizer_hash: str,
) -> str:
    """Hash what a model's scores on a task depend on, the model aside.

    Paths, names and templates are left out: what they lead to is in the prompts and targets.

    Args:
        source: the task, for how it grades.
        documents: the instances of each document that is scored.
        metric: what names the metric, its filter and its aggregation.
        tokenizer_hash: from `tokenizer_hash`.
    """
    config = source.config
    own_grading = type(source) is not ConfigurableTask or callable(config.process_results)
    identity = {
        "tokenizer": tokenizer_hash,
        "metric": metric,
        "metric_list": config.metric_list,
        "filters": config.filter_list,
        "grading": config.process_results,
        "requests": [
            [instance.request_type, instance.args, instance.repeats]
            for instances in documents
            for instance in instances
        ],
        # A grading of its own may read any field of a document.
        "targets": [
            instances[0].doc if own_grading else _target(source, instances[0].doc)
            for instances in documents
        ],
    }
    return _sha256(identity)


def tokenizer_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hash how a tokenizer encodes and decodes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend else tokenizer.get_vocab()
    # The backend remembers how its last call padded and truncated.
    rules = {key: rule for key, rule in rules.items() if key not in {"padding", "truncation"}}
    special = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.model_max_length]
    return _sha256([type(tokenizer).__name__, rules, special])


def _target(source: Task, doc: Any) -> list[Any]:
    """Collect the parts of a document that lm-eval's grading reads."""
    gold = [source.doc_to_target(doc)]
    if source.config.doc_to_choice is not None:
        gold += [source.doc_to_choice(doc), source.doc_to_text(doc)]
    return gold


def _sha256(identity: Any) -> str:
    text = json.dumps(identity, sort_keys=True, default=_source_text)
    return hashlib.sha256(text.encode()).hexdigest()


def _source_text(thing: Any) -> str:
    """Write something that JSON does not hold as a text to hash: a function's source."""
    try:
        return inspect.getsource(thing)
    except (TypeError, OSError):
        return f"{type(thing).__name__}:{getattr(thing, '__qualname__', thing)}"
