"""From an Optuna trial to a candidate."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from mergesearch.methods import METHODS, Method, Parameter, Scalar
from mergesearch.recipe import Aim, Conditional, ModelRef, PromptFile, Recipe, Setting
from mergesearch.space.calibrating import prompt_files
from mergesearch.space.choices import GREEDY_SOUP, LEARNED, STACKING
from mergesearch.space.domains import Choice, Domain, Fixed, Range, WholeRange
from mergesearch.space.layout import Block, Settings, Shape, boundaries, in_gradients, in_steps
from mergesearch.space.learned import LearnedPoint, suggest_learned
from mergesearch.space.lines import ALPHA, BETA, Lines, with_lines
from mergesearch.space.schema import SearchSpace
from mergesearch.space.stacking import suggest_stack

if TYPE_CHECKING:
    import optuna

#: The group of the tensors that are in none of the groups a space names.
REST = "rest"
#: The base among a candidate's models; no parent has this name.
BASE = "base"
#: At and above it, a parent goes into a candidate.
INCLUDED = 0.5
#: Digits kept of a suggested number: finer steps change no score, and recipes stay readable.
_DECIMALS = 4


@dataclass(frozen=True)
class SoupOrder:
    """A candidate that is a greedy soup, made by trying the parents in this order."""

    names: tuple[str, ...]


def suggest(
    space: SearchSpace, trial: "optuna.trial.BaseTrial", shape: Shape
) -> Recipe | SoupOrder | LearnedPoint:
    """Make the candidate that a trial proposes.

    Parameters that mean the same in several methods (weights, lambda) have one name in the study,
    so that every trial teaches the sampler; the others are named after their method.

    Args:
        space: what may be proposed.
        trial: an Optuna trial; its `suggest_*` functions are called.
        shape: of the models.
    """
    name = _choose(trial, "method", tuple(space.methods))
    if name == GREEDY_SOUP:
        keys = {parent: trial.suggest_float(f"order.{parent}", 0, 1) for parent in space.parents}
        return SoupOrder(tuple(sorted(keys, key=lambda parent: (keys[parent], parent))))
    if (learned := space.learned) and name == LEARNED:
        return suggest_learned(learned, tuple(space.parents), trial)
    if (stacking := space.stacking) and name == STACKING:
        stack = suggest_stack(stacking, space.parents, trial, shape.n_layers, shape.writers)
        return space.with_towers(stack)
    base, models = _inputs(space, name, trial)
    drawn = _Drawn(space, trial, shape, METHODS[name], name)
    # of parents that are switched off as well: parameters that come and go teach a sampler less
    named = models if METHODS[name].n_chosen else space.parents
    own = {parent: drawn.settings(parent) for parent in named if parent in space.parents}
    own[BASE] = [{"weight": 0.0}] * drawn.n_blocks
    blocks = [
        Block(common=common, own={model: own[model][i] for model in models})
        for i, common in enumerate(drawn.settings(None))
    ]
    whole = len(blocks) == 1 or space.granularity.smooth
    ranges = [(0, shape.n_layers)] if whole else boundaries(shape.n_layers, space.granularity)
    everywhere: Settings = drawn.everywhere()
    if (lines := drawn.lines()) is not None:
        blocks, everywhere = with_lines(
            lines, METHODS[name], blocks, everywhere, ranges, shape.n_layers
        )
    if whole:
        common, slices = in_gradients(blocks, models)
        everywhere = {**everywhere, **common}
    else:
        apart = None if base in models.values() else base
        slices = in_steps(blocks, models, apart, ranges)
    aim = space.aim.suggest(space.base, trial) if space.aim and space.base else None
    return Recipe(
        merge_method=name,
        base_model=base,
        parameters=everywhere,
        slices=slices,
        tokenizer_source=space.tokenizer_source,
        towers=space.towers,
        calibration=_prompts(space, name, models, aim),
        aim=aim,
        seed=space.search.seed,
    )


def _prompts(
    space: SearchSpace, name: str, models: Mapping[str, ModelRef], aim: Aim | None
) -> tuple[PromptFile, ...] | None:
    """Name the prompts that a candidate's merge looks at: its models', or for AIM all."""
    if aim is not None:
        return prompt_files(space.calibration, {BASE: aim.base, **space.parents})
    return prompt_files(space.calibration, models) if METHODS[name].statistics else None


class _Drawn:
    """The values that a trial draws for one method's parameters."""

    def __init__(
        self,
        space: SearchSpace,
        trial: "optuna.trial.BaseTrial",
        shape: Shape,
        method: Method,
        name: str,
    ) -> None:
        self._space = space
        self._trial = trial
        self._shape = shape
        self._name = name
        self._domains = space.domains[name]
        self._searched = [p for p in method.parameters if p.name in self._domains]
        self.n_blocks = shape.n_blocks(space.granularity)

    def everywhere(self) -> dict[str, Setting]:
        """Draw what is one value for all models and all tensors."""
        return {
            p.name: self._value(p, "")
            for p in self._searched
            if not (self._by_block(p) or self._per_parent(p))
        }

    def lines(self) -> Lines | None:
        """Draw the two numbers that scale task vectors by depth, where the space has them."""
        if ALPHA not in self._domains:
            return None
        domains = [(f"{self._name}.{key}", self._domains[key]) for key in (ALPHA, BETA)]
        alpha, beta = (_draw(self._trial, key, domain, domain) for key, domain in domains)
        return Lines(float(alpha), float(beta))

    def settings(self, parent: str | None) -> list[Settings]:
        """Draw the settings of each block: of one parent, or those that all models share."""
        own = "" if parent is None else f".{parent}"
        drawn = {
            p.name: self._over_blocks(p, own)
            if self._by_block(p)
            else [self._value(p, own)] * self.n_blocks
            for p in self._searched
            if self._per_parent(p) == (parent is not None)
            and (self._by_block(p) or self._per_parent(p))
        }
        return [{name: values[i] for name, values in drawn.items()} for i in range(self.n_blocks)]

    def _over_blocks(self, parameter: Parameter, own: str) -> list[Setting]:
        """One value a block, or one for each group of tensors and one for the rest."""
        keys = [f"{own}.{i}" for i in range(self.n_blocks)] if self.n_blocks > 1 else [own]
        groups = self._space.granularity.groups
        if not groups:
            return [self._value(parameter, key) for key in keys]
        by_group = [self._of_group(parameter, group, own, keys) for group in groups]
        rest = [self._value(parameter, f"{key}.{REST}") for key in keys]
        return [
            (
                *(
                    Conditional(filter=group, value=values[i])
                    for group, values in zip(groups, by_group, strict=True)
                ),
                Conditional(value=rest[i]),
            )
            for i in range(self.n_blocks)
        ]

    def _of_group(
        self, parameter: Parameter, group: str, own: str, keys: Sequence[str]
    ) -> list[Scalar]:
        if group in self._shape.outside:
            return [self._value(parameter, f"{own}.{group}")] * self.n_blocks
        return [self._value(parameter, f"{key}.{group}") for key in keys]

    def _value(self, parameter: Parameter, key: str) -> Scalar:
        """One value; `key` says of which parent, block and group."""
        domain = self._domains[parameter.name]
        if not parameter.shared or isinstance(domain, Choice):
            # a list of values is the method's own: Optuna knows one list by one name
            name = f"{self._name}.{parameter.name}{key}"
            return _draw(self._trial, name, domain, domain)
        hull = _shared_range(self._space, parameter.name)
        return _draw(self._trial, f"{parameter.name}{key}", domain, hull)

    def _by_block(self, parameter: Parameter) -> bool:
        return parameter.by_block or parameter.name in self._space.granularity.by_block

    def _per_parent(self, parameter: Parameter) -> bool:
        """Say if each parent has its own: weights always, others where the space says so."""
        named = parameter.name in self._space.granularity.per_parent
        return parameter.per_model and (parameter.by_block or named)


