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
BY_METHOD = {
    "linear": LINEAR,
    "slerp": SLERP,
    "task_arithmetic": ARITHMETIC,
    "ties": TIES,
    "dare_linear": DARE_LINEAR,
    "dare_ties": DARE_TIES,
    "passthrough": PASSTHROUGH,
}
