"""From an Optuna trial to a candidate."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mergesearch.methods import METHODS, Parameter, Scalar
from mergesearch.recipe import Conditional, ModelRef, Recipe, Setting
from mergesearch.space.domains import GREEDY_SOUP, Choice, Domain, Fixed, Range
from mergesearch.space.layout import Block, in_gradients, in_steps
from mergesearch.space.schema import SearchSpace

if TYPE_CHECKING:
    import optuna

#: The group of the tensors that are in none of the groups a space names.
REST = "rest"
#: The base among a candidate's models; no parent has this name.
BASE = "base"
#: Digits kept of a suggested number: finer steps change no score, and recipes stay readable.
_DECIMALS = 4


@dataclass(frozen=True)
class SoupOrder:
    """A candidate that is a greedy soup, made by trying the parents in this order."""

    names: tuple[str, ...]


def suggest(
    space: SearchSpace, trial: "optuna.trial.BaseTrial", n_layers: int
) -> Recipe | SoupOrder:
    """The candidate that a trial proposes.

    Parameters that mean the same in several methods (weights) have one name in the study, so that
    every trial teaches the sampler; the others are named after their method.

    Args:
        space: what may be proposed.
        trial: an Optuna trial; its `suggest_*` functions are called.
        n_layers: the depth of the models.
    """
    name = _choose(trial, "method", tuple(space.methods))
    if name == GREEDY_SOUP:
        keys = {parent: trial.suggest_float(f"order.{parent}", 0, 1) for parent in space.parents}
        return SoupOrder(tuple(sorted(keys, key=lambda parent: (keys[parent], parent))))
    method = METHODS[name]

    def value(parameter: Parameter, key: str) -> Scalar:
        """One value; `key` says of which parent, block and group."""
        domain = space.methods[name][parameter.name]
        if not parameter.by_block or isinstance(domain, Choice):
            # a list of values is the method's own: Optuna knows one list by one name
            return _draw(trial, f"{name}.{parameter.name}{key}", domain, domain)
        return _draw(trial, f"{parameter.name}{key}", domain, _shared_range(space, parameter.name))

    base, models = _inputs(space, name, trial)
    searched = [p for p in method.parameters if p.name in space.methods[name]]
    everywhere = {p.name: value(p, "") for p in searched if not p.by_block}
    blocks = [
        Block(
            common=_settings(space, value, searched, f".{i}", per_model=False),
            own={
                parent: _settings(space, value, searched, f".{parent}.{i}", per_model=True)
                if parent != BASE
                else {"weight": 0.0}
                for parent in models
            },
        )
        for i in range(space.granularity.blocks)
    ]
    if len(blocks) == 1 or space.granularity.smooth:
        common, slices = in_gradients(blocks, models)
    else:
        apart = None if base in models.values() else base
        common, slices = {}, in_steps(blocks, models, apart, n_layers)
    return Recipe(
        merge_method=name,
        base_model=base,
        parameters={**everywhere, **common},
        slices=slices,
        tokenizer_source=space.tokenizer_source,
        seed=space.search.seed,
    )


def _settings(
    space: SearchSpace,
    value: Callable[[Parameter, str], Scalar],
    parameters: list[Parameter],
    key: str,
    *,
    per_model: bool,
) -> dict[str, Setting]:
    """The settings of one block: of one model, or common to all."""
    return {
        p.name: _by_group(space, value, p, key)
        for p in parameters
        if p.by_block and p.per_model == per_model
    }


def _by_group(
    space: SearchSpace, value: Callable[[Parameter, str], Scalar], parameter: Parameter, key: str
) -> Setting:
    """One value, or one for each group of tensors and one for the rest."""
    key = key if space.granularity.blocks > 1 else key.rpartition(".")[0]
    if not space.granularity.groups:
        return value(parameter, key)
    cases = [
        Conditional(filter=group, value=value(parameter, f"{key}.{group}"))
        for group in space.granularity.groups
    ]
    return (*cases, Conditional(value=value(parameter, f"{key}.{REST}")))


def _inputs(
    space: SearchSpace, name: str, trial: "optuna.trial.BaseTrial"
) -> tuple[ModelRef | None, dict[str, ModelRef]]:
    """The base and the models of a candidate; slerp and its like choose theirs among the parents.

    Where the vocabularies differ, the base is named by methods without a base too: as a model whose
    weight is 0, it gives the merged model its tokens.
    """
    method = METHODS[name]
    models = dict(space.parents)
    if n := method.n_chosen:
        groups = tuple("|".join(names) for names in combinations(space.parents, n))
        what = "pair" if n == 2 else "parent"
        chosen = str(_choose(trial, f"{name}.{what}", groups)).split("|")
        models = {parent: space.parents[parent] for parent in chosen}
    if method.base == "first":
        return models.pop(chosen[0]), models
    if method.sets_base_apart:
        return space.base, models
    if space.tokenizer_source is not None and space.base is not None:
        return space.base, {BASE: space.base, **space.parents}
    return None, models


def _shared_range(space: SearchSpace, parameter: str) -> Range | None:
    """The smallest range that holds every method's own."""
    ranges = [
        domain
        for domains in space.methods.values()
        if isinstance(domain := domains.get(parameter), Range)
    ]
    if not ranges:
        return None
    return Range(min(r.low for r in ranges), max(r.high for r in ranges))


def _draw(
    trial: "optuna.trial.BaseTrial", name: str, domain: Domain, study_domain: Domain | None
) -> Scalar:
    """A value of `domain`, suggested over `study_domain` and clipped to the method's own range."""
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choice):
        return _choose(trial, name, domain.values)
    assert isinstance(study_domain, Range)
    drawn = trial.suggest_float(name, study_domain.low, study_domain.high)
    return min(max(round(drawn, _DECIMALS), domain.low), domain.high)


def _choose(trial: "optuna.trial.BaseTrial", name: str, values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else trial.suggest_categorical(name, values)
