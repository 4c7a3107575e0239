"""A checkpoint as one GGUF file, written tensor by tensor and read back."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mergesearch.calibration import PROMPTS_FOLDER
from mergesearch.errors import InputError
from mergesearch.exporting.checkpoint import RECIPE_FILE, check_free, write_checkpoint
from mergesearch.exporting.gguf.architectures import (
    Architecture,
    architecture_of,
    describe,
    frequency_factors,
    laid_out,
)
from mergesearch.exporting.gguf.tokenizer import Vocabulary
from mergesearch.exporting.selected import OutType, Selected
from mergesearch.files import folder_beside, whole_folder
from mergesearch.logs import quiet, without_bars
from mergesearch.merging import plan_merge
from mergesearch.parents import Checkpoint, Parents, configuration

#: Beyond it a number is infinite in float16.
_LARGEST = 65504.0
#: By the type of a file the dtypes whose numbers it keeps; what is too small for float16's steps is
#: nothing beside the others.
_KEPT = {"f16": {torch.float16, torch.bfloat16}, "bf16": {torch.bfloat16}}
#: In the tensor maps of the package gguf.
_FREQUENCIES = "rope_freqs.weight"


def write_gguf(selected: Selected, out: Path) -> tuple[str, ...]:
    """Write a merge as a GGUF file, with its recipe and card beside it.

    The checkpoint that it is made of lies in a hidden folder meanwhile, checked by its hash. The
    file is read back by transformers, and is refused where a number is not what it should be.

    Raises:
        InputError: gguf is not installed, the architecture or the tokenizer is not written, a value
            is too large for float16, the recipe is wrong, the folder is taken.
        ExportMismatchError: the rebuilt model is not the one that was scored.
    """
    check_free(out)
    _require_gguf()
    parents = Parents.of(selected.recipe, keep=False, allow_mismatch=selected.allow_mismatch)
    # before anything is merged
    plan = plan_merge(selected.recipe, parents)
    architecture_of(configuration(plan.config))
    Vocabulary(parents.tokenizer_folder)
    outtype = selected.options.outtype
    if {job.dtype for job in plan.jobs} - _KEPT.get(outtype, set()):
        selected = selected.approximated(f"this file, rounded to {outtype.upper()}")
    try:
        with folder_beside(out) as beside, whole_folder(out) as folder:
            checkpoint = beside / "checkpoint"
            write_checkpoint(
                selected.recipe,
                checkpoint,
                parents=parents,
                expected_digest=selected.digest,
                notes=selected.notes,
                metadata=selected.metadata,
            )
            file = folder / f"model-{outtype.upper()}.gguf"
            convert(checkpoint, file, outtype, name=out.name)
            check(checkpoint, file)
            for name in (RECIPE_FILE, "README.md"):
                shutil.copy(checkpoint / name, folder / name)
            selected.write_results(folder)
            if (checkpoint / PROMPTS_FOLDER).is_dir():
                shutil.copytree(checkpoint / PROMPTS_FOLDER, folder / PROMPTS_FOLDER)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    return (f"transformers loads it with gguf_file={file.name!r}",)


def convert(folder: Path, file: Path, outtype: OutType, *, name: str) -> None:
    """Write a checkpoint as a GGUF file; one tensor is in memory at a time.

    Args:
        folder: the checkpoint's.
        file: to write.
        outtype: of matrices; numbers of one dimension are float32, as llama.cpp has them.
        name: of the model.

    Raises:
        InputError: see `write_gguf`.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

    checkpoint = Checkpoint(folder)
    config = configuration(checkpoint.config)
    architecture = architecture_of(config)
    writer = GGUFWriter(file, architecture.name)
    try:
        writer.add_name(name)
        writer.add_file_type(LlamaFileType[f"MOSTLY_{outtype.upper()}"])
        writer.add_quantization_version(2)  # of ggml, see GGML_QNT_VERSION
        describe(writer, config)
        Vocabulary(folder).write(writer, config.vocab_size)
        names = _names(checkpoint, architecture, config)
        types = {own: _type(checkpoint.specs[own].shape, outtype) for own in names}
        extra = frequency_factors(config)
        if extra is not None:
            _announce(writer, _FREQUENCIES, tuple(extra.shape), GGMLQuantizationType.F32)
        for own, theirs in names.items():
            _announce(writer, theirs, checkpoint.specs[own].shape, types[own])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if extra is not None:
            writer.write_tensor_data(extra.numpy().view(np.uint8))
        for own in names:
            values = _values(checkpoint, own, architecture, config)
            writer.write_tensor_data(_quantized(values, types[own], own))
            checkpoint.release(own)
    finally:
        writer.close()


