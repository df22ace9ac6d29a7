"""Hashes of strings and numbers that are the same in every process, machine and library version.

They assign users to shards, order shuffled ties and make up the split hash. Own code, because
hashlib and pandas take ten times as long for the ids of a chunk, and the hashes of faster libraries
change between their versions.
"""

import numpy as np
import pyarrow as pa

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit integers one to one (the finaliser of splitmix64, Steele et al. 2014).

    Args:
        values: [N] uint64.

    Returns:
        [N] uint64; each input bit changes about half of the output bits.
    """
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def combine(first: np.ndarray, *others: np.ndarray | int) -> np.ndarray:
    """Return one hash for each row of several integer columns; their order counts."""
    result = mix(first.astype(np.uint64))
    for other in others:
        result = mix(result ^ np.asarray(other).astype(np.uint64))
    return result


def hash_strings(strings: pa.Array) -> np.ndarray:
    """Hash each string: its UTF-8 bytes in words of eight, then its length.

    Args:
        strings: N strings, none null.

    Returns:
        [N] uint64.
    """
    strings = strings.cast(pa.large_string())
    count = len(strings)
    _, offset_buffer, data_buffer = strings.buffers()
    if count == 0:
        return np.zeros(0, np.uint64)
    offsets = np.frombuffer(offset_buffer, "<i8")[strings.offset : strings.offset + count + 1]
    starts, lengths = offsets[:-1], np.diff(offsets)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.zeros(0, np.uint8)
    padded = np.concatenate([data[: offsets[-1]], np.zeros(8, np.uint8)])
    words = np.lib.stride_tricks.sliding_window_view(padded, 8)
    result = np.zeros(count, np.uint64)
    alive = np.flatnonzero(lengths > 0)
    place = 0
    while len(alive):  # once for each eight bytes of the longest string
        word = np.ascontiguousarray(words[starts[alive] + place]).view("<u8")[:, 0]
        unused = 8 - np.minimum(lengths[alive] - place, 8)
        word = word & (np.uint64(0xFFFFFFFFFFFFFFFF) >> (unused * 8).astype(np.uint64))
        result[alive] = mix(result[alive] ^ word)
        place += 8
        alive = alive[lengths[alive] > place]
    return mix(result ^ lengths.astype(np.uint64))
