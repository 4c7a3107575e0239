"""The random bits of the drops: as even and as unrelated as the statistics below can tell.

Every bound is five standard deviations of what is counted, so that a fair source would be beyond
one of them once in a million; the keys are fixed, and so are the outcomes.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor

from mergesearch.methods.noise import bits, limit, uniform

N = 1_000_000
INDEX = torch.arange(N, dtype=torch.int32)
# Keys of one model and tensor are words of a hash, so that no two have the first word in common.
KEYS = [(0, 0), (1, 0), (2, 1), (-1, -1), (123_456_789, -987_654_321), (-(2**31), 2**31 - 1)]
every_key = pytest.mark.parametrize("key", KEYS)


def key_of(pair: tuple[int, int]) -> Tensor:
    return torch.tensor(pair, dtype=torch.int32)


def mask(pair: tuple[int, int], density: float) -> Tensor:
    return bits(INDEX, key_of(pair)) <= limit(density)


def assert_unrelated(one: Tensor, two: Tensor, density: float) -> None:
    """The product moment of two masks is zero."""
    moment = float(((one.double() - density) * (two.double() - density)).mean())
    assert abs(moment) < 5 * density * (1 - density) / math.sqrt(len(one))


@every_key
@pytest.mark.parametrize("density", [0.001, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_the_kept_fraction_is_the_density(key: tuple[int, int], density: float) -> None:
    kept = float(mask(key, density).double().mean())
    assert abs(kept - density) < 5 * math.sqrt(density * (1 - density) / N)


@every_key
def test_each_bit_is_set_half_the_time(key: tuple[int, int]) -> None:
    drawn = bits(INDEX, key_of(key))
    for place in range(32):
        share = float(((drawn >> place) & 1).double().mean())
        assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(N), place


@every_key
@pytest.mark.parametrize("lag", [1, 2, 576])
@pytest.mark.parametrize("density", [0.1, 0.5])
def test_neighbours_are_unrelated(key: tuple[int, int], lag: int, density: float) -> None:
    kept = mask(key, density)
    assert_unrelated(kept[lag:], kept[:-lag], density)


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_the_masks_of_two_keys_are_unrelated(density: float) -> None:
    for one, two in itertools.combinations(KEYS, 2):
        assert_unrelated(mask(one, density), mask(two, density), density)


@pytest.mark.parametrize("place", range(32))
def test_keys_that_differ_in_one_bit_of_the_first_word_give_unrelated_masks(place: int) -> None:
    other = 12_345 ^ (1 << place if place < 31 else -(2**31))
    for density in (0.1, 0.5):
        one, two = (mask((word, -54_321), density) for word in (12_345, other))
        assert_unrelated(one, two, density)


def test_two_keys_give_no_sequence_in_another_order() -> None:
    """Of 2^32 values each key draws 10^6: were they the same ones, no order would hide it."""
    keys = ((123_456_789, -987_654_321), (-1_357_924_680, 24_681_357))
    one, two = (bits(INDEX, key_of(key)).unique() for key in keys)
    shared = len(one) + len(two) - len(torch.cat([one, two]).unique())
    assert shared < N / 1000  # 233 are to be expected


def test_an_index_has_its_bits_whatever_the_block_and_the_width_of_the_index() -> None:
    key = key_of(KEYS[4])
    whole = bits(INDEX, key)
    for start, stop in ((0, 1), (7, 64), (999, 131_072), (N - 1, N)):
        assert torch.equal(bits(INDEX[start:stop], key), whole[start:stop])
    assert torch.equal(bits(INDEX.view(1000, 1000), key).flatten(), whole)
    assert torch.equal(bits(INDEX.long(), key), whole)
    assert torch.equal(bits(INDEX.long() + 2**32, key), whole)  # modulo 2^32


def test_a_probability_of_one_keeps_all_and_one_near_zero_next_to_nothing() -> None:
    assert limit(1.0) == 2**31 - 1
    assert limit(0.5) == -1  # half of all bits, the negative ones
    assert limit(1e-300) == limit(2.0**-32) == -(2**31)
    assert mask(KEYS[4], 1.0).all()
    assert int(mask(KEYS[4], 1e-300).sum()) <= 1


@every_key
def test_uniform_numbers_are_even_and_below_one(key: tuple[int, int]) -> None:
    drawn = uniform(INDEX, key_of(key)).double()
    assert 0 <= float(drawn.min()) < 1e-4
    assert 1 - 1e-4 < float(drawn.max()) < 1
    assert abs(float(drawn.mean()) - 0.5) < 5 * math.sqrt(1 / 12 / N)
    # of a uniform square the mean is 1/3 and the variance 4/45
    assert abs(float(drawn.square().mean()) - 1 / 3) < 5 * math.sqrt(4 / 45 / N)
