"""A model's decoder layers, through which texts go one layer at a time."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mergesearch.calibration.texts import Encoded
from mergesearch.errors import InputError
from mergesearch.merging.threads import Workers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Parts of the names of towers, which read no text.
_TOWERS = ("vision", "visual", "audio", "encoder")


@dataclass
class Passage:
    """A text on its way through the layers."""

    #: What enters the next layer, (1, tokens, hidden size).
    hidden: Tensor
    #: What each layer is called with beside that: further arguments, and keywords.
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)


class Layers:
    """The decoder layers of a model in memory, whose weights may change in between.

    Args:
        model: a transformers model.
        depth: layers that it has by its configuration.
        pool: runs texts beside each other, each on one thread, for the same bits.

    Raises:
        InputError: it has no such list of layers.
    """

    def __init__(self, model: "PreTrainedModel", depth: int, pool: Workers) -> None:
        self._model = model
        self._pool = pool
        #: Its name in the model, with a dot behind it.
        self.prefix, self.modules = _decoder(model, depth)

    def linears(self, i: int) -> dict[str, nn.Module]:
        """List a layer's linear layers by their names in the model."""
        return {
            f"{self.prefix}{i}.{name}": module
            for name, module in self.modules[i].named_modules()
            if _is_linear(module)
        }

    def parameters(self, i: int) -> list[str]:
        """List a layer's parameters by their names in the model."""
        return [f"{self.prefix}{i}.{name}" for name, _ in self.modules[i].named_parameters()]

    def enter(self, texts: Sequence[Encoded]) -> list[Passage]:
        """Take texts to the first layer.

        What layers get beside the hidden state, as masks and positions, is learned from the model's
        own forward pass.

        Raises:
            InputError: the layers cannot be gone through by hand.
        """
        seen = threading.local()

        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.calls.append((args, kwargs))

        @torch.no_grad()
        def entered(text: Encoded) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
            seen.calls = []
            self._model.base_model(input_ids=text.ids.to(self._model.device), use_cache=False)
            return list(seen.calls)

        hooks = [m.register_forward_pre_hook(record, with_kwargs=True) for m in self.modules]
        passages: list[Passage] = []
        first: list[Tensor] = []
        try:
            for calls in self._pool.map(entered, texts):
                if not calls:
                    raise _not_in_turn()
                states = [_hidden(*call) for call in calls]
                passages.append(Passage(states[0], [_rest(*call) for call in calls]))
                first = first or states
        finally:
            for hook in hooks:
                hook.remove()
        self._check(passages[0], first)  # one shows it for all
        return passages

    def advance(self, i: int, passages: Sequence[Passage]) -> None:
        """Take texts through a layer."""
        for passage, (hidden, _) in zip(passages, self._run(i, passages), strict=True):
            passage.hidden = hidden

    def inputs(
        self, i: int, passages: Sequence[Passage], *, advance: bool
    ) -> dict[str, list[Tensor]]:
        """Gather what a layer's linear layers get from texts.

        Args:
            i: the layer.
            passages: on their way to it.
            advance: take the texts through the layer, too.

        Returns:
            By the linear layer's name (1, tokens, columns) of each text; one that a text does not
            reach has none of it. Layers that share an input share the tensors.
        """
        with recorded(self.linears(i)) as seen:
            found: dict[str, list[Tensor]] = {}
            for passage, (hidden, inputs) in zip(
                passages, self._run(i, passages, seen), strict=True
            ):
                for name, tensor in inputs.items():
                    found.setdefault(name, []).append(tensor)
                if advance:
                    passage.hidden = hidden
            return found

    def _run(
        self, i: int, passages: Sequence[Passage], seen: Any = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Call a layer on each text; yields its output, and what was seen of its inputs."""

        @torch.no_grad()
        def called(passage: Passage) -> tuple[Tensor, dict[str, Tensor]]:
            if seen is not None:
                seen.inputs = {}
            args, kwargs = passage.calls[i]
            made = self.modules[i](passage.hidden, *args, **kwargs)
            hidden = made[0] if isinstance(made, tuple) else made
            return hidden, {} if seen is None else seen.inputs

        return self._pool.map(called, passages)

    def _check(self, passage: Passage, states: Sequence[Tensor]) -> None:
        """Compare a text's way by hand with the model's own."""
        start, same = passage.hidden, len(states) == len(self.modules)
        for i, state in enumerate(states[1:]):
            if same:
                self.advance(i, [passage])
                same = torch.allclose(passage.hidden, state, rtol=1e-2, atol=1e-3, equal_nan=True)
        if not same:
            raise _not_in_turn()
        passage.hidden = start


@contextmanager
def recorded(linears: Mapping[str, nn.Module]) -> Iterator[Any]:
    """Record inputs of linear layers by name, in each thread's own `inputs`."""
    seen = threading.local()

    def hook_of(name: str) -> Any:
        def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.inputs[name] = args[0]

        return record

    hooks = [m.register_forward_pre_hook(hook_of(name)) for name, m in linears.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _is_linear(module: nn.Module) -> bool:
    """Tell a linear layer; GPT-2's, stored columns by rows, is one as well."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _decoder(model: nn.Module, depth: int) -> tuple[str, nn.ModuleList]:
    """Find the list of decoder layers, and its name."""
    for name, module in model.named_modules():
        is_list = isinstance(module, nn.ModuleList) and len(module) == depth
        has_linears = is_list and any(map(_is_linear, module.modules()))
        if has_linears and not any(word in name for word in _TOWERS):
            assert isinstance(module, nn.ModuleList)
            return f"{name}.", module
    raise InputError(
        f"statistics of activations are of linear layers in {depth} decoder layers, and the class "
        "of this architecture has none; take methods without data"
    )


def _not_in_turn() -> InputError:
    return InputError(
        "statistics of activations are computed layer by layer, and this architecture's layers do "
        "more than follow one another; take methods without data"
    )


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    state: Tensor = args[0] if args else kwargs["hidden_states"]
    return state


def _rest(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args[1:], {key: value for key, value in kwargs.items() if key != "hidden_states"}
