"""Where mergekit 0.1.5 and mergesearch give different results, and what each gives."""

#: By what it is about: what mergekit does, and what happens here. Each has its test.
DIFFERENCES = {
    "weights of linear or multislerp that sum to zero": (
        "writes NaN",
        "is refused before a tensor is read",
    ),
    "NaN in a model": (
        "writes it on",
        "is an error that names the tensor",
    ),
    "density 0": (
        "gives the base",
        "is refused: a weight of 0 says the same",
    ),
    "epsilon 0 of ramplus_tl": (
        "writes NaN into tensors that a model has not changed",
        "is refused",
    ),
    "della on a matrix of one column": (
        "stops: a rank among one is 0/0",
        "keeps each entry with the probability `density`",
    ),
    "multislerp of three models or more of which none has changed a tensor": (
        "stops: the sum of the directions is zero",
        "gives the base's tensor",
    ),
    "slices of different numbers of sources": (
        "merges the final norm and the output head from as many models of the last slice as the "
        "first slice has",
        "merges them from all models of the last slice",
    ),
    "arcee_fusion on tensors of more than a million entries": (
        "estimates the threshold from a sample without a seed",
        "computes it from all entries",
    ),
    "bfloat16 models without `dtype: float32`": (
        "rounds after every step, but in linear and slerp",
        "computes in float32 and rounds once",
    ),
    "arcee_fusion and ramplus_tl of bfloat16 models": (
        "stores float32 unless `out_dtype` says otherwise",
        "stores bfloat16",
    ),
    "random masks": (
        "differ from run to run without --random-seed, "
        "and follow one generator through all tensors",
        "follow from the recipe's seed and the tensor's name",
    ),
    "equal magnitudes at a threshold": (
        "are kept in the order of an unstable sort",
        "are kept from the lowest index on",
    ),
}
