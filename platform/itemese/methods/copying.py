"""Bases of methods that may copy an item from a graph of transitions.

P(item | history) = g P_graph(item | newest items) + (1 - g) P_model(item | history). A gate g is
learnt from the state of both; see `layers.copy_graph` for sources.

Shapes: B batch, T history length, N targets, P codes of an item, K_l codes of level l, d vector
size, I items, C items scored for a row.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from itemese.core.config import Config
from itemese.core.ranking import Scores
from itemese.core.schema import Request
from itemese.decoding.code_model import CodeModel
from itemese.decoding.copier import Copier, before
from itemese.decoding.decoding import as_stored
from itemese.decoding.exact import target_log_probs
from itemese.layers.copy_graph import CopyGraph
from itemese.layers.histories import user_numbers
from itemese.layers.item_graph import TransitionConfig, transition_counts
from itemese.layers.similar_items import similar_items
from itemese.losses.code_tokens import next_code
from itemese.methods.base import Batch, Inputs, LossTerm, Method, Need
from itemese.methods.families import BeamConfig, BeamMethod, NextItemConfig, NextItemEncoder


class CopyConfig(TransitionConfig):
    """How a method may copy items from a graph of transitions.

    Attributes:
        num_candidates: Items with most votes that a search by beams ranks beside those that it
            wrote; a method that scores the whole catalogue needs none.
        held_out: Share of users whose events teach the gate and nothing else. The model never
            learns their events, so the gate sees both sides as they are on unknown data: of the
            events that the model learns, it knows too much.
    """

    num_candidates: int = Field(default=100, ge=1)
    held_out: float = Field(default=0.1, gt=0, lt=1)


class Copies(Config):
    """Settings of any method that may copy.

    Attributes:
        copying: Mixes what a transition graph says into the probability of an item, by a gate
            that is learnt with the model; null leaves the model alone.
    """

    copying: CopyConfig | None = None


class Copying(Method):
    """What methods that may copy share; their settings are `Copies`.

    A module has an attribute `copier`. The method passes its module to `with_copier` and its
    batches to `with_held_out`.
    """

    built_from: ClassVar[frozenset[str]] = frozenset({Need.EMBEDDINGS})

    def required(self) -> frozenset[str]:
        """Return what the method reads without copies, and embeddings if similar ones vote."""
        given = self.config.copying
        alike = given is not None and given.similar is not None
        return super().required() | ({Need.EMBEDDINGS} if alike else set())

    def with_copier(self, module: nn.Module, inputs: Inputs) -> nn.Module:
        """Give the module a graph of the training events, if the settings ask for one."""
        given = self.config.copying
        if given is not None:
            counts = transition_counts(
                inputs.train(),
                inputs.catalog.num_items,
                max_gap=given.max_gap,
                gap_decay=given.gap_decay,
            )
            similar = None
            if given.similar is not None and not inputs.restores:
                assert inputs.embeddings is not None, "similar items need embeddings"
                similar = similar_items(inputs.embeddings, given.similar)
            graph = CopyGraph(counts, given, similar)
            module.copier = Copier(graph, num_candidates=given.num_candidates)
        return module

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild the module; what it was built from is what was saved."""
        module = self.build(replace(inputs, restores=True))
        self.resize(module, state)
        module.load_state_dict(state)
        return module

    def resize(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        """Give an untrained module's buffers the sizes of saved ones: the edges of its graph."""
        if self.config.copying is not None:
            assert isinstance(module.copier, Copier)
            module.copier.graph.resize(len(state["copier.graph.target"]))

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1, and what `with_held_out` adds."""
        return self.with_held_out(super().collate(requests), requests)  # type: ignore[safe-super]

    def with_held_out(self, batch: Batch, requests: Sequence[Request]) -> Batch:
        """Add ``held_out [B] bool`` to a batch if a gate is learnt: always the same users."""
        given = self.config.copying
        if given is not None:
            users = user_numbers(requests)  # -1 where no user is named
            batch["held_out"] = (users % 10_000 < round(given.held_out * 10_000)) & (users >= 0)
        return batch

    def first_logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return what the gate reads of the model: logits of all items, or of the first code."""
        raise NotImplementedError

    def copied(
        self, module: nn.Module, batch: Batch, item_index: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Return how much of each item's probability was copied, and from which item.

        Args:
            module: In evaluation mode.
            batch: From `collate`, B rows.
            item_index: ``[B, C]`` int64, any items for each row.

        Returns:
            Shares and item_index of the history, ``[B, C]`` each, -1 for none; None if nothing is
            ever copied.
        """
        if self.config.copying is None:
            return None
        assert isinstance(module.copier, Copier)
        log_prob = self.score(module, batch, item_index).values
        logits = self.first_logits(module, batch)
        return module.copier.copied(batch["item_index"], item_index, log_prob, logits)

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return what the other bases do, and the number of edges that can be copied."""
        found = super().facts(module)
        if self.config.copying is not None:
            assert isinstance(module.copier, Copier)
            found["copied_edges"] = len(module.copier.graph.target)
        return found


class CopyingConfig(BeamConfig, Copies):
    """Settings of a `BeamMethod` that may copy."""


class CopyingMethod(Copying, BeamMethod):
    """Base of a `BeamMethod` that may copy; it takes its loss from `code_loss`."""

    def first_logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of the first code."""
        assert isinstance(module, CodeModel)
        with as_stored(batch["item_index"].device):
            prompt = module.read(batch["item_index"], user_token=batch.get("user_token"))
            return module.code_logits(prompt.state, 0).clone()

    def code_loss(
        self,
        module: nn.Module,
        logits: Sequence[Tensor],
        codes: Tensor,
        *,
        batch: Batch,
        row: Tensor,
        history: Tensor,
        place: Tensor,
        target: Tensor,
    ) -> Tensor:
        """Return the loss of predicted codes, nats a code: a mean over N targets.

        Args:
            module: The model.
            logits: ``[N, K_l]`` of each predicted level.
            codes: ``[N, P]`` int64.
            batch: From `collate`.
            row: ``[N]`` int64, each target's row of the batch.
            history: ``[N, T]`` int64, each target's history, padded with -1.
            place: ``[N]`` int64, the target's place in it, or behind it.
            target: ``[N]`` item_index.
        """
        smoothing = self.config.label_smoothing
        if self.config.copying is None:
            return next_code(logits, codes, label_smoothing=smoothing)
        assert isinstance(module, CodeModel)
        assert module.copier is not None
        held = batch["held_out"][row]
        kept = ~held
        learnt = next_code([x[kept] for x in logits], codes[kept], label_smoothing=smoothing)
        first, *rest = [x[held].detach() for x in logits]
        written = target_log_probs(module, [first, *rest], codes[held])
        with torch.autocast(written.device.type, enabled=False):
            votes = module.copier.votes(before(history[held], place[held]), target[held])
            found = module.copier.log_likelihood(
                written.float(), first.float(), votes, target[held]
            )
        taught = -found.sum() / module.code_length
        return (learnt * kept.sum() + taught) / max(1, len(target))


class EncoderCopyConfig(CopyConfig):
    """How a method that scores the whole catalogue may copy.

    Attributes:
        gate_loss: What the gate maximises for the users that are held out: a smooth ``ndcg`` of the
            mixture, or its ``likelihood``. The graph gives most targets nothing, so the likelihood
            asks for less copying than the ranking is best with.
    """

    gate_loss: Literal["ndcg", "likelihood"] = "ndcg"


class CopyingEncoderConfig(NextItemConfig, Copies):
    """Settings of a `NextItemEncoder` that may copy."""

    copying: EncoderCopyConfig | None = None


class CopyingEncoder(Copying, NextItemEncoder):
    """Base of a `NextItemEncoder` that may copy.

    With a copier, scores are log-probabilities: of the whole catalogue, so nothing is searched.
    """

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_item``, nats of the model for most users.

        Of those held out it is the negative of what `gate_loss` names, of the mixture.
        """
        given = self.config.copying
        if given is None:
            return super().losses(module, batch)
        states, vectors, targets = self.queries(module, batch)
        row, place = self.query_places(batch["item_index"])
        held = batch["held_out"][row]
        total = states.new_zeros(())
        if not bool(held.all()):
            kept = ~held
            total = self.loss(states[kept], vectors, targets[kept]) * kept.sum()
        if bool(held.any()):
            logits, taught = (states[held] @ vectors.T).detach().float(), targets[held]
            history = before(batch["item_index"][row[held]], place[held])
            assert isinstance(module.copier, Copier)
            with torch.autocast(logits.device.type, enabled=False):
                if given.gate_loss == "ndcg":
                    known = module.copier.dense_votes(history, taught)
                    found = module.copier.smooth_ndcg(logits, known, taught, history)
                else:
                    votes = module.copier.votes(history, taught)
                    written = logits.log_softmax(dim=1).gather(1, taught[:, None])[:, 0]
                    found = module.copier.log_likelihood(written, logits, votes, taught)
            total = total - found.sum()
        return {"next_item": LossTerm(total / max(1, len(targets)), len(targets))}

    def first_logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of all items."""
        return super().score_catalogue(module, batch)

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the log-probability of every item, ``[B, I]``, if items are copied."""
        scores = self.first_logits(module, batch)
        if self.config.copying is None:
            return scores
        assert isinstance(module.copier, Copier)
        return module.copier.mix_catalogue(scores, batch["item_index"])

    def probabilities(self, module: nn.Module, batch: Batch) -> Tensor | None:
        """Return the mixture, or the softmax of the scores."""
        if self.config.copying is None:
            return super().probabilities(module, batch)
        return self.score_catalogue(module, batch).exp()

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Score the given items."""
        if self.config.copying is None:
            return super().score(module, batch, item_index)
        found = self.score_catalogue(module, batch).gather(1, item_index.clamp(min=0))
        return Scores.of(found, item_index, "log_prob")
