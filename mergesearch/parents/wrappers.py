"""Names of a model's tensors, without what training wrapped the model in."""

from collections.abc import Iterable

#: What compiling, sharding and recomputing put into names, wherever they wrap a module.
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
#: What several devices, and adapters, put before all names.
_AROUND = ("module.", "base_model.model.")


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Name tensors as the model does that was wrapped in training.

    Args:
        names: of all tensors of a checkpoint.

    Returns:
        For each name the model's own; itself where two would have one name.
    """
    own = {name: _without_parts(name) for name in names}
    while own and (around := _around(own.values())) is not None:
        own = {name: known.removeprefix(around) for name, known in own.items()}
    return own if len(set(own.values())) == len(own) else {name: name for name in own}


def _without_parts(name: str) -> str:
    for part in _INSIDE:
        name = name.replace(part, "")
    return name


def _around(names: Iterable[str]) -> str | None:
    every = list(names)
    return next((w for w in _AROUND if all(name.startswith(w) for name in every)), None)
