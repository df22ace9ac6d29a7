"""The `codebooks` section of a recipe: how item vectors become semantic IDs."""

from typing import Literal

from pydantic import Field

from itemese.config import Config

QuantizerKind = Literal["residual_kmeans"]
"""Names of the quantizers."""


class CodebooksConfig(Config):
    """A quantizer and what is done where items share its codes.

    Attributes:
        kind: The quantizer. ``residual_kmeans``: each codebook is k-means of what the codebooks
            before it leave over.
        num_codebooks: Codes an item before disambiguation.
        codebook_size: Codes a codebook; at most the number of items.
        disambiguation: ``suffix`` appends one more code that numbers the items of a shared tuple
            in the catalogue's order, always, so that the code length does not depend on the data;
            its size is the number of items in the largest such group.
        normalize: Whether each vector is scaled to length 1 first.
        max_iterations: Most rounds of assigning and averaging a codebook; it stops earlier when
            the error has settled.
        fit_sample: Vectors that codebooks are fitted on, drawn at random if there are more; all
            items are encoded.
    """

    kind: QuantizerKind = "residual_kmeans"
    num_codebooks: int = Field(default=3, ge=1, le=16)
    codebook_size: int = Field(default=256, ge=2, le=65_536)
    disambiguation: Literal["suffix"] = "suffix"
    normalize: bool = False
    max_iterations: int = Field(default=25, ge=1, le=1000)
    fit_sample: int = Field(default=200_000, ge=2)
