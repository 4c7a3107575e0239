"""Contract suites for rows of other packages; needs the extra `testing`.

A merge method is tested by a class in a file that pytest collects:

    from mergesearch.testing import MethodContract
    from my_package import MY_MERGE

    class TestMyMerge(MethodContract):
        method = MY_MERGE
"""

import pytest

# so that a failed assertion shows its values
pytest.register_assert_rewrite("mergesearch.testing.methods")

from mergesearch.testing.cases import Case, cases  # noqa: E402 - after the rewrite is registered
from mergesearch.testing.methods import MethodContract  # noqa: E402

__all__ = ["Case", "MethodContract", "cases"]
