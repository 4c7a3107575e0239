"""A recipe's words about tokens, as rows and ids of its models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mergesearch.errors import InputError
from mergesearch.parents.checkpoint import read_json
from mergesearch.parents.hub import locate
from mergesearch.parents.tokenizer import load_tokenizer
from mergesearch.parents.vocabulary import Given, Row, Vocabulary
from mergesearch.recipe import ModelRef, RowOfToken, RowSource, TokenizerBlock, ZeroRow

#: Endings of the settings that name special tokens by their ids.
_IDS = ("_token_id", "_token_ids")


def tokenizer_alone(model: ModelRef) -> tuple[Path, Vocabulary]:
    """Find the tokenizer of a model that is not merged; it has no rows.

    Raises:
        InputError: there is no such model, or no tokenizer that transformers loads.
    """
    folder = locate(model.model, weights=False)
    return folder, Vocabulary(str(folder), load_tokenizer(folder).get_vocab(), 0)


def given_rows(
    block: TokenizerBlock, index: Mapping[ModelRef, int], models: Sequence[Vocabulary]
) -> dict[str, Given]:
    """Find the rows that a recipe gives to tokens.

    Args:
        block: the recipe's, its paths resolved.
        index: the places of the models.
        models: their vocabularies, in their places.

    Raises:
        InputError: a row is of a model that is not merged, or that has no such row.
    """

    def row(token: str, model: ModelRef, wanted: str | int) -> Row:
        if model not in index:
            raise InputError(
                f"tokenizer: tokens: {token!r} can only have a row of a model that is merged, got "
                f"{model}; the models are {', '.join(map(str, index))}"
            )
        theirs = models[index[model]]
        i = theirs.rows.get(wanted, -1) if isinstance(wanted, str) else wanted
        if not 0 <= i < theirs.n_rows:
            which = f"no row for {wanted!r}" if isinstance(wanted, str) else f"no row {wanted}"
            raise InputError(
                f"tokenizer: tokens: {token!r} needs a row that its source has, but {model} has "
                f"{which} among its {theirs.n_rows}; name another model or token"
            )
        return index[model], i

    def rows(token: str, source: RowSource | None) -> tuple[Row, ...] | None:
        match source:
            case None:
                return None
            case ZeroRow():
                return ()
            case RowOfToken(model=model, token=None, token_id=int(i)):
                return (row(token, model, i),)
            case RowOfToken(model=model, token=str(other)):
                return (row(token, model, other),)
            case ModelRef():
                return (row(token, source, token),)
        raise AssertionError(source)

    return {
        token: Given(rows(token, said.source), said.force) for token, said in block.tokens.items()
    }


def moved_ids(
    settings: Mapping[str, Any],
    token_of: Mapping[int, str],
    tokens: Mapping[str, int],
    others: Mapping[str, Any],
) -> dict[str, Any]:
    """Give special tokens their ids in another vocabulary.

    Args:
        settings: of a model, that name tokens by ids.
        token_of: of the model.
        tokens: token to id in the other vocabulary.
        others: settings of the model that has it; tokens that it lacks are as there.
    """

    def moved(key: str, value: Any) -> Any:
        if isinstance(value, list):
            found = [i for one in value if (i := moved("", one)) is not None]
            return found or others.get(key)
        if type(value) is not int:
            return value
        i = tokens.get(token_of.get(value, ""))
        return others.get(key) if i is None else i

    return {
        key: moved(key, value) if key.endswith(_IDS) else value for key, value in settings.items()
    }


def settings_of(folder: Path, name: str) -> Mapping[str, Any]:
    """Read a JSON file of a model, if it has it."""
    return read_json(folder / name) if (folder / name).is_file() else {}
