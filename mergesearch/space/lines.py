"""LiNeS (arXiv:2410.17146): task vectors scaled by depth, by two numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mergesearch.config import unknown
from mergesearch.methods import Method
from mergesearch.recipe import Conditional, Setting
from mergesearch.space.domains import Domain, Range, domain_of
from mergesearch.space.layout import Block, Settings

#: The key of a method in a space, and what it gives: the numbers' names among its domains.
LINES = "lines"
ALPHA, BETA = f"{LINES}.alpha", f"{LINES}.beta"
_RANGES: Mapping[str, Domain] = {ALPHA: Range(0.2, 1.0), BETA: Range(0.0, 1.0)}
#: Digits kept of a product, so that recipes stay readable.
_DECIMALS = 6


@dataclass(frozen=True)
class Lines:
    """Layer l of L has its task vectors scaled by alpha + beta (l - 1) / (L - 1)."""

    alpha: float
    beta: float

    def ends(self, layers: tuple[int, int], n_layers: int) -> tuple[float, float]:
        """Scales of the first and last of some layers, [first, end) of all."""
        first, last = (i / max(n_layers - 1, 1) for i in (layers[0], layers[1] - 1))
        return self.alpha + self.beta * first, self.alpha + self.beta * last

    def over(self, block: Block, scaled: str, default: Setting, ends: tuple[float, float]) -> Block:
        """Scale a block's settings of lambda, or of every model's weight, as gradients."""
        if scaled == "weight":
            own = {model: _times(of, scaled, of[scaled], ends) for model, of in block.own.items()}
            return replace(block, own=own)
        value = block.common.get(scaled, default)
        return replace(block, common=_times(block.common, scaled, value, ends))


def with_lines(
    lines: Lines,
    method: Method,
    blocks: Sequence[Block],
    everywhere: Settings,
    ranges: Sequence[tuple[int, int]],
    n_layers: int,
) -> tuple[list[Block], Settings]:
    """Scale a method's task vectors in every block by its place in the depth.

    Args:
        lines: the two numbers.
        method: one with a `scaled_parameter`.
        blocks: the settings of each part of the depth.
        everywhere: those of all parts.
        ranges: of each block its layers, [first, end).
        n_layers: of the whole.

    Returns:
        Blocks that have the scaled parameter, and what is left for all parts.
    """
    scaled = scaled_parameter(method)
    parameter = method.parameter(scaled) if scaled else None
    assert parameter is not None
    default = everywhere.get(parameter.name, parameter.default)
    over = [
        lines.over(block, parameter.name, default, lines.ends(layers, n_layers))
        for block, layers in zip(blocks, ranges, strict=True)
    ]
    return over, {name: of for name, of in everywhere.items() if name != parameter.name}


def scaled_parameter(method: Method) -> str | None:
    """Name what scales a method's task vectors: lambda, or else each model's weight."""
    if method.base != "required":
        return None
    return next((name for name in ("lambda", "weight") if method.parameter(name)), None)


def split(spec: Any) -> tuple[Any, dict[str, Any]]:
    """Part a method's parameters in a space from what it says of `lines`."""
    if not isinstance(spec, Mapping):
        return spec, {}
    said = {key: raw for key, raw in spec.items() if key in (LINES, *_RANGES)}
    return {key: raw for key, raw in spec.items() if key not in said}, said


def lines_domains(name: str, method: Method, said: Mapping[str, Any]) -> dict[str, Domain]:
    """Read what a space says of `lines`: a value or a range each for alpha and beta.

    Args:
        name: of the method.
        method: its row.
        said: `lines` and what it says, or domains that were read before; nothing for no lines.

    Raises:
        ValueError: something in it is wrong, or nothing scales the method's task vectors.
    """
    if not said:
        return {}
    if scaled_parameter(method) is None:
        raise ValueError(
            f"{name}.{LINES} scales task vectors, which need a base and a lambda or weight, and "
            f"{name} has none; drop {LINES}"
        )
    spec = said.get(LINES, {key.removeprefix(f"{LINES}."): raw for key, raw in said.items()})
    spec = {} if spec is None else spec
    if not isinstance(spec, Mapping):
        raise ValueError(f"{name}.{LINES} takes alpha and beta, e.g. {LINES}: {{}}, got {spec!r}")
    known = {key.removeprefix(f"{LINES}."): key for key in _RANGES}
    for key in spec:
        if key not in known:
            raise ValueError(unknown(f"key of {name}.{LINES}", key, known))
    given = {known[key]: domain_of(f"{name}.{known[key]}", raw) for key, raw in spec.items()}
    return {**_RANGES, **given}


def gradient(setting: Setting, ends: Sequence[float]) -> Setting:
    """Multiply a setting by a scale that goes evenly over the depth."""
    if isinstance(setting, tuple):
        return tuple(
            Conditional(filter=case.filter, value=gradient(case.value, ends))
            for case in setting
            if isinstance(case, Conditional)
        )
    assert isinstance(setting, float)
    first, last = (round(setting * end, _DECIMALS) for end in ends)
    return first if first == last else (first, last)


def _times(
    settings: Settings, name: str, value: Setting, ends: tuple[float, float]
) -> dict[str, Setting]:
    return {**settings, name: gradient(value, ends)}
