"""What scoring one candidate takes, known before a model is there."""

from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval.api.instance import Instance
from transformers import PreTrainedTokenizerBase

from mergesearch.engines.torch.engine import LEAST_SAVING
from mergesearch.engines.torch.limits import Limits
from mergesearch.engines.torch.packing import contexts_of, groups_of
from mergesearch.tasks.built import BuiltTask

#: lm-eval's own limit, where a task sets none.
_MAX_GEN_TOKS = 256


@dataclass(frozen=True)
class Cost:
    """What a task takes of one candidate, but for what a model's own context cuts off."""

    #: Tokens that the model reads or writes; what documents share counts once.
    n_tokens: int
    #: Bytes at the peak, beside the weights.
    n_bytes: int


def cost(task: BuiltTask, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> Cost:
    """The cost of a task on models of certain sizes."""
    instances = task.requests(task.doc_ids)
    asked = [i for i in instances if i.request_type != "generate_until"]
    prompts = [i for i in instances if i.request_type == "generate_until"]
    costs = [
        *([_scored(asked, tokenizer, limits)] if asked else []),
        *([_generated(prompts, tokenizer, limits)] if prompts else []),
    ]
    return Cost(sum(c.n_tokens for c in costs), max(c.n_bytes for c in costs))


def _scored(
    instances: Sequence[Instance], tokenizer: PreTrainedTokenizerBase, limits: Limits
) -> Cost:
    # a rolling text has no context
    pairs = [("", i.args[0]) if len(i.args) == 1 else i.args for i in instances]
    contexts = _ids([context for context, _ in pairs], tokenizer)
    continuations = _ids([continuation for _, continuation in pairs], tokenizer)
    requests = zip(range(len(pairs)), contexts, continuations, strict=True)
    n_tokens, n_bytes = 0, 0
    for group in groups_of(contexts_of(requests, limits.columns_of_a_row), LEAST_SAVING):
        rows, n_columns, n_kept = next(limits.cut(group))  # no later batch is wider
        n_tokens += group.n_prefix
        n_tokens += sum(context.n_columns(group.n_prefix) for context in group.contexts)
        batch = limits.batch_bytes(len(rows), n_columns, group.n_prefix, len(rows) * n_kept)
        n_bytes = max(n_bytes, batch)
    return Cost(n_tokens, n_bytes)


def _generated(
    instances: Sequence[Instance], tokenizer: PreTrainedTokenizerBase, limits: Limits
) -> Cost:
    prompts = _ids([instance.args[0] for instance in instances], tokenizer)
    written = [instance.args[1].get("max_gen_toks", _MAX_GEN_TOKS) for instance in instances]
    lengths = [len(prompt) + n for prompt, n in zip(prompts, written, strict=True)]
    requests = ((i, prompt, [0]) for i, prompt in enumerate(prompts))
    groups = groups_of(contexts_of(requests, 0), LEAST_SAVING)
    n_saved = sum((len(group.contexts) - 1) * group.n_prefix for group in groups)
    n_rows = min(len(instances), limits.prompts(max(lengths)))
    return Cost(sum(lengths) - n_saved, limits.prompts_bytes(n_rows, max(lengths)))


def _ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of texts, each encoded once; an empty one has the prefix token."""
    once = list(dict.fromkeys(texts))
    encoded = tokenizer(once, add_special_tokens=False)["input_ids"]
    known = {text: ids or [0] for text, ids in zip(once, encoded, strict=True)}
    return [known[text] for text in texts]
