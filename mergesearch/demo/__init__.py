"""A family of tiny models that learn in a minute, so that a search can be tried on any machine."""

from mergesearch.demo.family import FamilySize, build_family
from mergesearch.demo.threads import one_thread

__all__ = ["FamilySize", "build_family", "one_thread"]
