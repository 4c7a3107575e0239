"""Sizes in bytes, as the command line writes them."""

from mergesearch.errors import InputError
from mergesearch.runtime import n_bytes


def bytes_of(text: str) -> int:
    """Return a size such as 5GB, 500MB or 1000000 in bytes.

    Raises:
        InputError: it is none.
    """
    try:
        return n_bytes(text)
    except ValueError as error:
        raise InputError(str(error)) from None
