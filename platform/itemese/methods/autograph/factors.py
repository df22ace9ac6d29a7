"""Factors: each user or item gets a code of each level, made of the vector of its text.

Shapes: N entities, M vector size, L levels, K codes of a level.
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy.cluster import hierarchy
from torch import Tensor

from itemese.codebooks.base import encode_here
from itemese.codebooks.config import CodebooksConfig, RqVaeConfig
from itemese.codebooks.kinds import QUANTIZERS
from itemese.codebooks.kmeans import assign, kmeans
from itemese.core.config import Config
from itemese.core.randomness import derive_seed, torch_generator

_ROUNDS = 25
_BRANCHES = 4
"""Clusters of a level that make one of the level above, on average."""


class FactorsConfig(Config):
    """What factors are, and how many.

    Attributes:
        source: ``residual_kmeans`` and ``rq_vae`` quantize vectors level by level, each level what
            is left of the ones before; ``hierarchical`` joins clusters of a level to those of the
            level before; ``lsh`` takes the sides of random planes; ``random`` ignores the vectors.
        levels: Factors of a user or an item.
        user_size: Most factors of users on a level; ``lsh`` rounds down to a power of 2.
        item_size: Most factors of items on a level.
    """

    source: Literal["residual_kmeans", "rq_vae", "hierarchical", "lsh", "random"] = (
        "residual_kmeans"
    )
    levels: int = Field(default=3, ge=1, le=8)
    user_size: int = Field(default=300, ge=2, le=65_536)
    item_size: int = Field(default=256, ge=2, le=65_536)

    def size_of(self, entity: str) -> int:
        """Return the most factors of users or of items on a level."""
        return self.user_size if entity == "user" else self.item_size


def factor_codes(
    vectors: Tensor, config: FactorsConfig, size: int, *, seed: int, fitted: slice = slice(None)
) -> Tensor:
    """Return the codes of all vectors, ``[N, L] int64``, each below `size`.

    Vectors are centred first: those of language models share most of their direction. Where there
    are fewer distinct vectors than codes, some codes stay without a member.

    Args:
        vectors: ``[N, M]`` float32.
        config: The section.
        size: K.
        seed: Of this entity's factors.
        fitted: The rows that codebooks are fitted on.
    """
    sample = vectors[fitted]
    mean = sample.mean(dim=0)
    sample, vectors = sample - mean, vectors - mean
    generator = torch_generator(seed, "autograph/factors")
    shape = (len(vectors), config.levels)
    if config.source == "random":
        return torch.randint(size, shape, generator=generator)
    if config.source == "lsh":
        bits = size.bit_length() - 1
        planes = torch.randn(vectors.shape[1], config.levels * bits, generator=generator)
        sides = (vectors @ planes > 0).view(*shape, bits)
        return (sides * 2 ** torch.arange(bits)).sum(dim=2)
    size = min(size, len(sample))
    if size < 2 or not (sample != sample[:1]).any():
        return torch.zeros(shape, dtype=torch.long)
    if config.source == "hierarchical":
        return _nested(sample, vectors, config.levels, size, generator)
    quantizer = QUANTIZERS[config.source](
        CodebooksConfig(
            kind=config.source,
            num_codebooks=config.levels,
            codebook_size=size,
            max_iterations=_ROUNDS,
            rq_vae=RqVaeConfig(latent_dim=32),
        )
    )
    quantizer.fit(sample, seed=derive_seed(seed, "autograph/factors"))
    return torch.from_numpy(encode_here(quantizer, vectors)).long()


def _nested(
    sample: Tensor, vectors: Tensor, levels: int, size: int, generator: torch.Generator
) -> Tensor:
    """Cluster, then join clusters by Ward's criterion: the last level is the finest."""
    centres = kmeans(sample, size, generator=generator, rounds=_ROUNDS)
    nearest = assign(vectors, centres)[0]
    tree = hierarchy.linkage(centres.double().numpy(), method="ward")
    codes = [nearest]
    for level in range(1, levels):
        most = max(1, size // _BRANCHES**level)
        joined = hierarchy.fcluster(tree, most, criterion="maxclust").astype(np.int64) - 1
        codes.insert(0, torch.from_numpy(joined)[nearest])
    return torch.stack(codes, dim=1)


def factor_use(codes: Tensor, size: int) -> list[dict[str, float]]:
    """Return of each level the share of codes that have a member, and the fewest and most members.

    Args:
        codes: ``[N, L]`` int64, N >= 1.
        size: K.
    """
    members = [torch.bincount(level, minlength=size) for level in codes.T]
    return [
        {
            "active": round(float((count > 0).float().mean()), 4),
            "fewest": int(count.min()),
            "most": int(count.max()),
        }
        for count in members
    ]
