"""The verb `evaluate`, which the command and the harness call."""

from pathlib import Path

from mergesearch import evaluate, load_suite


def test_a_checkpoint_is_scored_in_the_dtype_of_the_runtime(family: Path) -> None:
    suite = load_suite(family / "suite.yaml")
    for dtype, expected in (("auto", "float32"), ("bfloat16", "bfloat16")):
        results = evaluate(family / "models" / "one", suite, device="cpu", dtype=dtype).results
        assert results["config"]["model_dtype"] == f"torch.{expected}"
