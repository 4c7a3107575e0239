"""lm-eval's templates, each compiled once.

lm-eval compiles a task's template again for each document that it renders or grades, which for
small models is most of the time of scoring. What a template renders is not touched.
"""

from functools import lru_cache

from lm_eval.utils import env

#: Templates that stay compiled; a suite has a few for each task.
_KEPT = 4096


def compile_once() -> None:
    """Let lm-eval's environment keep what it compiles; a second call changes nothing."""
    if not hasattr(env.from_string, "cache_info"):
        env.from_string = lru_cache(maxsize=_KEPT)(env.from_string)
