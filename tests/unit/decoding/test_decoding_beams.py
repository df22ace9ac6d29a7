"""The loop against a slow search over a dictionary, for random catalogues and a stub of a model."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from itemese.core.ranking import Candidates
from itemese.decoding.beams import search
from itemese.decoding.code_model import CodeModel, CodeNormalisation
from itemese.decoding.exact import score_items
from itemese.decoding.tree_mask import TreeMask
from itemese.decoding.trie import PrefixTrie

DIM = 6


class SumOfAncestors:
    """Beams whose state is a nonlinear function of the tokens on their path, and of no others."""

    def __init__(self, prompts: Tensor) -> None:
        self.state = prompts
        self._written: list[Tensor] = []

    def grow(self, vectors: Tensor, ancestors: Tensor) -> Tensor:
        assert ancestors.shape == (*vectors.shape[:2], len(self._written))
        path = self.state[:, None] * 2
        for step, written in enumerate(self._written):
            index = ancestors[:, :, step, None].expand(-1, -1, DIM)
            path = path + written.gather(1, index) * (step + 1)
        path = path + vectors * (len(self._written) + 1)
        self._written.append(vectors)
        return torch.sin(path)

    def restart(self) -> None:
        self._written.clear()


class RandomTokens(CodeModel):
    """Logits and vectors from random tables, one a level."""

    def __init__(
        self, tree: PrefixTrie, codes: Tensor, seed: int, normalisation: CodeNormalisation
    ) -> None:
        super().__init__(codes, tree, opening=0, code_normalisation=normalisation)
        sizes = tree.code_sizes
        generator = torch.Generator().manual_seed(seed)
        self.heads = [torch.randn(size, DIM, generator=generator) * 2 for size in sizes]
        self.inputs = [torch.randn(size, DIM, generator=generator) for size in sizes]

    def code_logits(self, states: Tensor, level: int) -> Tensor:
        return states @ self.heads[level].T

    def code_vectors(self, codes: Tensor, level: int) -> Tensor:
        return self.inputs[level][codes]


def slow_scores(codes: list[list[int]], prompt: Tensor, tokens: RandomTokens) -> dict[tuple, float]:
    """Return the log-probability of every prefix, one at a time from a dictionary."""
    children: dict[tuple, set[int]] = {}
    for row in codes:
        for place, code in enumerate(row):
            children.setdefault(tuple(row[:place]), set()).add(code)
    scores: dict[tuple, float] = {(): 0.0}
    for prefix in sorted(children, key=len):
        if prefix:
            path = prompt * 2
            for step, code in enumerate(prefix):
                path = path + tokens.inputs[step][code] * (step + 1)
            state = torch.sin(path)
        else:
            state = prompt
        logits = (tokens.heads[len(prefix)] @ state).tolist()
        level = range(len(logits))
        rivals = children[prefix] if tokens.code_normalisation == "legal" else level
        norm = math.log(sum(math.exp(logits[code]) for code in rivals))
        for code in children[prefix]:
            scores[(*prefix, code)] = scores[prefix] + logits[code] - norm
    return scores


def slow_beams(
    scores: dict[tuple, float], left: set[tuple], depth: int, width: int
) -> list[tuple[tuple, float]]:
    """Return the beams of a plain search over the prefixes that lead to an item left."""
    open_prefixes = {row[:length] for row in left for length in range(depth + 1)}
    beams: list[tuple] = [()]
    for length in range(1, depth + 1):
        grown = [p for p in open_prefixes if len(p) == length and p[:-1] in set(beams)]
        beams = sorted(grown, key=lambda p: -scores[p])[:width]
    return [(beam, scores[beam]) for beam in beams]


@settings(max_examples=120, deadline=None)
@given(
    num_items=st.one_of(st.integers(1, 8), st.integers(9, 120)),
    depth=st.integers(1, 6),
    size=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    width=st.integers(1, 20),
    k=st.sampled_from([1, 3, 150]),
    share=st.sampled_from([None, 0.0, 0.1, 0.7]),
    normalisation=st.sampled_from(["legal", "level"]),
)
def test_equals_a_slow_search_over_a_dictionary(
    num_items: int,
    depth: int,
    size: int,
    seed: int,
    width: int,
    k: int,
    share: float | None,
    normalisation: CodeNormalisation,
) -> None:
    rng = np.random.default_rng(seed)
    sizes = tuple(int(s) for s in rng.integers(1, size + 1, depth))
    rows = rng.permutation(np.unique(rng.integers(0, sizes, (num_items, depth)), axis=0)).tolist()
    prompts = torch.tensor(rng.normal(size=(2, DIM)), dtype=torch.float32)
    tree = PrefixTrie.from_codes(torch.tensor(rows), sizes)
    starts = 1 + torch.tensor((0, *sizes[:-1])).cumsum(0)
    tokens = RandomTokens(tree, torch.tensor(rows) + starts, seed, normalisation)
    allowed = None if share is None else torch.tensor(rng.random(len(rows)) < share)
    exclude = torch.tensor(rng.integers(-1, len(rows), (2, 3)))
    ranking = search(
        SumOfAncestors(prompts),
        tokens,
        k=k,
        beam_width=width,
        candidates=Candidates(exclude, allowed),
    )
    every = torch.arange(len(rows)).expand(2, -1)
    exact = score_items(SumOfAncestors(prompts), tokens, every)
    some = torch.tensor(rng.integers(0, len(rows), (2, 4)))
    found = score_items(SumOfAncestors(prompts), tokens, some)
    torch.testing.assert_close(found, exact.gather(1, some), atol=1e-4, rtol=1e-4)
    for row in range(2):
        scores = slow_scores(rows, prompts[row], tokens)
        all_scores = torch.tensor([scores[tuple(codes)] for codes in rows])
        torch.testing.assert_close(exact[row], all_scores, atol=1e-4, rtol=1e-4)
        hidden = set(exclude[row].tolist())
        if allowed is not None:
            hidden |= set((~allowed).nonzero().flatten().tolist())
        left = {tuple(codes) for item, codes in enumerate(rows) if item not in hidden}
        expected = slow_beams(scores, left, depth, max(width, k))[:k]
        items = ranking.item_index[row].tolist()
        found = [item for item in items if item >= 0]
        assert [tuple(rows[item]) for item in found] == [beam for beam, _ in expected]
        assert len(set(found)) == len(found)
        assert len(found) == min(k, len(left))  # no beam died on hidden items
        assert items[len(found) :] == [-1] * (k - len(found))
        values = torch.tensor([value for _, value in expected])
        torch.testing.assert_close(ranking.score[row, : len(found)], values, atol=1e-4, rtol=1e-4)
        assert (ranking.score[row, len(found) :] == float("-inf")).all()


def test_a_tree_mask_by_hand() -> None:
    mask = TreeMask(1, torch.device("cpu"))
    assert mask.grow(torch.zeros(1, 2, 0, dtype=torch.long)).int().tolist() == [[[1, 0], [0, 1]]]
    grown = mask.grow(torch.tensor([[[1], [1], [0]]])).int().tolist()
    assert grown == [[[0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1]]]
    assert mask.num_slots == 5
    mask.restart(keep=1)
    assert mask.sizes == [2]
