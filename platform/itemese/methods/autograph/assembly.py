"""From texts and training events, or from saved tensors, to the network.

Shapes: I items, U users, N entities of one type, L levels, M size of a text vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from itemese.core.errors import ConfigError
from itemese.core.graph import Edges
from itemese.core.randomness import derive_seed
from itemese.core.vectors import Embeddings
from itemese.layers.histories import numbers_of_users
from itemese.layers.item_tables import ItemTable
from itemese.layers.neighbor_sampling import Neighbors
from itemese.layers.recurrent import RecurrentEncoder
from itemese.layers.transformer import SequenceEncoder
from itemese.methods.autograph.config import AutographConfig
from itemese.methods.autograph.encoders import CapsuleEncoder, MeanEncoder
from itemese.methods.autograph.factors import factor_codes
from itemese.methods.autograph.graph import Factored, FactorGraph, NodeVectors, PathVectors
from itemese.methods.autograph.network import Features, KnownUsers, Parts, Side, TwoTowers
from itemese.methods.base import Inputs, Need

_ROUTING_ROUNDS = 3


@dataclass(frozen=True)
class Knowledge:
    """What is known beside histories; entities are ``user`` (row 0 is unknown) and ``item``.

    Attributes:
        num_items: I.
        users: ``[U]`` int64, hashes of the users; None where no user has a vector.
        codes: ``[N, L]`` int64 of each entity that has factors.
        user, item: ``[E]`` int64, rows and items of training events, each pair once.
        features: ``[N, M]`` float32 of each entity, where vectors are read as they are.
    """

    num_items: int
    users: Tensor | None = None
    codes: Mapping[str, Tensor] = field(default_factory=dict)
    user: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    item: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    features: Mapping[str, Tensor] = field(default_factory=dict)


def read_knowledge(config: AutographConfig, inputs: Inputs) -> Knowledge:
    """Return what the settings read of the artifacts.

    Raises:
        ConfigError: There are no texts of users or of items.
    """
    size = inputs.catalog.num_items
    if config.graph == "none":
        return Knowledge(size)
    ids = inputs.artifacts[Need.USERS].table["user_id"].to_pylist()
    users = numbers_of_users(ids)
    vectors: dict[str, Tensor] = {}
    if config.reads_texts:
        vectors = _text_vectors(inputs.artifacts[Need.TEXT_EMBEDDINGS])
    if config.graph == "features":
        centred = {entity: found - found.mean(dim=0) for entity, found in vectors.items()}
        return Knowledge(size, users, features=centred)
    codes = {
        entity: factor_codes(
            found,
            config.factors,
            config.factors.size_of(entity),
            seed=derive_seed(inputs.seed, f"autograph/{entity}"),
            fitted=slice(1 if entity == "user" else 0, None),
        )
        for entity, found in vectors.items()
    }
    if not config.reads_edges:
        return Knowledge(size, users, codes)
    had: Edges = inputs.artifacts[Need.GRAPH].edges["user", "had", "item"]
    return Knowledge(size, users, codes, had.source, had.target)


def saved_knowledge(num_items: int, state: Mapping[str, Tensor]) -> Knowledge:
    """Return knowledge of the shapes of a saved network, whose tensors come next."""
    users = state.get("users.number")
    codes = {
        entity: torch.zeros_like(state[name])
        for entity in ("user", "item")
        if (name := f"graph.{entity}s.codes") in state
    }
    features = {
        entity: torch.zeros_like(state[name])
        for entity in ("user", "item")
        if (name := f"{entity}_side.vectors") in state
    }
    return Knowledge(
        num_items,
        None if users is None else torch.arange(len(users)),
        codes,
        features=features,
    )


def assemble(config: AutographConfig, known: Knowledge) -> TwoTowers:
    """Return a fresh network."""
    encoder = _encoder(config, known.num_items)
    parts = Parts(encoder)
    if known.users is not None:
        users = KnownUsers(known.users)
        sides: dict[str, Side] = {
            entity: Features(found, config.dim) for entity, found in known.features.items()
        }
        graph = _graph(config, known) if config.has_graph else None
        if graph is not None:
            sides = {entity: _paths(config, known, graph, entity) for entity in ("user", "item")}
        parts = Parts(encoder, users, graph, sides["user"], sides["item"])
    return TwoTowers(
        parts,
        num_items=known.num_items,
        dim=config.dim,
        degree=config.degree,
        dropout=config.dropout,
    )


def _text_vectors(found: Mapping[str, Embeddings]) -> dict[str, Tensor]:
    """Return the vectors of users ``[U + 1, M]`` and of items ``[I, M]``."""
    texts = {"user": "knowledge.users.texts", "item": "knowledge.texts"}
    for entity, path in texts.items():
        if entity not in found:
            message = (
                f"`{path}` must name a text of {entity}s for method 'autograph'; got none. Set "
                "`knowledge: {texts: [factors], users: {texts: [factor_taste]}, domain: ...}`."
            )
            raise ConfigError(message)
    return {entity: torch.from_numpy(found[entity].vectors).float() for entity in texts}


def _graph(config: AutographConfig, known: Knowledge) -> FactorGraph:
    """Return the nodes and edges that the paths lead through."""
    assert known.users is not None, "a graph has users"
    factored = {
        entity: Factored(
            codes,
            config.factors.size_of(entity),
            degree=config.degree,
            first=1 if entity == "user" else 0,
        )
        for entity, codes in known.codes.items()
    }
    num_users = len(known.users) + 1
    degree = config.degree
    of_item, of_user = None, None
    if config.reads_edges:
        sizes = {"num_sources": known.num_items, "num_targets": num_users}
        of_item = Neighbors(known.item, known.user, degree=degree, **sizes)
    if config.reads_edges and config.history == "sampled":
        sizes = {"num_sources": num_users, "num_targets": known.num_items}
        of_user = Neighbors(known.user, known.item, degree=degree, **sizes)
    users, items = factored.get("user"), factored.get("item")
    return FactorGraph(users, items, users_of_item=of_item, items_of_user=of_user)


def _paths(
    config: AutographConfig, known: Knowledge, graph: FactorGraph, entity: str
) -> PathVectors:
    """Return the paths that end in users or in items."""
    assert known.users is not None, "a graph has users"
    counts = {"user": len(known.users) + 1, "item": known.num_items}
    factored = {"user": graph.users, "item": graph.items}
    heads, residual = config.num_heads, config.residual

    def nodes(kind: str) -> NodeVectors:
        side = factored[kind]
        size = side.num_factors if side else 0
        return NodeVectors(counts[kind], size, config.dim, num_heads=heads, residual=residual)

    other = nodes("item" if entity == "user" else "user") if config.reads_edges else None
    found = PathVectors(nodes(entity), other, config.dim, num_heads=heads, residual=residual)
    if config.graph == "frozen":
        found.freeze()
    return found


def _encoder(config: AutographConfig, num_items: int) -> nn.Module:
    """Return what reads histories."""
    dim, dropout = config.dim, config.dropout
    if config.backbone == "dssm":
        return MeanEncoder(num_items, dim, dropout=dropout)
    if config.backbone == "mind":
        return CapsuleEncoder(
            num_items,
            dim,
            num_interests=config.num_interests,
            rounds=_ROUTING_ROUNDS,
            max_history=config.max_history,
            dropout=dropout,
        )
    if config.backbone == "gru4rec":
        return RecurrentEncoder(
            num_items, dim=dim, hidden_dim=2 * dim, num_layers=config.num_layers, dropout=dropout
        )
    return SequenceEncoder(
        ItemTable(num_items, dim),
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=4 * dim,
        max_history=config.max_history,
        dropout=dropout,
        norm="post",
        positions="relative",
    )
