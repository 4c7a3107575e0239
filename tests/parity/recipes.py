"""The recipes that both merge, over the models of any family."""

# Every deterministic method, several times: what its result hangs on, and what it does at an edge.
EXACT = {
    "linear": """
merge_method: linear
models:
  - {model: base, parameters: {weight: 0.3}}
  - {model: one, parameters: {weight: [0.1, 0.9]}}
  - {model: two, parameters: {weight: [{filter: mlp, value: [1, 0.5, 0.2]}, {value: -0.2}]}}
""",
    "linear, not normalized, of slices": """
merge_method: linear
parameters: {normalize: false, weight: 0.4}
slices:
  - sources:
      - {model: one, layer_range: [0, 3], parameters: {weight: [0.2, 0.8]}}
      - {model: two, layer_range: [0, 3]}
    parameters: {weight: [{filter: self_attn, value: 0.7}]}
  - sources:
      - {model: one, layer_range: [3, 4], parameters: {weight: [0.2, 0.6]}}
      - {model: two, layer_range: [3, 4], parameters: {weight: [{filter: norm, value: 0.1}]}}
""",
    "slerp": """
merge_method: slerp
base_model: one
models: [{model: one}, {model: two}]
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - {value: 0.5}
""",
    "slerp of slices": """
merge_method: slerp
base_model: base
slices:
  - sources: [{model: base, layer_range: [0, 2]}, {model: far, layer_range: [2, 4]}]
    parameters: {t: [0.1, 0.6]}
  - sources: [{model: base, layer_range: [2, 4]}, {model: far, layer_range: [0, 2]}]
parameters: {t: 0.35}
""",
    "nuslerp": """
merge_method: nuslerp
models:
  - {model: base, parameters: {weight: 0.3}}
  - {model: far, parameters: {weight: [0.1, 0.9]}}
""",
    "nuslerp of task vectors": """
merge_method: nuslerp
base_model: base
models:
  - {model: one, parameters: {weight: [{filter: mlp, value: 0.2}, {value: 1.5}]}}
  - {model: two, parameters: {weight: 0.7}}
""",
    "nuslerp of task vectors, one weight negative": """
merge_method: nuslerp
base_model: base
models:
  - {model: one, parameters: {weight: -0.2}}
  - {model: two, parameters: {weight: 0.7}}
""",
    "nuslerp by column": """
merge_method: nuslerp
parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}
models:
  - {model: one, parameters: {weight: 0.6}}
  - {model: two, parameters: {weight: 0.9}}
""",
    "nuslerp by row": """
merge_method: nuslerp
parameters: {nuslerp_flatten: false}
models:
  - {model: one, parameters: {weight: 0.6}}
  - {model: two, parameters: {weight: 0.9}}
""",
    "nuslerp of task vectors by row and column": """
merge_method: nuslerp
base_model: base
parameters: {nuslerp_flatten: false, nuslerp_row_wise: [{filter: mlp, value: true}, {value: false}]}
models:
  - {model: one, parameters: {weight: [0.6, 0.1]}}
  - {model: two, parameters: {weight: 0.9}}
""",
    "nuslerp of weights that sum to zero": """
merge_method: nuslerp
models:
  - {model: one, parameters: {weight: 0.6}}
  - {model: far, parameters: {weight: -0.6}}
""",
    "nuslerp of slices": """
merge_method: nuslerp
parameters: {weight: 0.5}
slices:
  - sources: [{model: base, layer_range: [0, 2]}, {model: far, layer_range: [2, 4]}]
  - sources: [{model: base, layer_range: [2, 4]}, {model: far, layer_range: [0, 2]}]
    parameters: {weight: [{filter: norm, value: 0.2}]}
""",
    "multislerp": """
merge_method: multislerp
models:
  - {model: one, parameters: {weight: [0.1, 0.9]}}
  - {model: two, parameters: {weight: 0.4}}
  - {model: far, parameters: {weight: 0.6}}
""",
    "multislerp of task vectors": """
merge_method: multislerp
base_model: base
models:
  - {model: one, parameters: {weight: [{filter: self_attn, value: 0.2}, {value: 1.5}]}}
  - {model: two, parameters: {weight: 0.7}}
  - {model: three, parameters: {weight: -0.1}}
""",
    "multislerp, not normalized": """
merge_method: multislerp
base_model: base
parameters: {normalize_weights: false, eps: 1.0e-5}
models:
  - {model: one, parameters: {weight: 0.2}}
  - {model: two, parameters: {weight: [0.7, 0.3]}}
  - {model: three, parameters: {weight: 0.4}}
""",
    "multislerp, not normalized, without a base": """
merge_method: multislerp
parameters: {normalize_weights: false, weight: 0.4}
models: [{model: one}, {model: far}]
""",
    "multislerp of one model": """
merge_method: multislerp
models: [{model: one, parameters: {weight: 0.3}}]
""",
    "karcher": """
merge_method: karcher
models: [{model: base}, {model: one}, {model: far}]
""",
    "karcher of few steps": """
merge_method: karcher
models: [{model: one}, {model: two}, {model: far}]
parameters: {max_iter: 2, tol: 1.0e-9}
""",
    "karcher of no step, and one soon done": """
merge_method: karcher
models: [{model: one}, {model: far}, {model: two}, {model: three}]
parameters: {max_iter: [{filter: mlp, value: 0}, {value: 30}], tol: 0.05}
""",
    "karcher of slices": """
merge_method: karcher
slices:
  - sources: [{model: one, layer_range: [0, 2]}, {model: far, layer_range: [2, 4]}]
  - sources: [{model: two, layer_range: [2, 4]}, {model: far, layer_range: [0, 2]}]
""",
    "task_arithmetic with lambda and negation": """
merge_method: task_arithmetic
base_model: base
models:
  - {model: one, parameters: {weight: -0.6}}
  - {model: two, parameters: {weight: [0.2, 1.3]}}
parameters: {lambda: 1.4}
""",
    "task_arithmetic, normalized, of slices": """
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 2]}
      - {model: one, layer_range: [0, 2], parameters: {weight: 0.5}}
      - {model: two, layer_range: [0, 2], parameters: {weight: 1.1}}
    parameters: {normalize: true}
  - sources:
      - {model: base, layer_range: [2, 4]}
      - {model: two, layer_range: [2, 4], parameters: {weight: [{filter: mlp, value: 0.3}]}}
    parameters: {lambda: 0.5}
parameters: {normalize: false, weight: 0.8}
""",
    "task_arithmetic, normalized, of weights that sum to zero": """
merge_method: task_arithmetic
base_model: base
models: [{model: one, parameters: {weight: 0.5}}, {model: two, parameters: {weight: -0.5}}]
parameters: {normalize: true}
""",
    "ties": """
merge_method: ties
base_model: base
models:
  - {model: one, parameters: {weight: 0.7, density: [1, 0.3]}}
  - {model: two, parameters: {weight: [{filter: mlp, value: 1.2}, {value: 0.4}], density: 0.43}}
  - {model: three, parameters: {weight: -0.3, density: 0.05}}
parameters: {lambda: 0.9}
""",
    "ties, not normalized, rescaled, of slices": """
merge_method: ties
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 3]}
      - {model: one, layer_range: [0, 3], parameters: {density: [0.2, 0.9]}}
      - {model: two, layer_range: [0, 3]}
    parameters: {normalize: false}
  - sources:
      - {model: base, layer_range: [3, 4]}
      - {model: one, layer_range: [3, 4]}
      - {model: two, layer_range: [3, 4], parameters: {weight: 0.2}}
parameters: {weight: 0.6, density: 0.5, rescale: true}
""",
    "ties of one entry a tensor": """
merge_method: ties
base_model: base
models: [{model: one, parameters: {weight: 1, density: 1.0e-6}}]
""",
    "ties of weights that cancel": """
merge_method: ties
base_model: base
models: [{model: one, parameters: {weight: 0.5}}, {model: two, parameters: {weight: -0.5}}]
parameters: {density: 0.6}
""",
    "dare_linear that keeps all": """
merge_method: dare_linear
base_model: base
models:
  - {model: one, parameters: {weight: 0.7}}
  - {model: two, parameters: {weight: -0.2, density: 1}}
parameters: {lambda: 1.2}
""",
    "dare_ties that keeps all": """
merge_method: dare_ties
base_model: base
models:
  - {model: one, parameters: {weight: [0.3, 0.7]}}
  - {model: two, parameters: {weight: 0.5}}
""",
    "della that keeps all": """
merge_method: della
base_model: base
models:
  - {model: one, parameters: {weight: [0.3, 0.7]}}
  - {model: two, parameters: {weight: 0.5, epsilon: 0.3}}
parameters: {lambda: 0.8}
""",
    "della_linear that keeps all": """
merge_method: della_linear
base_model: base
models:
  - {model: one, parameters: {weight: [0.3, 0.7], density: 1}}
  - {model: two, parameters: {weight: 0.46}}
parameters: {normalize: true}
""",
    "breadcrumbs": """
merge_method: breadcrumbs
base_model: base
models:
  - {model: one, parameters: {weight: 0.7, density: 0.4, gamma: 0.1}}
  - {model: two, parameters: {weight: [0.4, -0.3], density: [0.9, 0.2]}}
parameters: {lambda: 1.3}
""",
    "breadcrumbs, normalized and rescaled": """
merge_method: breadcrumbs
base_model: base
models:
  - {model: one, parameters: {weight: 0.7, gamma: [{filter: mlp, value: 0.2}, {value: 0}]}}
  - {model: two, parameters: {weight: 0.4, gamma: [0.05, 0.3]}}
parameters: {density: 0.5, normalize: true, rescale: true}
""",
    "breadcrumbs of a gamma that would leave too little": """
merge_method: breadcrumbs
base_model: base
models:
  - {model: one, parameters: {weight: 0.7, density: 0.6, gamma: 0.8}}
  - {model: two, parameters: {weight: 0.4, density: 0.05, gamma: 0.95}}
""",
    "breadcrumbs of density 1": """
merge_method: breadcrumbs
base_model: base
models: [{model: one, parameters: {weight: 0.7, gamma: 0.4}}, {model: two}]
parameters: {weight: 0.3}
""",
    "breadcrumbs_ties": """
merge_method: breadcrumbs_ties
base_model: base
models:
  - {model: one, parameters: {weight: 0.7, density: 0.4, gamma: 0.1}}
  - {model: two, parameters: {weight: [0.4, -0.3], density: [0.9, 0.2]}}
  - {model: three, parameters: {weight: 0.5, density: 0.3, gamma: 0.75}}
parameters: {lambda: 1.3}
""",
    "breadcrumbs_ties, normalized and rescaled, of slices": """
merge_method: breadcrumbs_ties
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 3]}
      - {model: one, layer_range: [0, 3], parameters: {density: [0.2, 0.9]}}
      - {model: two, layer_range: [0, 3]}
    parameters: {normalize: true, gamma: 0.02}
  - sources:
      - {model: base, layer_range: [3, 4]}
      - {model: one, layer_range: [3, 4]}
      - {model: two, layer_range: [3, 4], parameters: {weight: 0.2}}
parameters: {weight: 0.6, density: 0.5, rescale: true, lambda: 0.7}
""",
    "sce": """
merge_method: sce
base_model: base
models: [{model: one}, {model: two}, {model: three}]
""",
    "sce of a part": """
merge_method: sce
base_model: base
models: [{model: one}, {model: two}, {model: three}]
parameters: {select_topk: 0.3}
""",
    "sce of slices": """
merge_method: sce
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 2]}
      - {model: one, layer_range: [0, 2]}
      - {model: two, layer_range: [0, 2]}
  - sources:
      - {model: base, layer_range: [2, 4]}
      - {model: far, layer_range: [2, 4]}
      - {model: two, layer_range: [2, 4]}
parameters: {select_topk: [{filter: mlp, value: 0.29}, {value: [0.1, 0.9]}]}
""",
    "sce of one model": """
merge_method: sce
base_model: base
models: [{model: one}]
""",
    "model_stock": """
merge_method: model_stock
base_model: base
models: [{model: one}, {model: two}, {model: three}]
""",
    "model_stock by row": """
merge_method: model_stock
base_model: base
models: [{model: one}, {model: far}]
parameters: {filter_wise: true}
""",
    "model_stock of slices": """
merge_method: model_stock
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 2]}
      - {model: one, layer_range: [0, 2]}
      - {model: two, layer_range: [0, 2]}
    parameters: {filter_wise: [{filter: mlp, value: true}, {value: false}]}
  - sources:
      - {model: base, layer_range: [2, 4]}
      - {model: far, layer_range: [0, 2]}
      - {model: two, layer_range: [2, 4]}
""",
    "nearswap": """
merge_method: nearswap
base_model: base
models: [{model: one}]
parameters: {t: [{filter: mlp, value: [0.3, 0.01]}, {value: 0.05}]}
""",
    "nearswap of slices": """
merge_method: nearswap
base_model: base
slices:
  - sources: [{model: base, layer_range: [0, 2]}, {model: far, layer_range: [2, 4]}]
    parameters: {t: 0}
  - sources: [{model: base, layer_range: [2, 4]}, {model: one, layer_range: [0, 2]}]
parameters: {t: 0.1}
""",
    "arcee_fusion": """
merge_method: arcee_fusion
base_model: base
models: [{model: one}]
""",
    "arcee_fusion of slices": """
merge_method: arcee_fusion
base_model: base
slices:
  - sources: [{model: base, layer_range: [0, 2]}, {model: far, layer_range: [2, 4]}]
  - sources: [{model: base, layer_range: [2, 4]}, {model: two, layer_range: [0, 2]}]
""",
    "ram": """
merge_method: ram
base_model: base
models: [{model: one}, {model: two}, {model: three}]
parameters: {epsilon: 0.08}
""",
    "ram of every change": """
merge_method: ram
base_model: base
models: [{model: one}, {model: two}]
""",
    "ram of slices": """
merge_method: ram
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 2]}
      - {model: far, layer_range: [2, 4]}
      - {model: three, layer_range: [0, 2]}
  - sources:
      - {model: base, layer_range: [2, 4]}
      - {model: one, layer_range: [2, 4]}
      - {model: two, layer_range: [2, 4]}
parameters: {epsilon: [0.01, 0.1]}
""",
    "ramplus_tl": """
merge_method: ramplus_tl
base_model: base
models: [{model: one}, {model: two}, {model: three}]
parameters: {epsilon: 0.12, r: 0.5, alpha: 3}
""",
    "ramplus_tl of its defaults": """
merge_method: ramplus_tl
base_model: base
models: [{model: one}, {model: two}]
""",
    "ramplus_tl of slices": """
merge_method: ramplus_tl
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 2]}
      - {model: far, layer_range: [2, 4]}
      - {model: three, layer_range: [0, 2]}
  - sources:
      - {model: base, layer_range: [2, 4]}
      - {model: one, layer_range: [2, 4]}
      - {model: two, layer_range: [2, 4]}
parameters: {epsilon: [0.05, 0.1], r: [{filter: mlp, value: 0.9}, {value: 0.1}], alpha: [2, 0.3]}
""",
    "passthrough, scaled, of stacked layers": """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 3]}]
  - sources:
      - model: two
        layer_range: [1, 4]
        parameters: {scale: [{filter: down_proj, value: [0, 0.5]}, {filter: o_proj, value: -0.3}]}
  - sources: [{model: far, layer_range: [3, 4]}]
""",
    "passthrough of stacked layers, the second slice scaled": """
merge_method: passthrough
slices:
  - sources: [{model: one, layer_range: [0, 4]}]
  - sources: [{model: two, layer_range: [2, 4]}]
    parameters: {scale: [{filter: down_proj, value: 0.0}, {value: 1.0}]}
""",
    "sce of three of one kind, a part": """
merge_method: sce
base_model: base
models: [{model: one}, {model: twin}, {model: triplet}]
parameters: {select_topk: 0.5}
""",
    "sce of three of one kind": """
merge_method: sce
base_model: base
models: [{model: one}, {model: twin}, {model: triplet}]
""",
    "sce of models that are the base": """
merge_method: sce
base_model: base
models: [{model: same}]
""",
    "model_stock of three of one kind": """
merge_method: model_stock
base_model: base
models: [{model: one}, {model: twin}, {model: triplet}]
""",
    "model_stock of one that is the base": """
merge_method: model_stock
base_model: base
models: [{model: same}, {model: one}]
parameters: {filter_wise: true}
""",
    "multislerp of three of one kind": """
merge_method: multislerp
models: [{model: one}, {model: twin}, {model: triplet}]
parameters: {weight: 0.4}
""",
    "nuslerp of two of one kind": """
merge_method: nuslerp
base_model: base
models: [{model: one}, {model: twin}]
parameters: {weight: 0.4}
""",
    "nuslerp of one that is the base": """
merge_method: nuslerp
base_model: base
models: [{model: one}, {model: same}]
parameters: {weight: 0.4, nuslerp_flatten: false}
""",
    "karcher of three of one kind": """
merge_method: karcher
models: [{model: one}, {model: twin}, {model: triplet}]
""",
    "ties of one that is the base": """
merge_method: ties
base_model: base
models: [{model: one}, {model: same}]
parameters: {weight: 0.4, density: 0.3, rescale: true}
""",
    "breadcrumbs of one that is the base": """
merge_method: breadcrumbs
base_model: base
models: [{model: one}, {model: same}]
parameters: {weight: 0.4, density: 0.3, rescale: true}
""",
    "slerp of one that is the base": """
merge_method: slerp
base_model: base
models: [{model: same}]
parameters: {t: 0.4}
""",
    "nearswap of one that is the base": """
merge_method: nearswap
base_model: base
models: [{model: same}]
parameters: {t: 0.4}
""",
    "arcee_fusion of one that is the base": """
merge_method: arcee_fusion
base_model: base
models: [{model: same}]
""",
    "ramplus_tl of one that is the base": """
merge_method: ramplus_tl
base_model: base
models: [{model: same}, {model: one}]
""",
}

