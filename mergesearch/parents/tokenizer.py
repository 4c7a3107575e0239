"""The tokenizer of a merged model that has tokens which its base lacks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mergesearch.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mergesearch.parents.parents import Parents

#: A token as the list `added_tokens` of a `tokenizer.json` has it.
AddedEntry = Mapping[str, Any]

#: How an added token is found in a text.
FLAGS = ("special", "single_word", "lstrip", "rstrip", "normalized")


def merged_tokenizer(
    source: Path, entries: Sequence[AddedEntry], tokens: Mapping[str, int], out: Path
) -> None:
    """Write a tokenizer with more added tokens into a folder.

    Args:
        source: the folder of the tokenizer that is extended.
        entries: the tokens to add, in order of their ids; one that the tokenizer has as a plain
            token keeps its id.
        tokens: token to id, as it must come out.
        out: the folder, which exists.

    Raises:
        InputError: the folder has no tokenizer, or the ids come out in another way.
    """
    from transformers import AddedToken

    tokenizer = load_tokenizer(source)
    for entry in entries:
        flags = {flag: entry[flag] for flag in FLAGS if flag in entry}
        tokenizer.add_tokens(AddedToken(entry["content"], **flags))
    tokenizer.save_pretrained(out)
    written = load_tokenizer(out).get_vocab()
    for token, i in tokens.items():
        if written.get(token) != i:
            raise InputError(
                f"the tokens of the union must keep their ids: {token!r} should be {i} and is "
                f"{written.get(token)} once added to {source}; set tokenizer_source to base"
            )


def tokenizer_of(parents: "Parents") -> "PreTrainedTokenizerBase":
    """Load the tokenizer of every model that is merged from these parents.

    Raises:
        InputError: the model that it comes from has none, or it cannot be extended by the others'
            tokens.
    """
    if not parents.alignment.extends_tokenizer:
        return load_tokenizer(parents.tokenizer_folder)
    with TemporaryDirectory() as folder:
        parents.alignment.write_tokenizer(Path(folder))
        return load_tokenizer(Path(folder))


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a checkpoint.

    Raises:
        InputError: the folder has none, or one that cannot be used.
    """
    from transformers import AutoTokenizer

    try:
        # or transformers asks at a terminal if it may run the model's own
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        tokenizer("a")  # one without a token for what it does not know fails here at the latest
        _ = tokenizer.all_special_ids  # or here, where its unknown token is itself not known
        return tokenizer
    except Exception as error:  # tokenizers raises no other class for a file that it cannot read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{folder}: no tokenizer that transformers can load: {reason}") from None
