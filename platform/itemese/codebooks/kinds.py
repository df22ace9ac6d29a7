"""The quantizer of each kind, and what a recipe's section makes of them."""

from itemese.codebooks.balanced_tree import BalancedTree
from itemese.codebooks.base import Quantizer
from itemese.codebooks.config import QuantizerKind
from itemese.codebooks.parallel_kmeans import ParallelKMeans
from itemese.codebooks.product_quantizer import ProductQuantizer
from itemese.codebooks.residual_kmeans import ResidualKMeans
from itemese.codebooks.rq_vae import RqVae

QUANTIZERS: dict[QuantizerKind, type[Quantizer]] = {
    "residual_kmeans": ResidualKMeans,
    "rq_vae": RqVae,
    "balanced_tree": BalancedTree,
    "parallel_kmeans": ParallelKMeans,
    "product_quantizer": ProductQuantizer,
}
"""The quantizer of each kind."""
