"""Random bits without a state: a hash of (key, index), in any order on any device."""

import torch
from torch import Tensor

# Two rounds of multiplication and shift, the constants of the hash "lowbias32" (C. Wellons,
# "Prospecting for hash functions", 2018); the second key comes between the rounds, so that two
# models' bits are not one sequence in another order.
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32


def bits(index: Tensor, key: Tensor) -> Tensor:
    """32 random bits for each index.

    Args:
        index: integers of any shape; taken modulo 2^32.
        key: int32 of shape (2,). Two models' first words differ, as random ones do: keys that
            differ in the second word alone give bits that are shifted against each other.

    Returns:
        int32 of the shape of `index`, uniform over its whole range.
    """
    x = index.to(torch.int32) ^ key[0]
    x = x ^ ((x >> 16) & 0xFFFF)  # shifts keep the sign: the mask makes them logical
    x = x * _FIRST
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x + key[1]
    x = x * _SECOND
    return x ^ ((x >> 16) & 0xFFFF)


def limit(probability: float) -> int:
    """Largest bits that stand for "yes" at this probability, in steps of 2^-32."""
    return max(-(2**31), min(2**31 - 1, round(probability * 2**32) - 1 - 2**31))


def uniform(index: Tensor, key: Tensor) -> Tensor:
    """Float32 in [0, 1) for each index, in steps of 2^-24."""
    return ((bits(index, key) >> 8) + 2**23).to(torch.float32) * 2.0**-24
