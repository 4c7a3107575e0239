"""LoRA adapters as parents: what they make of each tensor of their base, by peft."""

import hashlib
import json
import re
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mergesearch.errors import InputError
from mergesearch.parents.architecture import NOT_MADE, configuration
from mergesearch.parents.change import ADAPTER, Change, Part, Piece
from mergesearch.parents.checkpoint import Checkpoint, read_json
from mergesearch.parents.fused import Group, stored_as
from mergesearch.parents.mapping import MappedFile, read_header
from mergesearch.parents.sample import sample
from mergesearch.parents.tables import has_rows, n_rows

_CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAMES_BASE = "base_model_name_or_path"
_PICKLED = "adapter_model.bin"
_PREFIX = "base_model.model."  # what peft puts before the names of the model it wraps
#: What it puts into them, before the names of what it wraps.
_WRAPPERS = (".base_layer", ".original_module", ".token_adapter")
#: Places in stored names where the adapter's own may stand.
_WITH_NAME = re.compile(rf"(\.lora_\w+|\.modules_to_save|\.token_adapter\.\w+)\.{ADAPTER}(?=\.|$)")
#: Starts of training that take a part of the base's weights into the adapter.
_STARTS_FROM_THE_BASE = ("pissa", "corda", "olora", "loftq", "mica", "lora_ga")
#: Kinds that put something before a text.
_PROMPTS = ("P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE")
#: Settings of kinds that are no change of the base's own tensors.
_NOT_MERGED = (
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication"),
    *("monteclora_config", "use_qalora"),
)


