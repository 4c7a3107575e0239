"""One architecture from end to end: merged, stacked, scored and loaded again."""

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import torch
import transformers
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from mergesearch import merge, read_recipe
from mergesearch.errors import MergesearchError
from mergesearch.integrations import lm_eval as _registered  # noqa: F401 - the model `mergesearch`
from mergesearch.merging import LiveModel
from mergesearch.parents import Parents
from tests import tiny
from tests.architectures.shrink import VOCABULARY, tiny_config

WORKS = "works"
#: Recipes over a base and two relatives of it, by the names of the table's columns.
RECIPES = {
    "linear": """
        merge_method: linear
        models: [{model: one, parameters: {weight: 0.3}}, {model: two, parameters: {weight: 0.7}}]
    """,
    "ties": """
        merge_method: ties
        base_model: base
        parameters: {density: 0.6, weight: 0.8}
        models: [{model: one}, {model: two}]
    """,
    "slerp": """
        merge_method: slerp
        base_model: one
        models: [{model: one}, {model: two}]
        parameters: {t: [{filter: mlp, value: [0.2, 0.6]}, {value: 0.4}]}
    """,
    "stack": """
        merge_method: passthrough
        slices:
        - sources: [{model: one, layer_range: [0, 2]}]
        - sources: [{model: two, layer_range: [1, 2]}]
    """,
}
COLUMNS = (*RECIPES, "scores")
_IDS = torch.tensor([[1, 5, 9, 20, 31, 4, 7, 8], [1, 30, 8, 8, 2, 7, 9, 6]])


@dataclass(frozen=True)
class Outcome:
    """The verdict on one kind of model."""

    kind: str
    #: By column: "works", or the reason in one line.
    columns: dict[str, str]
    #: Why there is no tiny model of it, if there is none.
    not_made: str = ""

    @property
    def works(self) -> bool:
        """True where every column works."""
        return not self.not_made and set(self.columns.values()) == {WORKS}


def examine(kind: str, folder: Path) -> Outcome:
    """Merge, stack, score and load tiny models of a kind, in an empty folder."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    try:
        family(kind, folder)
    except Exception as error:  # whatever a class makes of a small configuration
        return Outcome(kind, {}, _line(error))
    columns = {}
    for name, text in RECIPES.items():
        columns[name] = _verdict(folder, partial(_merged, folder, name, text))
    columns["scores"] = _verdict(folder, partial(_scored, folder))
    return Outcome(kind, columns)


def family(kind: str, folder: Path) -> None:
    """Write a base and two relatives that transformers can run."""
    for seed, name in enumerate(("base", "one", "two")):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(kind)).float().eval()
        if (n := sum(p.numel() for p in model.parameters())) > 10**7:
            raise ValueError(f"its smallest model here has {n} parameters")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            if seed == 0:
                model(input_ids=_IDS)
        model.save_pretrained(folder / name)
        if seed == 0:
            loaded = AutoModelForCausalLM.from_pretrained(folder / name).float().eval()
            if not torch.allclose(_logits(model), _logits(loaded), atol=1e-5):
                raise ValueError("transformers itself loads another model than it saved")
        _write_tokenizer(folder / name)


def _write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of words, or of letters where transformers insists on its own class."""
    tiny.tokenizer().save_pretrained(folder)
    if AutoTokenizer.from_pretrained(folder)("w1 w2")["input_ids"]:
        return
    letters = {
        token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "<pad>", *"w0123456789Ġ"])
    }
    backend = Tokenizer(models.BPE(letters, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)


def _merged(folder: Path, name: str, text: str) -> str:
    """Hold a merge in memory beside the checkpoint that is loaded again."""
    recipe = read_recipe(text).resolved(folder)
    out = folder / f"out-{name}"
    digest = merge(recipe, out)
    loaded, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        return f"transformers misses {missing[0]} in the checkpoint"
    live = LiveModel(Parents.of(recipe), torch.device("cpu"), torch.float32)
    try:
        again = live.become(recipe)
    except MergesearchError as error:
        return f"merged, not scored: {_line(error)}"
    if again != digest:
        return "scored and exported tensors differ"
    if not torch.allclose(_logits(live.model), _logits(loaded.float().eval()), atol=1e-5):
        return "the exported model answers otherwise than the scored one"
    return WORKS


def _scored(folder: Path) -> str:
    """Hold the scores of a merge beside lm-eval's own model on its checkpoint."""
    tiny.task(folder / "tasks", "first", 6)
    here = Path.cwd()
    os.chdir(folder / "tasks")  # lm-eval finds relative data in the working folder only
    try:
        path = folder / "out-linear"
        try:
            theirs = _answers("hf", f"pretrained={path},dtype=float32,device=cpu")
        except Exception as error:  # as it does of a tokenizer that it takes for another kind
            return f"lm-eval itself fails ({type(error).__name__})"
        ours = _answers("mergesearch", f"recipe={path},dtype=float32,device=cpu")
    finally:
        os.chdir(here)
    if not torch.allclose(torch.tensor(ours), torch.tensor(theirs), atol=1e-4):
        return "scores differ from lm-eval's"
    return WORKS


def _answers(model: str, args: str) -> list[float]:
    """Give the log-likelihood of each choice of the task."""
    manager = TaskManager(include_path=".", include_defaults=False)
    results: Any = lm_eval.simple_evaluate(
        model, model_args=args, tasks=["first"], task_manager=manager, bootstrap_iters=0,
        batch_size=2,
    )  # fmt: skip
    samples = results["samples"]["first"]
    return [float(r[0][0]) for sample in samples for r in sample["resps"]]


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    logits: Tensor = model(input_ids=_IDS).logits[..., :VOCABULARY]
    return logits


def _verdict(folder: Path, check: Callable[[], str]) -> str:
    try:
        return check()
    except MergesearchError as error:
        return f"refused: {_line(error).replace(str(folder), '').lstrip('/')}"
    except Exception as error:  # a traceback is what the table must show
        return f"{type(error).__name__}: {_line(error)}"


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]


def as_json(outcome: Outcome) -> str:
    """Write an outcome as one line."""
    return json.dumps(outcome.__dict__)
