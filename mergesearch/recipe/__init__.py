"""The recipe: all that rebuilds one merged model, as a mergekit configuration."""

from mergesearch.recipe.baselines import copy_of, soup_recipe, task_arithmetic_recipe
from mergesearch.recipe.chat_templates import AUTO, CHAT_TEMPLATES
from mergesearch.recipe.mergekit_yaml import load_recipe, read_recipe, write_recipe
from mergesearch.recipe.model import DType, Recipe, Slice, Source, TokenizerSource, Towers
from mergesearch.recipe.reference import ModelPath, ModelRef
from mergesearch.recipe.setting import Conditional, Setting, evaluate

__all__ = [
    "AUTO",
    "CHAT_TEMPLATES",
    "Conditional",
    "DType",
    "ModelPath",
    "ModelRef",
    "Recipe",
    "Setting",
    "Slice",
    "Source",
    "TokenizerSource",
    "Towers",
    "copy_of",
    "evaluate",
    "load_recipe",
    "read_recipe",
    "soup_recipe",
    "task_arithmetic_recipe",
    "write_recipe",
]