class Adapter:
    """A LoRA adapter (arXiv:2106.09685) of a checkpoint, read and applied by peft.

    It may replace tensors of its base as well as add to them, give those of the vocabulary more
    rows or fewer, and part an output head from the embeddings that it was tied to.

    Args:
        folder: the adapter's folder.
        base: the checkpoint it was trained on.

    Raises:
        InputError: the folder holds no LoRA adapter, a pickled one, one of a kind that is no change
            of the base's tensors, or one made for another base.
    """

    def __init__(self, folder: Path, base: Checkpoint) -> None:
        self.folder = folder
        self._base = base
        self._config = read_json(folder / _CONFIG)
        self._refuse_other_kinds()
        self._stored = self._stored_shapes()
        #: The rows of the vocabulary of the model that it was trained in.
        self.n_rows = self._count_rows()
        #: Whether it parts what is one tensor in its base: the head from the embeddings.
        self.unties = False
        skeleton = self._skeleton()
        self._files, self._groups = stored_as(skeleton, base)
        skeleton.to_empty(device="cpu")  # never written, and so not held
        skeleton.tie_weights()
        self._parameters = dict(skeleton.named_parameters(remove_duplicate=False))
        model = self._wrap(skeleton)
        self._check_all_loaded(model)
        self._own = dict(_overwritten(skeleton, self._parameters))
        self._retrained = dict(_retrained(skeleton))
        self._parts: dict[str, list[Part]] = defaultdict(list)
        for name, part in _parts(skeleton):
            self._parts[name].append(part)
        #: What it makes of tensors, by their names in the base's files; all others stay.
        self.changes: Mapping[str, Change] = dict(self._find_changes())

    def sample(self) -> str:
        """Hash the settings but for the base's name, and a sample of the tensors."""
        settings = {key: self._config[key] for key in self._config if key != _NAMES_BASE}
        told = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        return f"{told}+{sample([MappedFile(self.folder / WEIGHTS)])}"

    def _refuse_other_kinds(self) -> None:
        kind = self._config.get("peft_type")
        if kind != "LORA":
            remedy = (
                "it changes no weight, so that nothing of it can be merged"
                if "PROMPT" in str(kind) or kind in _PROMPTS
                else "merge it into a full checkpoint with peft first"
            )
            raise InputError(f"{self.folder}: only LoRA adapters are merged, got {kind}; {remedy}")
        start = self._config.get("init_lora_weights")
        used = [key for key in _NOT_MERGED if self._config.get(key)]
        if str(start).lower().startswith(_STARTS_FROM_THE_BASE):
            used.append(f"init_lora_weights={start}")
        if used:
            raise InputError(
                f"{self.folder}: the adapter uses {', '.join(used)}, which is more than a change "
                "of the base's tensors; merge it into a full checkpoint with peft first"
            )

    def _stored_shapes(self) -> dict[str, tuple[int, ...]]:
        if (self.folder / WEIGHTS).exists():
            header = read_header(self.folder / WEIGHTS)
            if not header:
                raise InputError(
                    f"{self.folder}: {WEIGHTS} has no tensors, so that the adapter changes "
                    "nothing; save it again with peft, gathered where training was sharded"
                )
            return {_as_saved(name): entry.shape for name, entry in header.items()}
        if (self.folder / _PICKLED).exists():
            raise InputError(
                f"{self.folder}: only pickled weights ({_PICKLED}), which can run code when "
                "opened; save the adapter anew with peft, as safetensors"
            )
        raise InputError(f"{self.folder}: no {WEIGHTS} in the folder")

    def _count_rows(self) -> int:
        """Find the rows of the vocabulary: as stored, or the base's and trained tokens."""
        for name, shape in self._stored.items():
            module, _, kind = name.removeprefix(_PREFIX).partition(".lora_")
            if not kind and has_rows(_unwrapped(module)):
                return shape[0]
            if kind.startswith(("embedding_A", "B.")) and has_rows(f"{module}.weight"):
                return shape[kind == "embedding_A"]
        trained = self._config.get("trainable_token_indices") or []
        lists = list(trained.values()) if isinstance(trained, dict) else [trained]
        if not all(isinstance(of, list) and all(type(i) is int for i in of) for of in lists):
            raise InputError(
                f"{self.folder}: trainable_token_indices must be a list of rows, got {trained!r}"
            )
        rows = [i for indices in lists for i in indices]
        end = 2 * n_rows(self._base) + len(rows)  # beyond that it is damaged, and takes memory
        if wrong := [i for i in rows if not 0 <= i < end]:
            raise self._made_for_another(
                f"trainable_token_indices has row {wrong[0]}, and there can be {end}"
            )
        last = max(rows, default=-1)
        return max(n_rows(self._base), last + 1)

    def _skeleton(self) -> Any:
        """Make the model that the adapter was trained in, on the meta device."""
        base = self._base
        try:
            config = configuration(base.config)
            for part in (config, config.get_text_config()):
                if self.n_rows != n_rows(base):
                    part.vocab_size = self.n_rows
                if base.head in base.specs and not base.is_tied:
                    part.tie_word_embeddings = False
            with torch.device("meta"):
                return self._as_trained(self._class_of(config)(config).float())
        except NOT_MADE as error:
            reason = _last_line(error)
            raise InputError(f"transformers cannot build {base.folder}: {reason}") from None

    def _class_of(self, config: Any) -> Any:
        """Find the class of the model that the adapter was trained in.

        It is the base's, but that a bare model stands for the one with an output head.
        """
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        name = str((self._base.config.get("architectures") or [""])[0])
        named = getattr(transformers, name, None)
        is_bare = name.endswith("Model") and self._config.get("task_type") != "FEATURE_EXTRACTION"
        known = isinstance(named, type) and issubclass(named, transformers.PreTrainedModel)
        if known and not (is_bare and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING):
            return named
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]

    def _as_trained(self, model: Any) -> Any:
        """Take the model inside where the adapter was trained without a head."""
        changed = {name.removeprefix(_PREFIX).partition(".")[0] for name in self._stored}
        outer, inner = (dict(of.named_children()).keys() for of in (model, model.base_model))
        return model.base_model if changed <= inner and not changed & outer else model

    def _wrap(self, skeleton: Any) -> Any:
        from peft import PeftModel

        try:
            with (
                warnings.catch_warnings(),
                torch.random.fork_rng(devices=[]),
                self._folder_as_saved() as folder,
            ):
                warnings.simplefilter("ignore")  # missing keys are checked below, by name
                # what is stored takes the place of what the skeleton had
                return PeftModel.from_pretrained(
                    skeleton, folder, torch_device="cpu", low_cpu_mem_usage=True
                )
        except NOT_MADE as error:
            raise self._made_for_another(_last_line(error)) from None

    @contextmanager
    def _folder_as_saved(self) -> Iterator[Path]:
        """Give a folder whose tensors have the names that peft saves them under."""
        names = read_header(self.folder / WEIGHTS).keys()
        if self._stored.keys() == names:
            yield self.folder
            return
        with TemporaryDirectory() as made:
            tensors = load_file(self.folder / WEIGHTS)
            renamed = {_as_saved(name): tensor.clone() for name, tensor in tensors.items()}
            save_file(renamed, Path(made) / WEIGHTS)
            shutil.copy(self.folder / _CONFIG, made)
            yield Path(made)

    def _check_all_loaded(self, model: Any) -> None:
        from peft import get_peft_model_state_dict

        wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
        # with embeddings peft saves all that lies below them, some of it twice
        every = {name.replace(f".{ADAPTER}", ""): t for name, t in model.state_dict().items()}
        known = every | wanted
        stored = self._stored_as_loaded(model)
        missing = _shapes(wanted).items() - stored.items()
        for name in sorted(_shapes(wanted).keys() - stored.keys()):
            module, _, part = name.rpartition(".lora_")
            if part and any(other.startswith(f"{module}.lora_") for other in stored):
                raise InputError(
                    f"{self.folder}: {WEIGHTS} lacks {name}, and has other parts of it; save the "
                    "adapter again with peft"
                )
        if odd := sorted(missing | (stored.items() - _shapes(known).items())):
            raise self._made_for_another(f"{odd[0][0]} {list(odd[0][1])} has no counterpart")

    def _stored_as_loaded(self, model: Any) -> dict[str, tuple[int, ...]]:
        """Give the stored shapes as peft loads them, single experts fused."""
        from peft.utils.transformers_weight_conversion import (
            convert_peft_adapter_state_dict_for_transformers as converted,
        )

        tensors = {n: torch.empty(shape, device="meta") for n, shape in self._stored.items()}
        try:
            return _shapes(converted(model, model.peft_config[ADAPTER], tensors, ADAPTER))
        except NOT_MADE as error:
            raise self._made_for_another(_last_line(error)) from None

    def _find_changes(self) -> Iterator[tuple[str, Change]]:
        if strange := sorted((self._parts.keys() | self._retrained) - self._parameters.keys()):
            hint = ", and lora_bias needs one" if self._config.get("lora_bias") else ""
            raise self._made_for_another(f"{strange[0]} is none of its parameters{hint}")
        tied: dict[int, list[str]] = defaultdict(list)
        for name, parameter in self._parameters.items():
            tied[id(parameter)].append(name)
        for names in tied.values():
            yield from self._changes_of(names)

    def _changes_of(self, names: Sequence[str]) -> Iterator[tuple[str, Change]]:
        """Find the changes of parameters that are one tensor in the base.

        Raises:
            InputError: the base does not store it, or the adapter not all of its new rows.
        """
        parts = tuple(part for name in names for part in self._parts.get(name, ()))
        own = [self._own[name] for name in names if name in self._own]
        files = [self._files[name] for name in names if name in self._files]
        retrained = [self._retrained[name] for name in names if name in self._retrained]
        parted = bool(retrained) and not (
            len(retrained) == len(names) and all(torch.equal(retrained[0], t) for t in retrained)
        )
        parted = parted and len(names) > 1
        self.unties = self.unties or parted
        shape = tuple(self._parameters[names[0]].shape)
        resized = bool(files) and self._base.specs[files[0]].shape != shape
        if not (parts or own or retrained or resized):
            return
        group = None if own or retrained else self._groups.get(names[0])
        if not files and group is not None and all(part.adds_to_weight for part in parts):
            if group.parameters[names[0]] != shape:
                raise self._made_for_another(f"{names[0]} is {list(shape)} here")
            yield from _changes_of_pieces(group, names[0], parts, self._base)
            return
        if not files:
            raise InputError(
                f"{self.folder}: the adapter changes {names[0]}, which {self._base.folder} does "
                "not store under this name; merge it into a full checkpoint with peft first"
            )
        if resized and not own and len(retrained) < len(names):
            self._check_rows(names[0], files[0], shape, parts)
        plain = len(names) == 1 and not resized
        shared = Change(own[-1] if own else files[0], files[0], parts, shape, plain)
        for name in names:
            if name in self._files or parted:
                new = self._retrained.get(name)
                change = shared if new is None else Change(new, files[0], (), shape, is_plain=False)
                yield self._files.get(name, name), change

    def _check_rows(
        self, name: str, file: str, shape: tuple[int, ...], parts: Iterable[Part]
    ) -> None:
        """Refuse rows that neither the base nor the adapter stores."""
        stored = self._base.specs[file].shape
        if not has_rows(name) or stored[1:] != shape[1:]:
            raise self._made_for_another(f"{name} is {list(stored)} there, {list(shape)} here")
        written = {i for part in parts for i in part.rows}
        if lost := [i for i in range(stored[0], shape[0]) if i not in written]:
            raise InputError(
                f"{self.folder}: the adapter was trained with {shape[0]} rows in {name}, where "
                f"{self._base.folder} has {stored[0]}, and does not store row {lost[0]}; save it "
                "with save_embedding_layers=True"
            )

    def _made_for_another(self, reason: str) -> InputError:
        return InputError(
            f"{self.folder}: the adapter was made for another base than {self._base.folder}: "
            f"{reason}"
        )


