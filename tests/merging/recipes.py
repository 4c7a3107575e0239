"""Recipes of the folders that `models` makes; `{p}` is the family's prefix."""

LINEAR = """
merge_method: linear
models:
  - {{model: {p}one, parameters: {{weight: [0.2, 0.9]}}}}
  - {{model: {p}two, parameters: {{weight: 0.5}}}}
"""
SLERP = """
merge_method: slerp
base_model: {p}one
models: [{{model: {p}two}}]
parameters: {{t: [{{filter: mlp, value: [0, 1]}}, {{value: 0.4}}]}}
"""
ARITHMETIC = """
merge_method: task_arithmetic
base_model: {p}base
models:
  - {{model: {p}one, parameters: {{weight: 0.7}}}}
  - {{model: {p}two, parameters: {{weight: -0.4}}}}
"""
TIES = """
merge_method: ties
base_model: {p}base
models: [{{model: {p}one}}, {{model: {p}two}}]
parameters: {{weight: 0.6, density: 0.4}}
"""
DARE_TIES = "# mergesearch: {{seed: 5}}" + TIES.replace("ties", "dare_ties", 1)
DARE_LINEAR = DARE_TIES.replace("dare_ties", "dare_linear")
PASSTHROUGH = """
merge_method: passthrough
models: [{{model: {p}two, parameters: {{scale: 0.9}}}}]
"""
STACK = """
merge_method: passthrough
slices:
  - sources: [{{model: {p}one, layer_range: [0, 3]}}]
  - sources: [{{model: {p}two, layer_range: [1, 4]}}]
"""


def _deltas(method: str, own: str = "", common: str = "", seed: int = 0) -> str:
    """A method that merges task vectors of two models, with parameters of each and of both."""
    note = f"# mergesearch: {{{{seed: {seed}}}}}" if seed else ""
    return f"""{note}
merge_method: {method}
base_model: {{p}}base
models:
  - {{{{model: {{p}}one, parameters: {{{{{own}}}}}}}}}
  - {{{{model: {{p}}two, parameters: {{{{{own}}}}}}}}}
parameters: {{{{{common}}}}}
"""


def _adapters(method: str, common: str) -> str:
    """A method that merges two adapters of the base."""
    return f"""
merge_method: {method}
base_model: {{p}}base
models: [{{{{model: {{p}}base+{{p}}lora-a}}}}, {{{{model: {{p}}base+{{p}}lora-b}}}}]
parameters: {{{{{common}}}}}
"""


def _ends(method: str, common: str = "") -> str:
    """A method of a base and one model."""
    return f"""
merge_method: {method}
base_model: {{p}}one
models: [{{{{model: {{p}}two}}}}]
parameters: {{{{{common}}}}}
"""


BY_METHOD = {
    "linear": LINEAR,
    "slerp": SLERP,
    "nuslerp": _deltas("nuslerp", "weight: 0.3", "nuslerp_flatten: false"),
    "multislerp": _deltas("multislerp", "weight: 0.3"),
    "karcher": LINEAR.replace("linear", "karcher"),
    "task_arithmetic": ARITHMETIC,
    "ties": TIES,
    "dare_linear": DARE_LINEAR,
    "dare_ties": DARE_TIES,
    "della": _deltas("della", "weight: 0.6, density: 0.5, epsilon: 0.2", seed=5),
    "della_linear": _deltas("della_linear", "weight: 0.6, density: 0.5", seed=5),
    "breadcrumbs": _deltas("breadcrumbs", "weight: 0.6, density: 0.5, gamma: 0.1"),
    "breadcrumbs_ties": _deltas("breadcrumbs_ties", "weight: 0.6, density: 0.5"),
    "sce": _deltas("sce", common="select_topk: 0.4"),
    "model_stock": _deltas("model_stock", common="filter_wise: true"),
    "nearswap": _ends("nearswap", "t: 0.02"),
    "arcee_fusion": _ends("arcee_fusion"),
    "ram": _deltas("ram", common="epsilon: 0.05"),
    "ramplus_tl": _deltas("ramplus_tl", common="epsilon: 0.05, r: 0.4"),
    "passthrough": PASSTHROUGH,
    "magmax": _deltas("magmax", common="lambda: 0.7"),
    "tsv_m": _deltas("tsv_m", common="lambda: 0.7"),
    "iso_c": _deltas("iso_c", common="lambda: 0.7"),
    "iso_cts": _deltas("iso_cts", common="lambda: 0.7"),
    "consensus_ta": _deltas("consensus_ta", "mask_lambda: 0.3", "k: 2, lambda: 0.7"),
    "pcb": _deltas("pcb", "density: 0.3", "lambda: 0.7"),
    "localize_and_stitch": _deltas("localize_and_stitch", "density: 0.2", "lambda: 0.7"),
    "core_tsv_m": _adapters("core_tsv_m", "lambda: 0.7"),
    "core_iso_c": _adapters("core_iso_c", "lambda: 0.7"),
    "core_ties": _adapters("core_ties", "lambda: 0.7, density: 0.5"),
    "wudi": _deltas("wudi", common="lambda: 0.7"),
    "bmm": _deltas("bmm", "weight: 0.6", "ridge: 0.2"),
    "crossover": _ends("crossover", "t: 0.2, split: 0.4"),
}
