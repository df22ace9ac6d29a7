"""AutoGraph: factors of what a language model wrote join users and items in a graph of two towers.

Source: R. Shan et al., "AutoGraph: An Automatic Graph Construction Framework based on LLMs for
    Recommendation", arXiv 2412.18241v1. Read through its abstract, a re-implementation's notes and
    the released code; the body was not at hand.
Code: released by the authors; its graph layers are not registered as modules, so they are never
    trained. That form is ``graph: frozen``; ``trained`` is what the paper describes.
Follows: texts of users and of items as vectors, residual codes of each, apart; every code of a
    level is a factor node. Paths node-factor-node on both sides, then items to user and users to
    item, by graph attention of two heads without residual, with weights of their own on each side.
    The vectors, mapped to D numbers, are one more field of each tower. Graph of training events;
    15 neighbours a node; the user of a training pair is no neighbour of its item.
Differs: factors are residual k-means of centred vectors; the paper trains an autoencoder with its
    codebooks (``factors.source: rq_vae`` is one, with a squared error in place of an absolute one).
    Of a user's items the graph sees the newest of the request's own history, so no later event and
    no target; ``history: sampled`` draws from all training events, less the target, as released.
    Neighbours are drawn anew at each training step. A node without neighbours has the attention's
    bias in place of a padding node. Users that training did not know have row 0: the factors of the
    mean text. A tower adds one hidden layer to the state or item vector, where the released ones
    narrow. Negatives are shared by a micro-batch. No fields beside history, item and graph.
Shapes: B batch, T history length, N queries, J interests, I items, U users, L levels, D size.
"""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from itemese.core.ranking import Scores
from itemese.core.schema import Request
from itemese.layers.histories import next_item_pairs, pad_histories, user_numbers, without_newest
from itemese.losses.next_item import softmax_with_positives
from itemese.methods.autograph.assembly import assemble, read_knowledge, saved_knowledge
from itemese.methods.autograph.config import AutographConfig
from itemese.methods.autograph.factors import factor_use
from itemese.methods.autograph.network import TwoTowers
from itemese.methods.base import Batch, Inputs, LossTerm, Need
from itemese.methods.families import NextItemEncoder

logger = logging.getLogger(__name__)


class Autograph(NextItemEncoder):
    """See the module docstring."""

    Config = AutographConfig
    config: AutographConfig
    needs: ClassVar[frozenset[str]] = frozenset({Need.USERS, Need.GRAPH, Need.TEXT_EMBEDDINGS})
    built_from: ClassVar[frozenset[str]] = needs
    encodes_histories: ClassVar[bool] = False  # the state of a history depends on its user too

    def required(self) -> frozenset[str]:
        """Return what these settings read."""
        wanted = {
            Need.USERS: self.config.graph != "none",
            Need.GRAPH: self.config.reads_edges,
            Need.TEXT_EMBEDDINGS: self.config.reads_texts,
        }
        return frozenset(need for need, reads in wanted.items() if reads)

    @property
    def embeds_cold_items(self) -> bool:
        """Whether an item's text says something of it."""
        return self.config.reads_texts

    def build(self, inputs: Inputs) -> nn.Module:
        """Make the factors and the graph, and return fresh towers.

        Raises:
            ConfigError: There are no texts of users or of items.
        """
        known = read_knowledge(self.config, inputs)
        for entity, codes in known.codes.items():
            use = factor_use(codes[entity == "user" :], self.config.factors.size_of(entity))
            logger.info("factors of %ss: %s", entity, use)
        return assemble(self.config, known)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild the module; users, factors and their neighbours are what was saved."""
        module = assemble(self.config, saved_knowledge(inputs.catalog.num_items, state))
        module.load_state_dict(state)
        return module

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1, and ``user [B]``, a hash or -1."""
        return {**pad_histories(requests), "user": user_numbers(requests)}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_item``: events of the history, predicted from what came before them."""
        assert isinstance(module, TwoTowers)
        if self.config.targets == "last":
            item_index, newest = without_newest(batch["item_index"])
            row = (newest >= 0).nonzero()[:, 0]  # a history of one item has nothing to predict
            place, target = (item_index[row] >= 0).sum(dim=1) - 1, newest[row]
        else:
            item_index, successors, real = next_item_pairs(batch["item_index"])
            row, place = real.nonzero(as_tuple=True)
            target = successors[real]
        rows = module.known_rows(batch["user"])
        interests, table = module.queries(item_index, rows, row, place, target)
        others = self._compared(module.num_items, row.device)
        # No edge of row 0 exists to be left out. Together, both read each node's vector once.
        without = torch.cat([rows[row], torch.zeros_like(others)])
        vectors = module.items(table, torch.cat([target, others]), without)
        positives, vectors = vectors[: len(target)], vectors[len(target) :]
        best = (interests @ positives[:, :, None])[..., 0].argmax(dim=1)
        states = interests[torch.arange(len(row), device=row.device), best]
        loss = softmax_with_positives(states, positives, vectors, others, target)
        return {"next_item": LossTerm(loss, len(target))}

    def _compared(self, num_items: int, device: torch.device) -> Tensor:
        """Return the items that targets are compared with, ``[S]``."""
        if self.config.loss == "full_softmax":
            return torch.arange(num_items, device=device)
        return torch.randint(num_items, (self.config.num_negatives,), device=device)

    def newest(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the vectors of each history, ``[B, J, D]``, and all items' vectors ``[I, D]``."""
        assert isinstance(module, TwoTowers)
        item_index = batch["item_index"]
        row = torch.arange(len(item_index), device=item_index.device)
        place = (item_index >= 0).sum(dim=1) - 1
        rows = module.known_rows(batch["user"])
        interests, table = module.queries(item_index, rows, row, place)
        return interests, module.catalogue(table)

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the product of each item's vector with the interest nearest to it, ``[B, I]``."""
        interests, items = self.newest(module, batch)
        return (interests.float() @ items.float().T).amax(dim=1)

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return the same of the given items."""
        interests, items = self.newest(module, batch)
        given = items[item_index.clamp(min=0)].float()  # [B, C, D]
        found = (given @ interests.float().transpose(1, 2)).amax(dim=2)
        return Scores.of(found, item_index, "score")

    def item_vectors(self, module: nn.Module) -> Tensor:
        """Return the vectors that histories are compared with, ``[I, D]``."""
        assert isinstance(module, TwoTowers)
        place = next(module.parameters()).device
        with torch.no_grad():
            _, table = module.encoder(torch.zeros(1, 1, dtype=torch.long, device=place))
            return module.catalogue(table)

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return how many of the factors are in use, by entity and level."""
        assert isinstance(module, TwoTowers)
        found = {"backbone": self.config.backbone, "graph": self.config.graph}
        if module.graph is None:
            return found
        sides = {"user": module.graph.users, "item": module.graph.items}
        use = {
            f"{entity}_factors": factor_use(side.level_codes[entity == "user" :], side.size)
            for entity, side in sides.items()
            if side is not None
        }
        return found | use