def _as_saved(name: str) -> str:
    """Name a tensor as peft saves it, without the name of the adapter."""
    return _WITH_NAME.sub(r"\1", name).replace(".modules_to_save.", ".")


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()


def _unwrapped(name: str) -> str:
    """Name a parameter as the model does that peft wraps."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _overwritten(
    model: nn.Module, before: Mapping[str, nn.Parameter]
) -> Iterator[tuple[str, nn.Parameter]]:
    """List the base's parameters that the adapter stores: biases, embeddings."""
    for path, parameter in model.named_parameters(remove_duplicate=False):
        name = _unwrapped(path)
        if name in before and parameter is not before[name]:
            yield name, parameter


def _retrained(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """List the parameters of modules that were trained as a whole."""
    from peft.utils import ModulesToSaveWrapper

    for path, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            for name, parameter in module.modules_to_save[ADAPTER].named_parameters():
                yield f"{_unwrapped(path)}.{name}", parameter.detach()


def _parts(model: nn.Module) -> Iterator[tuple[str, Part]]:
    """List what peft merges into parameters, in its order."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    for path, module in model.named_modules():
        name = _unwrapped(path)
        if isinstance(module, TrainableTokensLayer):
            if module.tied_adapter is None:  # the other writes the same rows
                yield f"{name}.weight", Part(module)
        elif isinstance(module, LoraLayer):
            parameter = getattr(module, "parameter_name", "weight")
            yield f"{name}.{parameter}", Part(module)
            if module.lora_bias.get(ADAPTER):
                yield f"{name}.bias", Part(module, "bias")


def _changes_of_pieces(
    group: Group, parameter: str, parts: Iterable[Part], base: Checkpoint
) -> Iterator[tuple[str, Change]]:
    """Find the changes of the stored tensors that a parameter is made of."""
    for name in group.sources:
        pieces = tuple(Part(part.layer, piece=Piece(group, parameter, name)) for part in parts)
        yield name, Change(name, name, pieces, base.specs[name].shape, is_plain=False)