def check(folder: Path, file: Path) -> None:
    """Read a GGUF file back with transformers, and compare it with its checkpoint.

    Raises:
        InputError: a tensor, or a field of the configuration, is another.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize, quantize
    from transformers import AutoModelForCausalLM

    checkpoint = Checkpoint(folder)
    config = configuration(checkpoint.config)
    architecture = architecture_of(config)
    try:
        with quiet(), without_bars():
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, dtype=torch.float32
            )
    except (ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"transformers cannot read {file.name} back: {reason}") from None
    types = {tensor.name: tensor.tensor_type for tensor in GGUFReader(file).tensors}
    loaded = model.state_dict()
    for own, theirs in _names(checkpoint, architecture, config).items():
        # rows are rounded by themselves, so that where they stand makes no difference
        values, kind = checkpoint.read(own).float().numpy(), types[theirs]
        expected = dequantize(quantize(values, kind), kind)
        if own not in loaded or not np.array_equal(loaded[own].numpy(), expected):
            how = "with another" if own in loaded else "without"
            raise InputError(
                f"transformers reads {file.name} back {how} {own}; export a checkpoint instead"
            )
        checkpoint.release(own)
    for field in ("hidden_size", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps"):
        ours, read = getattr(config, field), getattr(model.config, field)
        if not np.isclose(ours, read):
            raise InputError(
                f"transformers reads {file.name} back with {field} {read}, and not {ours}; export "
                "a checkpoint instead"
            )


def _require_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise InputError(
            "GGUF files need the package gguf: pip install 'mergesearch[gguf]'"
        ) from None


def _names(checkpoint: Checkpoint, architecture: Architecture, config: Any) -> dict[str, str]:
    """Name each tensor of a checkpoint as GGUF does.

    Raises:
        InputError: there is no place for one.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture.name)
    found = get_tensor_name_map(arch, config.num_hidden_layers)
    names = {own: found.get_name(own, (".weight", ".bias")) for own in checkpoint.specs}
    if odd := [own for own, theirs in names.items() if theirs is None]:
        raise InputError(
            f"a GGUF file of the architecture {architecture.name} has no place for {odd[0]}; "
            "export a checkpoint instead"
        )
    return {own: theirs for own, theirs in names.items() if theirs is not None}


def _type(shape: tuple[int, ...], outtype: OutType) -> Any:
    """Choose a tensor's type: a wider one for vectors, and for odd rows."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) < 2:
        return GGMLQuantizationType.F32
    kind = GGMLQuantizationType[outtype.upper()]
    return kind if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.F16


def _announce(writer: Any, name: str, shape: tuple[int, ...], kind: Any) -> None:
    """Tell a writer of a tensor that will come."""
    from gguf.quants import quant_shape_to_byte_shape

    of_bytes = quant_shape_to_byte_shape(shape, kind)
    n_bytes = int(np.prod(of_bytes))
    writer.add_tensor_info(name, of_bytes, np.dtype(np.uint8), n_bytes, raw_dtype=kind)


def _values(
    checkpoint: Checkpoint, name: str, architecture: Architecture, config: Any
) -> NDArray[np.float32]:
    """Read a tensor in float32, its rows where llama.cpp has them."""
    return laid_out(checkpoint.read(name).float(), name, architecture, config).numpy()


def _quantized(values: NDArray[np.float32], kind: Any, name: str) -> NDArray[np.uint8]:
    """Round a tensor to its type, as bytes.

    Raises:
        InputError: a value is too large for float16.
    """
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    if kind == GGMLQuantizationType.F16 and np.abs(values).max() > _LARGEST:
        raise InputError(
            f"float16 ends at {_LARGEST:.0f}, and {name} has {np.abs(values).max():.3g}; "
            "take --outtype bf16"
        )
    return quantize(values, kind).view(np.uint8)
