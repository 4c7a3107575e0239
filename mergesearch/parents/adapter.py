"""LoRA adapters as parents: the delta of each weight of their base."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mergesearch.errors import InputError
from mergesearch.parents.checkpoint import Checkpoint, read_json
from mergesearch.parents.mapping import read_header

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what peft puts before the names of the model it wraps
#: Starts of training that take a part of the base's weights into the adapter.
_STARTS_FROM_THE_BASE = ("pissa", "corda", "olora", "loftq", "mica", "lora_ga")


class Adapter:
    """A LoRA adapter (arXiv:2106.09685) of a checkpoint, read and applied by peft.

    Args:
        folder: the adapter's folder.
        base: the checkpoint it was trained on.

    Raises:
        InputError: the folder holds no LoRA adapter, one of a kind that is more than a sum
            (DoRA, retrained modules, biases, a start that changed the base), or one made for
            another base.
    """

    def __init__(self, folder: Path, base: Checkpoint) -> None:
        self.folder = folder
        config = read_json(folder / _CONFIG)
        self._refuse_what_is_no_sum(config)
        if not (folder / _WEIGHTS).exists():
            raise InputError(f"{folder}: no {_WEIGHTS} in the folder")
        self._stored = self._stored_shapes()
        model = self._wrap(base)
        self._check_all_loaded(model, base)
        self._layers = {
            f"{name.removeprefix(_PREFIX)}.weight": layer
            for name, layer in model.named_modules()
            if hasattr(layer, "get_delta_weight")
        }
        if tied := sorted(self._layers.keys() - base.specs.keys()):
            raise InputError(
                f"{folder}: the adapter changes {tied[0]}, which {base.folder} does not store, "
                "e.g. since it is tied to another; merge it into a full checkpoint with peft first"
            )

    @property
    def changed(self) -> frozenset[str]:
        """The names of the base's tensors that the adapter adds to."""
        return frozenset(self._layers)

    def delta(self, name: str) -> Tensor | None:
        """Compute the delta of a weight, float32 on the CPU; None where there is none.

        Computed anew each time; any number of threads may ask at once.
        """
        layer = self._layers.get(name)
        if layer is None:
            return None
        with torch.no_grad():
            return layer.get_delta_weight("default").float()

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Give the low-rank factors (A, B) of a weight's delta B A, float32 on the CPU.

        A is (rank, columns) and B, its scale in it, (rows, rank). None where there is no delta, or
        the weight is no `nn.Linear`'s.
        """
        layer = self._layers.get(name)
        if layer is None or not isinstance(layer.get_base_layer(), nn.Linear):
            return None
        a, b = (part["default"].weight.detach().float() for part in (layer.lora_A, layer.lora_B))
        return a, b * layer.scaling["default"]

    def _refuse_what_is_no_sum(self, config: dict[str, Any]) -> None:
        kind = config.get("peft_type")
        if kind != "LORA":
            raise InputError(f"{self.folder}: only LoRA adapters are merged, got {kind}")
        start = config.get("init_lora_weights")
        more = {
            "use_dora": config.get("use_dora"),
            "modules_to_save": config.get("modules_to_save"),
            "bias": config.get("bias", "none") != "none",
            "lora_bias": config.get("lora_bias"),
            "trainable_token_indices": config.get("trainable_token_indices"),
            f"init_lora_weights={start}": str(start).lower().startswith(_STARTS_FROM_THE_BASE),
        }
        if used := [key for key, value in more.items() if value]:
            raise InputError(
                f"{self.folder}: the adapter uses {', '.join(used)}, which is more than a delta "
                "of weights; merge it into a full checkpoint with peft first"
            )

    def _stored_shapes(self) -> dict[str, tuple[int, ...]]:
        header = read_header(self.folder / _WEIGHTS)
        return {name: entry.shape for name, entry in header.items()}

    def _wrap(self, base: Checkpoint) -> Any:
        from peft import PeftModel
        from transformers import AutoConfig, AutoModelForCausalLM

        try:
            with torch.device("meta"):
                skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base.folder))
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"transformers cannot build {base.folder}: {reason}") from None
        # Memory that is never written is never resident: only the adapter's own weights are.
        skeleton.to_empty(device="cpu")
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")  # missing keys are checked below, by name
                return PeftModel.from_pretrained(skeleton, self.folder)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise self._made_for_another(
                base, str(error).strip().splitlines()[-1].strip()
            ) from None

    def _check_all_loaded(self, model: Any, base: Checkpoint) -> None:
        from peft import get_peft_model_state_dict

        wanted = {
            name: tuple(weight.shape) for name, weight in get_peft_model_state_dict(model).items()
        }
        if odd := sorted(set(wanted.items()) ^ set(self._stored.items())):
            raise self._made_for_another(base, f"{odd[0][0]} {list(odd[0][1])} has no counterpart")

    def _made_for_another(self, base: Checkpoint, reason: str) -> InputError:
        return InputError(
            f"{self.folder}: the adapter was made for another base than {base.folder}: {reason}"
        )
