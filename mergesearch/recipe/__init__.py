"""The recipe: all that rebuilds one merged model, as a mergekit configuration."""

from mergesearch.recipe.baselines import copy_of, soup_recipe, task_arithmetic_recipe
from mergesearch.recipe.calibration import Aim, PromptFile, resolved_file
from mergesearch.recipe.chat_templates import AUTO, CHAT_TEMPLATES
from mergesearch.recipe.mergekit_yaml import load_recipe, read_recipe, write_recipe
from mergesearch.recipe.model import DType, Recipe, Slice, Source, Towers
from mergesearch.recipe.reference import ModelPath, ModelRef
from mergesearch.recipe.setting import Conditional, Setting, evaluate
from mergesearch.recipe.stages import Stage, load_stages, references, renamed, write_stages
from mergesearch.recipe.tokenizer import (
    RowOfToken,
    RowSource,
    TokenizerBlock,
    TokenizerSource,
    VocabularySource,
    ZeroRow,
)

__all__ = [
    "AUTO",
    "CHAT_TEMPLATES",
    "Aim",
    "Conditional",
    "DType",
    "ModelPath",
    "ModelRef",
    "PromptFile",
    "Recipe",
    "RowOfToken",
    "RowSource",
    "Setting",
    "Slice",
    "Source",
    "Stage",
    "TokenizerBlock",
    "TokenizerSource",
    "Towers",
    "VocabularySource",
    "ZeroRow",
    "copy_of",
    "evaluate",
    "load_recipe",
    "load_stages",
    "read_recipe",
    "references",
    "renamed",
    "resolved_file",
    "soup_recipe",
    "task_arithmetic_recipe",
    "write_recipe",
    "write_stages",
]
