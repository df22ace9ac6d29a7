"""What a language model wrote of items and users, as two fields of a click model: REKI.

Texts and their vectors are made before training; a hybridised network of shared and dedicated
experts turns the frozen vectors into fields, and is trained with the model that reads them. A
bundle holds the fields themselves, so no request waits for a language model.

Source: Y. Xi et al., "Efficient and Deployable Knowledge Infusion for Open-World Recommendations
    via Large Language Models" (REKI), arXiv 2408.10520; its body was not at hand. The experts are
    those of KAR (arXiv 2306.10933), which it extends.
Code: YunjiaXi/Open-World-Knowledge-Augmented-Recommendation (KAR; PyTorch). None of REKI.
Follows: KAR's code: experts m -> 128 -> D with ReLU, two shared and five of each tower, a linear
    gate with a softmax over seven, no balance loss.
Differs: vectors are centred and brought to a variance of 1, as those of MiniLM are small. A user
    who has no text has the field of a cluster of users: the paper's rule for new users is not
    known. Targets that a user's text may have shown are not learnt from, as in KAR, here by time.
Shapes: I items, U users, m vector size, C clusters.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from itemese.codebooks.kmeans import assign, kmeans
from itemese.core.config import Config
from itemese.core.errors import ConfigError
from itemese.core.randomness import derive_seed
from itemese.core.vectors import Embeddings
from itemese.layers.expert_network import ExpertNetwork, KnowledgeFields
from itemese.layers.histories import numbers_of_users
from itemese.methods.base import Inputs, Need


class KnowledgeFieldsConfig(Config):
    """Which vectors become fields, and by which experts.

    Attributes:
        items: Whether items have a field, of the vectors of their texts.
        users: ``texts``: users have a field of the vectors of their texts; ``mean_of_items``: of
            the mean vector of their items, a control; null gives them none.
        control: ``shuffled`` gives each item and user the vector of another one, ``drawn`` random
            vectors of the same size. Nothing is gained from knowledge that these gain too.
        num_shared: Experts of both.
        num_dedicated: Experts of each.
        hidden_dim: Width inside an expert.
        user_clusters: Clusters of users, at most, for users without a text.
    """

    items: bool = True
    users: Literal["texts", "mean_of_items"] | None = "texts"
    control: Literal["shuffled", "drawn"] | None = None
    num_shared: int = Field(default=2, ge=1)
    num_dedicated: int = Field(default=5, ge=1)
    hidden_dim: int = Field(default=128, ge=1)
    user_clusters: int = Field(default=64, ge=1)

    def needs(self) -> set[Need]:
        """Return the artifacts that the fields are made of."""
        texts = {Need.TEXT_EMBEDDINGS} if self.items or self.users == "texts" else set()
        means = {Need.USERS, Need.EMBEDDINGS, Need.USER_EMBEDDINGS} if self.users else set()
        return texts | means


def knowledge_fields(config: KnowledgeFieldsConfig, inputs: Inputs, dim: int) -> KnowledgeFields:
    """Return the fields, of size `dim`, over the artifacts of `inputs`.

    Raises:
        ConfigError: The recipe has no texts of what shall have a field.
    """
    generator = np.random.default_rng(derive_seed(inputs.seed, "methods/knowledge_fields"))
    texts = inputs.artifacts.get(Need.TEXT_EMBEDDINGS, {})
    for entity, wanted in (("item", config.items), ("user", config.users == "texts")):
        if wanted and entity not in texts:
            section = "texts" if entity == "item" else "users"
            message = f"`knowledge.{section}` must name texts of {entity}s for `method.knowledge`; "
            raise ConfigError(message + "got none. Add them, or leave that field out.")
    items = users = None
    if config.items:
        items = _standardised(_controlled(texts["item"].vectors, config, generator))
    if config.users:
        users = _Users.of(config, inputs, generator)
    read = [items, None if users is None else users.vectors]
    widths = {vectors.shape[1] for vectors in read if vectors is not None}
    if len(widths) != 1:
        message = (
            "`method.knowledge` must read vectors of one size, of items or of users; got "
            f"{sorted(widths)}. Use one model for `text_embeddings` and `embeddings`."
        )
        raise ConfigError(message)
    sizes = (0 if items is None else len(items), 0 if users is None else len(users.key))
    module = empty_fields(config, dim, width=widths.pop(), sizes=sizes)
    module.item_vectors = items
    if users is not None:
        users.give(module, config.user_clusters, inputs)
    return module


def empty_fields(
    config: KnowledgeFieldsConfig, dim: int, *, width: int, sizes: tuple[int, int] = (0, 0)
) -> KnowledgeFields:
    """Return fields that hold nothing yet, of vectors of size `width` and of I and U rows."""
    network = ExpertNetwork(
        width,
        [name for name, on in (("item", config.items), ("user", config.users)) if on],
        num_shared=config.num_shared,
        num_dedicated=config.num_dedicated,
        hidden_dim=config.hidden_dim,
        dim=dim,
    )
    return KnowledgeFields(network, (*sizes, 0))


@dataclass(frozen=True)
class _Users:
    """Users with a vector, in the order of their hashes.

    Attributes:
        key [U] int64: Hashes, see `histories.user_numbers`.
        vectors [U, m]: Standardised.
        means [U, D]: Mean vectors of their items.
        shown_until [U] int64: See `Embeddings`; None if texts showed no events.
    """

    key: Tensor
    vectors: Tensor
    means: Tensor
    shown_until: Tensor | None

    @classmethod
    def of(
        cls, config: KnowledgeFieldsConfig, inputs: Inputs, generator: np.random.Generator
    ) -> "_Users":
        means: Embeddings = inputs.artifacts[Need.USER_EMBEDDINGS]
        source, vectors = means, means.vectors
        if config.users == "texts":
            source = inputs.artifacts[Need.TEXT_EMBEDDINGS]["user"]
            vectors = source.vectors
        elif any(name == "text" for name, _ in means.parts):
            vectors = means.part("text")
        known = np.ones(len(vectors), bool) if source.described is None else source.described
        rows = np.flatnonzero(known[1:]) + 1  # row 0 is the unknown user
        ids = inputs.artifacts[Need.USERS].table["user_id"].take(rows - 1).to_pylist()
        key = numbers_of_users(ids).numpy()
        order = np.argsort(key, kind="stable")
        rows = rows[order]
        until = None if source.shown_until is None else source.shown_until[rows].astype(np.int64)
        return cls(
            torch.from_numpy(key[order]),
            _standardised(_controlled(vectors[rows], config, generator)),
            torch.from_numpy(means.vectors[rows]),
            None if until is None else torch.from_numpy(until),
        )

    def give(self, module: KnowledgeFields, size: int, inputs: Inputs) -> None:
        """Put the users into the module, with at most `size` clusters for those to come.

        Users of one vector are a cluster; where there are more of these, k-means of their means.
        """
        assert inputs.embeddings is not None, "users without a text are known by their items"
        module.user_key, module.user_vectors = self.key, self.vectors
        module.shown_until = self.shown_until
        if not len(self.key):
            return
        rows = np.ascontiguousarray(self.vectors.numpy())
        whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
        distinct, found = np.unique(whole, return_inverse=True)
        group = torch.from_numpy(found)
        if len(distinct) > size:
            generator = torch.Generator().manual_seed(derive_seed(inputs.seed, "methods/new_users"))
            group = assign(self.means, kmeans(self.means, size, generator=generator, rounds=20))[0]
        _, group = torch.unique(group, return_inverse=True)  # no empty cluster
        centres, module.cluster_vectors = _means(self.means, group), _means(self.vectors, group)
        module.cluster_field = torch.zeros(len(centres), module.network.dim)
        module.affinity = torch.from_numpy(inputs.embeddings.vectors) @ centres.T
        module.half_norm = centres.square().sum(dim=1) / 2


def _means(rows: Tensor, group: Tensor) -> Tensor:
    """Return the mean of the rows of each group."""
    size = group.bincount()[:, None]
    return rows.new_zeros(len(size), rows.shape[1]).index_add(0, group, rows) / size


def _controlled(
    vectors: np.ndarray, config: KnowledgeFieldsConfig, generator: np.random.Generator
) -> np.ndarray:
    if config.control == "shuffled":
        return vectors[generator.permutation(len(vectors))]
    if config.control == "drawn":
        return generator.standard_normal(vectors.shape, dtype=np.float32)
    return vectors


def _standardised(vectors: np.ndarray) -> Tensor:
    """Centre vectors ``[N, m]``, and give all numbers together a variance of 1."""
    centred = vectors - vectors.mean(axis=0) if len(vectors) > 1 else vectors
    deviation = max(float(centred.std()), 1e-6) if centred.size else 1.0
    return torch.from_numpy((centred / deviation).astype(np.float32))
