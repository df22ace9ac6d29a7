"""One seed an experiment; each consumer derives its own from (seed, purpose)."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch


def derive_seed(seed: int, purpose: str) -> int:
    """Return a 63-bit seed that depends on both arguments and on nothing else.

    Args:
        seed: The experiment's seed.
        purpose: Who draws, for example ``"training/order/3"``. Two purposes never share a stream.

    Returns:
        An integer in ``[0, 2**63)``, the same on every machine and Python process.
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """Return NumPy's generator for ``(seed, purpose)``."""
    return np.random.default_rng(derive_seed(seed, purpose))


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU torch generator for ``(seed, purpose)``."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose))


def hash_ids(ids: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """Return a hash of each id, ``[N] uint64``, for ``(seed, purpose)``; the same everywhere.

    The ids of lowest hash are a random sample that depends neither on their order nor on how they
    are sharded.
    """
    key = derive_seed(seed, purpose).to_bytes(8, "big")
    digests = (hashlib.blake2b(one.encode(), digest_size=8, key=key).digest() for one in ids)
    return np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64)
