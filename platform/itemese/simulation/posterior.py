"""The best that can be had from the history alone: the hidden taste averaged out.

The oracle knows each user's taste; a recommender has to infer it. Here Bayes' rule does so: M
tastes are drawn from the network as if they belonged to further users, each is weighted by the
likelihood of the history, and the next-item distributions are averaged. With many events and few
draws the average rests on few tastes, so that the true optimum lies a little above this ranker and
below the oracle.

Shape letters: B users, I items, G genres, M drawn tastes, T events of a history.
"""

import numpy as np
import torch

from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Request
from itemese.simulation.ceiling import Ranker, world_index
from itemese.simulation.world import World

_STRANGERS = 2**40
"""Number of the first drawn taste; above every user's number, so none is their own prior."""


class Posterior:
    """Next-item distributions given histories and nothing else."""

    def __init__(self, world: World, num_draws: int = 4096) -> None:
        """Draw the prior.

        Args:
            world: The world that made the log.
            num_draws: M. More is closer to the optimum and slower.
        """
        numbers = _STRANGERS + np.arange(num_draws)
        drawn = world.network.sample("user", seed=world.seed, counters=(numbers,))
        self.world = world
        self.mixtures = world.choice.genre_mixture(drawn[world.roles.taste])

    def probabilities(self, histories: list[np.ndarray]) -> np.ndarray:
        """Return ``[B, I] float64``, rows sum to 1.

        Args:
            histories: B arrays of indices into ``world.item_ids``, oldest first.
        """
        choice = self.world.choice
        rows = []
        for history in histories:
            weight = self._weight(history)
            seen = np.zeros((1, self.world.num_items), dtype=bool)
            seen[0, history] = True
            last = np.array([history[-1] if len(history) else -1])
            if not choice.repeats:
                # Each taste would scale its own p up to 1; dividing here by what it leaves over
                # lets one average serve them all.
                weight = weight / self._left_over(history)[:, -1]
            genres = (weight / weight.sum()) @ self.mixtures
            rows.append(choice.probabilities(genres[None, :], last, seen))
        return np.concatenate(rows) if rows else np.zeros((0, self.world.num_items))

    def _weight(self, history: np.ndarray) -> np.ndarray:
        """Return ``[M] float64``, the posterior of each drawn taste; sums to 1."""
        choice = self.world.choice
        stay, follow = self._steps(history)
        q = stay[:-1] * choice.within[history] * self.mixtures[:, choice.genre[history]]
        q = q + follow
        log_likelihood = np.log(np.maximum(q, 1e-300)).sum(axis=1)
        if not choice.repeats:
            log_likelihood -= np.log(self._left_over(history)[:, :-1]).sum(axis=1)
        weight = np.exp(log_likelihood - log_likelihood.max())
        return np.asarray(weight / weight.sum())

    def _steps(self, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of staying off the chain [T + 1], the planted part of q [T]."""
        choice = self.world.choice
        stay = np.full(len(history) + 1, 1 - choice.transition)
        stay[0] = 1.0
        follow = np.zeros(len(history))
        hits = choice.successors[history[:-1]] == history[1:, None]
        follow[1:] = choice.transition * (hits * choice.successor_prob).sum(axis=1)
        return stay, follow

    def _left_over(self, history: np.ndarray) -> np.ndarray:
        """Return ``[M, T + 1]``: q of the unseen items before each event and after the last."""
        choice = self.world.choice
        num_events = len(history)
        stay, _ = self._steps(history)
        _, first = np.unique(history, return_index=True)
        within = np.zeros((num_events + 1, self.mixtures.shape[1]))
        # An item seen twice hides its probability once.
        within[first + 1, choice.genre[history[first]]] = choice.within[history[first]]
        hidden = stay[:, None] * np.cumsum(within, axis=0)
        when = np.full(self.world.num_items, num_events + 1)
        when[history[first]] = first
        followed = when[choice.successors[history]] <= np.arange(num_events)[:, None]
        planted = np.zeros(num_events + 1)
        planted[1:] = choice.transition * (followed * choice.successor_prob).sum(axis=1)
        return np.asarray(np.maximum(1.0 - self.mixtures @ hidden.T - planted, 1e-12))


def history_ranker(world: World, *, catalog: Catalog, num_draws: int = 4096) -> Ranker:
    """Return a ranker by the next-item distribution given the history alone.

    Args:
        world: The world that made the log.
        catalog: Bijection between the log's item ids and item_index.
        num_draws: Tastes to average over.

    Raises:
        DataError: The catalogue holds an item that this world never made.
    """
    index, posterior = world_index(world, catalog), Posterior(world, num_draws)

    def rank(
        user_ids: list[str], requests: list[Request], k: int, candidates: Candidates
    ) -> Ranking:
        p = posterior.probabilities([index[request.history] for request in requests])
        return Ranking.from_scores(torch.from_numpy(p[:, index]), k, candidates)

    return rank