ADAPTERS = """
merge_method: task_arithmetic
base_model: base
models:
  - {model: base+lora, parameters: {weight: 0.8}}
  - {model: base+other-lora, parameters: {weight: 0.5}}
  - {model: one, parameters: {weight: 0.3}}
"""

TOKENIZER = """
merge_method: linear
models: [{model: one}, {model: two}]
parameters: {weight: 1}
tokenizer_source: base
base_model: base
"""

# Methods that draw: of one model's change, and of two models' changes.
DENSITY, EPSILON = 0.6, 0.25
RANDOM = {
    method: f"""
merge_method: {method}
base_model: base
models: [{{model: one}}]
parameters: {{weight: 1, density: {DENSITY}, epsilon: {EPSILON}}}
"""
    for method in ("dare_linear", "dare_ties", "della", "della_linear")
}
RANDOM_OF_TWO = {
    method: f"""
merge_method: {method}
base_model: base
models: [{{model: one}}, {{model: two}}]
parameters: {{weight: 0.5, density: {DENSITY}, epsilon: {EPSILON}}}
"""
    for method in ("dare_linear", "della_linear")
}

# Trimming and selection where many magnitudes are equal.
TIED = {
    "ties": """
merge_method: ties
base_model: base
models: [{model: one, parameters: {weight: 1, density: 0.43}}]
""",
    "breadcrumbs": """
merge_method: breadcrumbs
base_model: base
models: [{model: one, parameters: {weight: 1, density: 0.43, gamma: 0.1}}]
""",
    "breadcrumbs_ties": """
merge_method: breadcrumbs_ties
base_model: base
models: [{model: one, parameters: {weight: 1, density: 0.43, gamma: 0.1}}]
""",
    "sce": """
merge_method: sce
base_model: base
models: [{model: one}, {model: two}]
parameters: {select_topk: 0.3}
""",
}

