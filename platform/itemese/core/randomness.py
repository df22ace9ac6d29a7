"""One seed an experiment; each consumer derives its own from (seed, purpose)."""

import hashlib

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
