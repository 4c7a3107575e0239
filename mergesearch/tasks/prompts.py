"""The prompts of a task: every document's instances, rendered once."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from mergesearch.errors import InputError
from mergesearch.tasks.suite import TaskSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: lm-eval's own seed for drawing solved examples, so that prompts are those of `lm_eval run`.
FEWSHOT_SEED = 1234


def rendered(
    spec: TaskSpec, source: Task, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[tuple[Instance, ...], ...]:
    """Render the instances of every document of the split, whatever the limit.

    Solved examples are drawn document by document from one generator; but for rendering all,
    a limited run would not be the beginning of the full one.

    Raises:
        InputError: the task cannot be rendered as the spec asks.
    """
    where = f"task {source.task_name!r}"
    if spec.apply_chat_template and not tokenizer.chat_template:
        raise InputError(f"{where}: the tokenizer has no chat template; drop apply_chat_template")
    n_shots = _n_shots(spec, source)
    source.set_config("num_fewshot", n_shots)
    source.set_fewshot_seed(FEWSHOT_SEED)
    try:
        source.build_all_requests(
            apply_chat_template=spec.apply_chat_template,
            fewshot_as_multiturn=spec.fewshot_as_multiturn,
            chat_template=_chat_template(tokenizer) if spec.apply_chat_template else None,
        )
    except Exception as error:  # whatever the task's own templates and functions raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{where} cannot be rendered with {n_shots} shots: {reason}") from error
    documents: dict[int, list[Instance]] = {}
    for instance in source.instances:
        documents.setdefault(instance.doc_id, []).append(instance)
    return tuple(tuple(sorted(instances, key=_index)) for instances in documents.values())


def _chat_template(tokenizer: "PreTrainedTokenizerBase") -> Callable[..., str]:
    """Take lm-eval's own rendering, which needs a tokenizer but no model."""
    from lm_eval.models.huggingface import HFLM  # slow to import

    owner = SimpleNamespace(tokenizer=tokenizer, chat_template_args={})
    return partial(HFLM.apply_chat_template, owner)


def _n_shots(spec: TaskSpec, source: Task) -> int:
    """Count the solved examples before each document; a task's 0 stays, as in lm-eval."""
    fixed = source.config.num_fewshot
    if spec.num_fewshot is None or fixed != 0 or spec.num_fewshot == 0:
        return spec.num_fewshot if spec.num_fewshot is not None else fixed or 0
    if source.task_name != spec.task:  # a task of a group whose others may take them
        return 0
    raise InputError(
        f"task {spec.task!r} fixes num_fewshot at 0, but the suite asks for {spec.num_fewshot}; "
        f"drop num_fewshot from the suite"
    )


def _index(instance: Instance) -> int:
    return instance.idx