def _inputs(
    space: SearchSpace, name: str, trial: "optuna.trial.BaseTrial"
) -> tuple[ModelRef | None, dict[str, ModelRef]]:
    """Draw the base and the models; slerp and its like choose among the parents.

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
    elif space.subset is not None:
        chosen = _subset(space.parents, *space.subset, trial)
        models = {parent: space.parents[parent] for parent in chosen}
    if method.base == "first":
        return models.pop(chosen[0]), models
    if method.sets_base_apart:
        return space.base, models
    if space.tokenizer_source is not None and space.base is not None:
        return space.base, {BASE: space.base, **space.parents}
    return None, models


def _subset(
    parents: Iterable[str], least: int, most: int, trial: "optuna.trial.BaseTrial"
) -> list[str]:
    """Draw the parents that are on; too few or too many are mended by their switches."""
    switches = {parent: trial.suggest_float(f"include.{parent}", 0, 1) for parent in parents}
    n_on = sum(value >= INCLUDED for value in switches.values())
    ordered = sorted(switches, key=lambda parent: -switches[parent])
    chosen = set(ordered[: min(max(n_on, least), most)])
    return [parent for parent in parents if parent in chosen]


def _shared_range(space: SearchSpace, parameter: str) -> Range | None:
    """Return the smallest range that holds every method's own."""
    ranges = [
        domain
        for domains in space.domains.values()
        if isinstance(domain := domains.get(parameter), Range)
    ]
    if not ranges:
        return None
    return Range(min(r.low for r in ranges), max(r.high for r in ranges))


def _draw(
    trial: "optuna.trial.BaseTrial", name: str, domain: Domain, study_domain: Domain | None
) -> Scalar:
    """Draw a value over `study_domain`, clipped to the method's own range, `domain`."""
    if isinstance(domain, Fixed):
        return domain.value
    if isinstance(domain, Choice):
        return _choose(trial, name, domain.values)
    if isinstance(domain, WholeRange):
        return trial.suggest_int(name, domain.low, domain.high)
    assert isinstance(study_domain, Range)
    drawn = trial.suggest_float(name, study_domain.low, study_domain.high)
    return min(max(round(drawn, _DECIMALS), domain.low), domain.high)


def _choose(trial: "optuna.trial.BaseTrial", name: str, values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 else trial.suggest_categorical(name, values)