# One recipe a method, of bfloat16 models. mergekit rounds at every step and we round once: of all
# entries, at least this fraction is at most one unit in the last place apart. Where it is below
# 0.98, mergekit takes differences, norms and sums in bfloat16, and results near zero keep the
# rounding of what cancelled.
HALF = {
    "linear, not normalized, of slices": 0.999,
    "slerp": 1.0,
    "passthrough, scaled, of stacked layers": 1.0,
    "model_stock": 0.99,
    "nearswap": 0.98,
    "dare_ties that keeps all": 0.95,
    "breadcrumbs": 0.94,
    "breadcrumbs_ties": 0.94,
    "dare_linear that keeps all": 0.93,
    "della that keeps all": 0.93,
    "della_linear that keeps all": 0.93,
    "ram": 0.93,
    "nuslerp of task vectors": 0.92,
    "sce": 0.92,
    "ties": 0.92,
    "multislerp of task vectors": 0.9,
    "task_arithmetic with lambda and negation": 0.89,
    "karcher": 0.83,
}
# Of these mergekit gives float32 (see DIFFERENCES), but where it is told the result's dtype.
PROMOTED = ("arcee_fusion", "ramplus_tl")
# The same with mergekit's arithmetic in float32: at least 0.999 are equal, but where the choice
# among equal magnitudes, frequent in differences of bfloat16 numbers, is each one's own.
HALF_OF_TIES = {"ties": 0.997, "breadcrumbs": 0.995, "breadcrumbs_ties": 0.995}
