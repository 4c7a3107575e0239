"""The contract of merge methods, for all tensors and arguments."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mergesearch.methods import METHODS, Method, Sparsified
from mergesearch.methods.derivative import combination, pull_back
from mergesearch.methods.executor import Executor
from mergesearch.runtime import torch_threads
from mergesearch.testing.cases import FILLED, RANGES, SHAPES, Case, Shape, cases
from mergesearch.testing.derivatives import in_float64, inputs_of

TestT = TypeVar("TestT", bound=Callable[..., None])


def where(rule: Callable[[Any], bool]) -> Callable[[TestT], TestT]:
    """Limit a test of the contract to the classes for which a rule holds."""

    def limited(test: TestT) -> TestT:
        vars(test)["applies_to"] = rule
        return test

    return limited


def examples(n: int, **more: Any) -> settings:
    """Allow so many examples, for a test that several classes inherit."""
    return settings(
        max_examples=n,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],
        **more,
    )


def close(actual: Tensor, expected: Tensor, *, within: float = 1e-5) -> None:
    """Assert that all entries are equal, to a tolerance both relative and absolute."""
    torch.testing.assert_close(actual, expected, rtol=within, atol=within)


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda contract: all(contract.method.parameter(name) for name in names)


class MethodContract:
    """Tests of a merge method, for a class that pytest collects to inherit.

        >>> from mergesearch.methods import METHODS
        >>> from mergesearch.testing import MethodContract
        >>> class TestTies(MethodContract):
        ...     method = METHODS["ties"]

    The parameters' names and the row's columns say what holds: of `weight`, `lambda` and `density`
    the closed forms at zero and one, with several models that their order is free, of `random`
    that the keys alone decide.
    """

    #: The row of the method table.
    method: ClassVar[Method]
    #: By name of a parameter that has no search range, the range that it is drawn from.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}
    #: Permuting the models, with their arguments and keys, changes nothing.
    symmetric: ClassVar[bool] = True
    #: The method raises CandidateError for some tensors.
    partial: ClassVar[bool] = False
    #: The method may leave an infinite entry out, as a median does with one of three.
    robust: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Leave out the tests that do not apply to the class's method."""
        if "method" in vars(cls):
            for name in dir(cls):
                rule = getattr(getattr(cls, name), "applies_to", None)
                if rule is not None and not rule(cls):
                    setattr(cls, name, None)

    def factor(self, arguments: Mapping[str, Any]) -> float:
        """Say which multiple of a model n copies of it give, where there is no base."""
        return 1.0

    def cases(self, shapes: Sequence[Shape] = SHAPES, **more: Any) -> st.SearchStrategy[Case]:
        """Cases of the class's method; see `cases.cases`."""
        ranges = {**RANGES, **self.ranges}
        return cases(self.method, shapes, ranges=ranges, partial=self.partial, **more)

    @examples(15)
    @given(data=st.data())
    def test_shape_dtype_and_inputs(self, data: st.DataObject) -> None:
        """The shape is kept, the result is float32 and of its own, inputs are unmodified."""
        case = data.draw(self.cases())
        before = [tensor.clone() for tensor in case.inputs]
        merged = case.merged()
        assert merged.shape == case.models[0].shape
        assert merged.dtype == torch.float32
        merged.add_(1)  # were the result an input, it would change here
        for tensor, copy in zip(case.inputs, before, strict=True):
            assert torch.equal(tensor, copy)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @examples(10)
    @given(data=st.data())
    def test_arithmetic_is_in_float32(self, dtype: torch.dtype, data: st.DataObject) -> None:
        """Models of another dtype give the bits of their float32 copies."""
        half = data.draw(self.cases()).mapped(lambda tensor: tensor.to(dtype))
        assert torch.equal(half.merged(), half.mapped(lambda tensor: tensor.float()).merged())

    @examples(15)
    @given(data=st.data())
    def test_bits_depend_on_no_generator_and_no_block(self, data: st.DataObject) -> None:
        """The same keys give the same bits, in blocks of any size."""
        case = data.draw(self.cases())
        state = torch.get_rng_state()
        merged = case.merged()
        assert torch.equal(torch.get_rng_state(), state)
        for block in (1, 7, 64):
            in_blocks = Executor(block=block, heavy_block=block)
            assert torch.equal(case.merged(executor=in_blocks), merged), block

    # LAPACK splits a decomposition among threads; merging gives each tensor one thread
    @where(lambda contract: contract.method.whole != "matrices")
    @pytest.mark.parametrize("shape", [(191, 177), (40_001,)])  # above 32,768
    @examples(2, phases=[Phase.generate])
    @given(data=st.data())
    def test_bits_depend_on_no_number_of_threads(
        self, shape: tuple[int, ...], data: st.DataObject
    ) -> None:
        """Sums that threads share have a fixed order."""
        case = data.draw(self.cases([shape], grid=False))
        results = []
        for n in (1, 2):
            with torch_threads(n):
                results.append(case.merged())
        assert torch.equal(*results)

    @where(lambda contract: contract.method.random)
    @examples(5)
    @given(data=st.data())
    def test_other_keys_give_another_result(self, data: st.DataObject) -> None:
        """The keys count."""
        case = data.draw(self.cases([(33, 31)])).having(lambda_=1.0)
        case = case.having(weight=[1.0] * len(case.models), density=[0.5] * len(case.models))
        assert case.keys is not None
        other = replace(case, keys=case.keys + 1)
        assert not torch.equal(case.merged(), other.merged())

    @where(lambda contract: contract.symmetric and contract.method.n_models[1] > 1)
    @examples(15)
    @given(data=st.data())
    def test_order_of_models_is_free(self, data: st.DataObject) -> None:
        """Permuting models, with their arguments and keys, changes nothing."""
        # on a grid, sums of zero are rounded to either sign, of which one is elected
        # and where there is but one dimension, the mean of opposite directions is anyone's
        case = data.draw(self.cases([shape for shape in FILLED if shape != (1,)], grid=False))
        order = data.draw(st.permutations(range(len(case.models))))
        within = 1e-3 if self.method.whole == "matrices" else 1e-4
        close(case.permuted(order).merged(), case.merged(), within=within)

    @examples(10)
    @given(data=st.data(), bad=st.sampled_from([math.nan, -math.nan, math.inf]))
    def test_nan_and_infinity_are_never_hidden(self, data: st.DataObject, bad: float) -> None:
        """An entry that is not finite makes the result such."""
        assume(not (self.robust and bad == math.inf))
        case = data.draw(self.cases(FILLED))
        if case.method.random or "gamma" in case.arguments:
            # an entry that is dropped counts in the norm that is restored, if anything else is left
            case = data.draw(self.cases([(3, 5), (33, 31)]))
            case = case.having(rescale=True, density=[0.8] * len(case.models))
        if bad == math.inf:  # the largest of all: what breadcrumbs is there to drop
            case = case.having(gamma=[0.0] * len(case.models))
        broken = data.draw(st.integers(0, len(case.inputs) - 1))
        entry = data.draw(st.integers(0, case.models[0].numel() - 1))
        case.inputs[broken].view(-1)[entry] = bad
        assert not torch.isfinite(case.merged()).all()

    @examples(25)
    @given(data=st.data())
    def test_identical_parents_give_that_parent(self, data: st.DataObject) -> None:
        """With an identical base there is no task vector; without one see `factor`."""
        case = data.draw(self.cases())
        model = case.models[0]
        # a task vector of zero has no direction to be scaled along
        factor = self.factor(case.arguments) if case.base is None else 1.0
        merged = case.mapped(lambda _: model).merged()
        torch.testing.assert_close(merged, factor * model, rtol=1e-5, atol=1e-6)

    @where(lambda contract: contract.method.base == "required" and _has("weight")(contract))
    @examples(15)
    @given(data=st.data())
    def test_weights_of_zero_give_the_base(self, data: st.DataObject) -> None:
        """Deltas of the weight zero add nothing."""
        case = data.draw(self.cases())
        assert case.base is not None
        assert torch.equal(case.having(weight=[0.0] * len(case.models)).merged(), case.base)

    @where(
        lambda contract: (
            contract.method.n_models[0] < 2 <= contract.method.n_models[1]
            and _has("weight")(contract)
        )
    )
    @examples(15)
    @given(data=st.data())
    def test_model_of_weight_zero_might_be_absent(self, data: st.DataObject) -> None:
        """It changes nothing."""
        case = data.draw(self.cases(grid=False, n=2))
        case = case.having(weight=[data.draw(st.sampled_from([0.25, 0.7, 1.0])), 0.0])
        # a method may have a model alone be what it is, whatever its weight
        case = case.having(normalize_weights=True)
        close(case.merged(), case.permuted([0]).merged())

    @where(lambda contract: contract.method.base == "required" and _has("lambda")(contract))
    @examples(15)
    @given(data=st.data())
    def test_lambda_of_zero_gives_the_base(self, data: st.DataObject) -> None:
        """Lambda scales the merged delta."""
        case = data.draw(self.cases()).having(lambda_=0.0)
        assert case.base is not None
        assert torch.equal(case.merged(), case.base)

    @where(lambda contract: isinstance(contract.method.function, Sparsified))
    @examples(15)
    @given(data=st.data())
    def test_density_of_one_keeps_everything(self, data: st.DataObject) -> None:
        """Nothing dropped, it is task arithmetic, or TIES without its trim."""
        case = data.draw(self.cases())
        case = case.having(density=[1.0] * len(case.models), normalize=data.draw(st.booleans()))
        assert isinstance(self.method.function, Sparsified)
        if self.method.function.elect:
            close(case.merged(), election(case))
            return
        wanted = ("weight", "lambda_", "normalize")
        plain = replace(
            case,
            method=METHODS["task_arithmetic"],
            arguments={k: v for k, v in case.arguments.items() if k in wanted},
        )
        assert torch.equal(case.merged(), plain.merged())

    @where(lambda contract: bool(contract.method.differentiable))
    @examples(12)
    @given(data=st.data())
    def test_derivatives_are_those_of_finite_differences(self, data: st.DataObject) -> None:
        """In float64, along each number and away from kinks."""
        case = data.draw(self.cases(FILLED, grid=False))
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9999)))
        gradient = torch.randn(case.models[0].shape, generator=generator, dtype=torch.float64)
        inputs, arguments = inputs_of(case), case.arguments
        for parameter in self.method.differentiable:
            # a weight of 0 is where signs are elected anew, on both sides
            assume(0 not in torch.tensor(arguments[parameter.argument]).reshape(-1).tolist())
        found = pull_back(self.method, inputs, arguments, gradient, dtype=torch.float64)
        for name, value in found.items():
            assert value.dtype == torch.float64
            for i in range(value.numel()):
                ahead, behind = _slopes(case, gradient, name, i)
                scale = 1e-5 * float(gradient.abs().sum())
                # a sign that changes, or the end of a clamp, lies in between
                assume(ahead == pytest.approx(behind, rel=1e-3, abs=scale))
                slope = (ahead + behind) / 2
                assert float(value.reshape(-1)[i]) == pytest.approx(slope, rel=1e-3, abs=scale)

    @where(lambda contract: bool(contract.method.differentiable))
    @examples(10)
    @given(data=st.data())
    def test_derivatives_do_not_depend_on_blocks(self, data: st.DataObject) -> None:
        """They are sums over blocks of any size."""
        case = data.draw(self.cases(FILLED, grid=False))
        inputs, gradient = inputs_of(case), torch.ones(case.models[0].shape)
        whole = pull_back(self.method, inputs, case.arguments, gradient, dtype=torch.float64)
        blocks = Executor(block=data.draw(st.integers(1, 40)), heavy_block=7)
        cut = replace(inputs, executor=blocks)
        parts = pull_back(self.method, cut, case.arguments, gradient, dtype=torch.float64)
        for name, value in parts.items():
            close(value, whole[name], within=1e-6)

    @where(lambda contract: contract.method.combination)
    @examples(15)
    @given(data=st.data())
    def test_a_combination_follows_from_the_arguments_alone(self, data: st.DataObject) -> None:
        """Every entry is the same combination of the base's and the models'."""
        case = data.draw(self.cases(grid=False))
        coefficients = combination(self.method, len(case.models), case.arguments)
        if case.base is not None:
            assert float(coefficients.sum()) == pytest.approx(1, abs=1e-4)
        base = torch.zeros_like(case.models[0]) if case.base is None else case.base
        merged = sum(c * t for c, t in zip(coefficients, (base, *case.models), strict=True))
        close(case.merged(), torch.as_tensor(merged))


