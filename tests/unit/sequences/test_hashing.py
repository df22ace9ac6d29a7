"""Hashes against a slow twin that follows the definition byte by byte."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.sequences.hashing import combine, hash_strings, mix

_MASK = 2**64 - 1


def slow_mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def slow_hash(text: str) -> int:
    data = text.encode()
    result = 0
    for start in range(0, len(data), 8):
        result = slow_mix(result ^ int.from_bytes(data[start : start + 8], "little"))
    return slow_mix(result ^ len(data))


@given(st.lists(st.text(max_size=40), max_size=12), st.integers(0, 5))
@settings(deadline=None)
def test_strings_equal_the_slow_twin(texts, start):
    array = pa.array(texts, pa.string())[start:]  # a slice has an offset into the same buffers
    assert hash_strings(array).tolist() == [slow_hash(text) for text in texts[start:]]


def test_published_vector_of_splitmix64():
    # The first outputs of splitmix64 seeded with 0 (Vigna's reference code).
    golden = 0x9E3779B97F4A7C15
    found = mix(np.array([0, golden], np.uint64)).tolist()
    assert found == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_values_never_change():
    # A change would move users to other shards and give equal splits unequal hashes.
    found = hash_strings(pa.array(["a"]))
    assert f"{found[0]:016x}" == "121842d00719760b"


def test_users_spread_evenly_over_shards():
    hashes = hash_strings(pa.array([str(n) for n in range(80_000)]))
    counts = np.bincount((hashes % np.uint64(8)).astype(int))
    assert abs(counts - 10_000).max() < 500  # 5 sigma


def test_combine_heeds_the_order_of_columns():
    one, two = np.array([1], np.uint64), np.array([2])
    assert combine(one, two) != combine(two, one)
    assert combine(one, two, 3) != combine(one, two, 4)
