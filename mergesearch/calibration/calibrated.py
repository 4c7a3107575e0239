"""Statistics for one merge, outside of a search."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mergesearch.calibration.calibrator import Calibrator
from mergesearch.calibration.texts import write_texts
from mergesearch.merging import LiveModel
from mergesearch.parents import NoStatistics, Parents, tokenizer_of
from mergesearch.recipe import Recipe
from mergesearch.tasks.prompt_files import read_texts

#: The folder of prompts beside a recipe.
PROMPTS_FOLDER = "calibration"


@contextmanager
def calibrated(recipe: Recipe, parents: Parents) -> Iterator[None]:
    """Give parents what a recipe's merge looks at, until the block ends.

    Statistics that lie beside the recipe's prompts, as in a run's folder, are taken from there;
    what is computed lies in a temporary folder meanwhile. A method that looks at tensors alone
    needs nothing, and nothing is done.

    Args:
        recipe: what is merged.
        parents: its models.

    Raises:
        InputError: the recipe names no prompts, or they cannot be read, or an architecture has no
            such statistics.
    """
    if not recipe.statistics:
        yield
        return
    with TemporaryDirectory(prefix="mergesearch-") as folder:
        live = LiveModel(parents, parents.device)
        Calibrator(parents, tokenizer_of(parents), Path(folder)).prepare(recipe, live)
        del live  # its memory is free for the merge
        try:
            yield
        finally:
            parents.statistics = NoStatistics()


def with_prompts(recipe: Recipe, folder: Path) -> Recipe:
    """Copy a recipe's prompts into a folder, and point the recipe there.

    Raises:
        InputError: they are gone, or cannot be written.
    """
    return recipe.with_files(
        lambda path: str(write_texts(read_texts(Path(path)), folder.absolute() / PROMPTS_FOLDER))
    )