def _slopes(case: Case, gradient: Tensor, name: str, i: int) -> tuple[float, float]:
    """Slopes of <gradient, merged> ahead of a number and behind it, in float64."""
    values, step = [], 1e-6
    for move in (-step, 0, step):
        moved = torch.tensor(case.arguments[name], dtype=torch.float64)
        moved.view(-1)[i] += move
        merged = in_float64(case, {name: moved})
        values.append(float((gradient.reshape(merged.shape) * merged).sum()))
    return (values[2] - values[1]) / step, (values[1] - values[0]) / step


def election(case: Case) -> Tensor:
    """Apply TIES without its trim, entry by entry (Algorithm 1, steps 2 and 3)."""
    assert case.base is not None
    weights = case.arguments["weight"]
    merged = []
    for origin, *entries in zip(
        case.base.flatten(), *[model.flatten() for model in case.models], strict=True
    ):
        parts = [weight * (entry - origin) for weight, entry in zip(weights, entries, strict=True)]
        positive = sum(parts, start=torch.tensor(0.0)) >= 0
        agreeing = [i for i, part in enumerate(parts) if (part > 0 if positive else part < 0)]
        delta = sum((parts[i] for i in agreeing), start=torch.tensor(0.0))
        divisor = sum(weights[i] for i in agreeing) if case.arguments["normalize"] else 1.0
        merged.append(origin + case.arguments["lambda_"] * delta / (divisor or 1.0))
    return torch.stack(merged).view_as(case.base) if merged else torch.empty_like(case.base)
