"""The tensors of a model by the names that its checkpoint has, as vLLM takes them."""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: A name up to the number of its layer.
_LAYER = re.compile(r".*?\.\d+\.")


def checkpoint_tensors(model: "PreTrainedModel") -> Iterator[tuple[str, Tensor]]:
    """Give each tensor of a model by the name that it has in a checkpoint.

    Where a class fuses what files hold apart, as the experts of a mixture, transformers' own rules
    take it apart again, a layer at a time. What is tied to another tensor is left out.
    """
    from transformers.core_model_loading import revert_weight_conversion

    state = model.state_dict()
    for target, source in model.all_tied_weights_keys.items():
        if target in state and state[target].data_ptr() == state[source].data_ptr():
            del state[target]
    for _, names in groupby(state, key=_layer_of):
        yield from revert_weight_conversion(model, {n: state[n] for n in names}).items()


def _layer_of(name: str) -> str:
    found = _LAYER.match(name)
    return found[0] if found else name
