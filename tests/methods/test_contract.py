"""Every row of the method table passes the contract that other packages' rows pass."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mergesearch.methods import METHODS
from mergesearch.testing import MethodContract
from tests.methods.cases import OWN_RANGES, PARTIAL, having

# One model beside the base, or none: there is nothing to permute.
ONE_MODEL = {"slerp", "crossover", "nearswap", "arcee_fusion", "passthrough"}
BY_SVD = {"tsv_m", "iso_c", "iso_cts", "core_tsv_m", "core_iso_c", "core_ties"}
#: They have a density, and no weight.
WITHOUT_WEIGHTS = {"pcb", "localize_and_stitch", "core_ties"}
REGRESSIONS = {"wudi", "bmm", "bmm_data", "regmean", "regmean_pp"}
#: All but those that have no number with a derivative.
DIFFERENTIABLE = METHODS.keys() - {
    "karcher", "model_stock", "arcee_fusion", "ram", "ramplus_tl", "sce", "multislerp",
    "bmm", "bmm_data", "regmean", "regmean_pp", "fisher",
}  # fmt: skip

# Without a base these scale what they are given.
FACTOR: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "linear": lambda a: 1.0 if a["normalize"] else float(sum(a["weight"])),
    "multislerp": lambda a: (
        1.0 if a["normalize_weights"] or len(a["weight"]) == 1 else float(sum(a["weight"]))
    ),
    "passthrough": lambda a: a["scale"][0],
}


def contract_of(name: str) -> type[MethodContract]:
    """The contract's class for a row."""
    members: dict[str, Any] = {
        "method": METHODS[name],
        "ranges": OWN_RANGES,
        "partial": name in PARTIAL,
        "__module__": __name__,
    }
    if name in FACTOR:
        members["factor"] = lambda self, arguments: FACTOR[name](arguments)
    return type(f"Test_{name}", (MethodContract,), members)


CONTRACTS = {name: contract_of(name) for name in METHODS}
globals().update({contract.__name__: contract for contract in CONTRACTS.values()})


def methods_of(test: str) -> set[str]:
    """The methods that a test of the contract runs for."""
    return {name for name, contract in CONTRACTS.items() if getattr(contract, test)}


@pytest.mark.parametrize(
    "test", [name for name in vars(MethodContract) if name.startswith("test_")]
)
def test_the_contract_leaves_a_test_out_for_the_methods_that_it_cannot_hold_for(test: str) -> None:
    required = {name for name, row in METHODS.items() if row.base == "required"}
    limited = {
        "test_bits_depend_on_no_number_of_threads": METHODS.keys() - BY_SVD - REGRESSIONS,
        "test_other_keys_give_another_result": {
            "dare_linear", "dare_ties", "della", "della_linear",
        },
        "test_order_of_models_is_free": METHODS.keys() - ONE_MODEL,
        "test_weights_of_zero_give_the_base": required & set(having("weight")),
        "test_model_of_weight_zero_might_be_absent": set(having("weight")) - {"nuslerp"},
        "test_lambda_of_zero_gives_the_base": set(having("lambda")),
        "test_density_of_one_keeps_everything": set(having("density")) - WITHOUT_WEIGHTS,
        "test_derivatives_are_those_of_finite_differences": DIFFERENTIABLE,
        "test_derivatives_do_not_depend_on_blocks": DIFFERENTIABLE,
        "test_a_combination_follows_from_the_arguments_alone": {
            "linear", "task_arithmetic", "passthrough",
        },
    }  # fmt: skip
    assert methods_of(test) == limited.get(test, METHODS.keys())
