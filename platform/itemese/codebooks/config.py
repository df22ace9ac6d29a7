"""The `codebooks` section of a recipe: how item vectors become semantic IDs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from itemese.core.config import Config

QuantizerKind = Literal[
    "residual_kmeans", "rq_vae", "balanced_tree", "parallel_kmeans", "product_quantizer"
]
"""Names of the quantizers."""


class RqVaeConfig(Config):
    """What only ``kind: rq_vae`` reads.

    The fit minimises, over an autoencoder's parameters, ``mse(reconstruction) +
    commitment_weight * mse(latent, its code) - diversity_weight * entropy(use of the codes)``,
    the last two summed over the codebooks.

    Attributes:
        latent_dim: Size of the vectors that are quantized.
        hidden_dim: Width of the encoder's and the decoder's hidden layers.
        num_layers: Hidden layers of each.
        steps: Optimiser steps, whatever the number of items.
        batch_size: Items a step; all of them if there are fewer.
        learning_rate: Of AdamW.
        commitment_weight: Pulls latents towards their codes.
        diversity_weight: Rewards even use of the codes; 0 leaves the term out.
        decay: Of the moving averages that the codebooks are.
        dead_code_threshold: A code that has fewer latents a batch than this, on the moving
            average, is moved onto a latent of the batch; 0 never revives one.
        gradient: How the reconstruction's gradient passes the quantizer: ``straight_through``
            copies it, ``rotation`` rotates it (C. Fifty et al., arXiv 2410.06424v2, section 4).
    """

    latent_dim: int = Field(default=8, ge=1, le=4096)
    hidden_dim: int = Field(default=512, ge=1, le=16_384)
    num_layers: int = Field(default=1, ge=0, le=8)
    steps: int = Field(default=500, ge=1)
    batch_size: int = Field(default=1024, ge=2)
    learning_rate: float = Field(default=0.003, gt=0, le=1)
    commitment_weight: float = Field(default=0.25, ge=0)
    diversity_weight: float = Field(default=0.0, ge=0)
    decay: float = Field(default=0.9, ge=0, lt=1)
    dead_code_threshold: float = Field(default=2.0, ge=0)
    gradient: Literal["straight_through", "rotation"] = "straight_through"


class BalancedTreeConfig(Config):
    """What only ``kind: balanced_tree`` reads.

    Attributes:
        last_code: The meaning of an item's last code. ``numbered``: none, the items of a node are
            numbered as `numbering` says. ``clustered``: where the item lies in its node, and the
            same place has the same code in every node: what is left of the vectors is clustered
            over the whole catalogue, and the items of a node share the clusters out, one each, at
            the least total distance.
    """

    last_code: Literal["numbered", "clustered"] = "numbered"


class CodebooksConfig(Config):
    """A quantizer and what is done where items share its codes.

    All kinds read `sources`, `num_codebooks`, `codebook_size`, `normalize`, `disambiguation` and
    `gate`.

    Attributes:
        kind: The quantizer. ``residual_kmeans``: each codebook is k-means of what the codebooks
            before it leave over. ``rq_vae``: the same on the latents of an autoencoder that is
            trained with its codebooks. ``balanced_tree``: k-means below k-means, with children of
            equal size; code c + 1 has its meaning under code c only. ``parallel_kmeans``: k-means
            of each part of the principal components, no code before another.
            ``product_quantizer``: the same parts after a rotation that is fitted too (OPQ).
        sources: Sources of the embeddings (``text``, ``knowledge``, ``collaborative``,
            ``recommender``) that name
            an item one after the other, each with `num_codebooks` codebooks of its own; what is
            left out names nothing. Empty makes one vector of them all. An item that a source knows
            nothing of has the codes of that source's stand-in, a mean vector or zeros.
        drawn: The control: every vector is replaced by standard normal draws of its size before
            anything is fitted, so that the same codes carry no information.
        num_codebooks: Codes an item before disambiguation. ``balanced_tree``: its depth.
        codebook_size: Codes a codebook; at most the number of items. ``balanced_tree``: most
            children of a node; ``codebook_size ** num_codebooks`` must reach the number of items,
            and one level less must not.
        principal: Principal components that vectors keep, the rest is cut off; None keeps all.
            Read by ``parallel_kmeans`` and ``product_quantizer``.
        disambiguation: ``suffix`` appends one more code that numbers the items of a shared tuple
            (`numbering`), always, so that the code length does not depend on the data; its size is
            the number of items in the largest such group. ``reassign`` keeps the length: the item
            nearest to its codes keeps them, each other one takes the nearest free last code, and
            where a prefix is full the nearest free place under another code one level up. ``none``
            lets items share their codes as far as a model is concerned: it does not predict the
            last code, which numbers them (`numbering`) and breaks their ties.
        numbering: The order of items that a code only numbers: those of a shared tuple under
            ``suffix`` and ``none``, those of a tree's last node. ``drawn``: at random, so that the
            number carries no information. ``by_id``: sorted by item id, which in some logs follows
            the date an item was added; a model then learns from it, and so does the control.
        gate: What happens if a codebook is in bad health (see `health.GATE`): ``fail`` stops the
            run with advice, ``warn`` logs the advice and reports it, ``off`` only reports.
        normalize: Whether each vector is scaled to length 1 first.
        max_iterations: Most rounds of assigning and averaging a codebook; it stops earlier when
            the error has settled. Read by all kinds but ``rq_vae``.
        fit_sample: Vectors that codebooks are fitted on, drawn at random if there are more; all
            items are encoded. ``balanced_tree``: for each node.
        rq_vae: Read by that kind only.
        balanced_tree: Read by that kind only.
    """

    kind: QuantizerKind = "residual_kmeans"
    sources: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    drawn: bool = False
    num_codebooks: int = Field(default=3, ge=1, le=64)
    codebook_size: int = Field(default=256, ge=2, le=65_536)
    principal: int | None = Field(default=None, ge=1)
    disambiguation: Literal["suffix", "reassign", "none"] = "suffix"
    numbering: Literal["drawn", "by_id"] = "drawn"
    gate: Literal["fail", "warn", "off"] = "warn"
    normalize: bool = False
    max_iterations: int = Field(default=25, ge=1, le=1000)
    fit_sample: int = Field(default=200_000, ge=2)
    rq_vae: RqVaeConfig = RqVaeConfig()
    balanced_tree: BalancedTreeConfig = BalancedTreeConfig()

    @field_validator("sources")
    @classmethod
    def _each_once(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(sources)) < len(sources):
            message = "a list without repetition"
            raise ValueError(message)
        return sources

    def unread(self) -> list[str]:
        """Return the paths of settings that differ from their defaults but that `kind` ignores.

        They are no error, because a search may vary the kind together with them.
        """
        ignored = ["max_iterations"] if self.kind == "rq_vae" else ["rq_vae"]
        ignored += [] if self.kind == "balanced_tree" else ["balanced_tree"]
        ignored += [] if self.kind in ("parallel_kmeans", "product_quantizer") else ["principal"]
        default = CodebooksConfig()
        return [name for name in ignored if getattr(self, name) != getattr(default, name)]
