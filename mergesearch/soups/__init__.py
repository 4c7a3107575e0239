"""Model soups: the mean of all models, and of those that a greedy choice keeps."""

from mergesearch.soups.greedy import GreedySoup, greedy_soup, soup_recipe

__all__ = ["GreedySoup", "greedy_soup", "soup_recipe"]
