"""Equal shares: exact for few vectors, near the best for many, a leaf an item in the tree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from itemese.codebooks import balance
from itemese.codebooks.balance import balanced, quotas
from itemese.codebooks.balanced_tree import BalancedTree
from itemese.codebooks.config import CodebooksConfig
from itemese.core.errors import DataError


def problem(num_vectors: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    points, centres = rng.standard_normal((num_vectors, 3)), rng.standard_normal((size, 3))
    apart = ((points[:, None] - centres) ** 2).sum(axis=2)
    distances = torch.tensor(apart, dtype=torch.float32)
    return distances, quotas(torch.bincount(distances.argmin(dim=1), minlength=size), num_vectors)


def best_cost(distances: torch.Tensor, quota: torch.Tensor) -> float:
    """Return the least sum of distances: one column a place."""
    places = np.repeat(np.arange(len(quota)), quota.numpy())
    rows, taken = linear_sum_assignment(distances.numpy()[:, places])
    return float(distances.numpy()[rows, places[taken]].sum())


def test_quotas_by_hand() -> None:
    assert quotas(torch.tensor([1, 6, 3]), 10).tolist() == [3, 4, 3]
    assert quotas(torch.tensor([0, 0, 2]), 2).tolist() == [1, 0, 1]


@settings(max_examples=40, deadline=None)
@given(
    num_vectors=st.integers(1, 60),
    size=st.integers(1, 9),
    seed=st.integers(0, 10**6),
    exact=st.booleans(),
    ties=st.booleans(),
)
def test_each_centre_gets_its_quota_and_few_vectors_the_least_cost(
    num_vectors: int, size: int, seed: int, exact: bool, ties: bool
) -> None:
    distances, quota = problem(num_vectors, size, seed)
    if ties:
        distances = distances.round()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balance, "_EXACT_UP_TO", 512 if exact else 0)
        chosen = balanced(distances, quota)
    assert torch.equal(torch.bincount(chosen, minlength=size), quota)
    if exact:
        cost = float(distances[torch.arange(num_vectors), chosen].sum())
        assert cost == pytest.approx(best_cost(distances, quota), rel=1e-4)


def test_many_vectors_cost_at_most_two_per_cent_more_than_the_least() -> None:
    distances, quota = problem(900, 16, 0)
    chosen = balanced(distances, quota)
    assert torch.equal(torch.bincount(chosen, minlength=16), quota)
    cost = float(distances[torch.arange(900), chosen].sum())
    nearest = float(distances.min(dim=1).values.sum())
    least = best_cost(distances, quota)
    assert nearest < least <= cost <= 1.02 * least


@settings(max_examples=15, deadline=None)
@given(
    num_items=st.integers(6, 120),
    size=st.integers(2, 6),
    seed=st.integers(0, 10**6),
    copies=st.booleans(),
)
def test_siblings_hold_as_many_items_and_each_item_has_a_leaf(
    num_items: int, size: int, seed: int, copies: bool
) -> None:
    depth = next(d for d in range(1, 9) if size**d >= num_items)
    vectors = torch.tensor(np.random.default_rng(seed).standard_normal((num_items, 3))).float()
    if copies:
        vectors[num_items // 2 :] = vectors[: num_items - num_items // 2].clone()
    tree = BalancedTree(
        CodebooksConfig(kind="balanced_tree", num_codebooks=depth, codebook_size=size)
    )
    tree.fit(vectors, seed=seed)
    codes = tree.codes(vectors).codes
    assert len(np.unique(codes, axis=0)) == num_items
    for level in range(depth):
        for prefix in np.unique(codes[:, :level], axis=0):
            below = codes[(codes[:, :level] == prefix).all(axis=1), level]
            counts = np.bincount(below)
            assert counts.max() - counts.min() <= 1
            assert len(counts) == min(size, len(below))
    assert len(tree.child_start) <= 2 + num_items * depth + 1  # no node without an item


def test_a_tree_without_room_is_refused() -> None:
    tree = BalancedTree(CodebooksConfig(kind="balanced_tree", num_codebooks=2, codebook_size=3))
    with pytest.raises(DataError, match=r"number of items, 10, .* got 3 \*\* 2 = 9. Raise either"):
        tree.fit(torch.eye(10), seed=0)


def test_a_tree_whose_last_code_says_nothing_is_refused() -> None:
    def fit(num_items: int) -> BalancedTree:
        config = CodebooksConfig(kind="balanced_tree", num_codebooks=3, codebook_size=3)
        tree = BalancedTree(config)
        tree.fit(torch.eye(num_items), seed=0)
        return tree

    with pytest.raises(DataError, match=r"below 3 for 9 items .* got 3, .* Lower it"):
        fit(9)
    assert len(np.unique(fit(10).codes(torch.eye(10)).codes[:, 2])) > 1


def test_leaves_of_the_fitted_items_decode_to_them() -> None:
    vectors = torch.tensor(np.random.default_rng(0).standard_normal((30, 4))).float()
    tree = BalancedTree(CodebooksConfig(kind="balanced_tree", num_codebooks=3, codebook_size=4))
    tree.fit(vectors, seed=0)
    leaves = torch.from_numpy(tree.codes(vectors).codes)
    assert torch.allclose(tree.decode(leaves), vectors)
    coarse = (vectors - tree.decode(leaves[:, :1])).square().sum()
    assert 0 < float(coarse) < float((vectors - vectors.mean(dim=0)).square().sum())


def test_a_clustered_last_code_says_the_same_in_every_node() -> None:
    draw = torch.Generator().manual_seed(0)
    groups = 50 * torch.randn(6, 1, 8, generator=draw)
    places = 5 * torch.randn(1, 6, 8, generator=draw)
    vectors = (groups + places + 0.01 * torch.randn(6, 6, 8, generator=draw)).view(36, 8)
    order = torch.randperm(36, generator=draw)
    agree = {}
    for way in ("numbered", "clustered"):
        config = CodebooksConfig(
            kind="balanced_tree",
            num_codebooks=2,
            codebook_size=6,
            balanced_tree={"last_code": way},
        )
        tree = BalancedTree(config)
        tree.fit(vectors[order], seed=1)
        codes = torch.from_numpy(tree.codes(vectors[order]).codes)[order.argsort()]
        assert len(torch.unique(codes, dim=0)) == 36
        torch.testing.assert_close(tree.decode(codes), vectors, atol=1e-4, rtol=1e-4)
        last = codes[:, 1].view(6, 6)  # [group, place]
        agree[way] = float((last == last.mode(dim=0).values).float().mean())
    assert agree["clustered"] == 1.0
    assert agree["numbered"] < 0.7


def test_a_numbered_last_code_is_drawn_or_follows_item_ids() -> None:
    """Item ids rise with time in some logs; a drawn number must not depend on them."""
    vectors = torch.randn(144, 4, generator=torch.Generator().manual_seed(5))
    id_rank = torch.randperm(144, generator=torch.Generator().manual_seed(6))
    ranks = {}
    for way in ("drawn", "by_id"):
        settings = {"num_codebooks": 2, "codebook_size": 12, "numbering": way}
        tree = BalancedTree(CodebooksConfig(kind="balanced_tree", **settings))
        tree.id_rank = id_rank
        tree.fit(vectors, seed=1)
        codes = tree.codes(vectors).codes
        again = BalancedTree(CodebooksConfig(kind="balanced_tree", **settings))
        again.id_rank = id_rank
        again.fit(vectors, seed=1)
        assert (again.codes(vectors).codes == codes).all(), "one seed, one numbering"
        ranks[way] = float(np.corrcoef(id_rank, codes[:, 1])[0, 1])
        in_order = float(np.corrcoef(np.arange(144), codes[:, 1])[0, 1])
        assert abs(in_order) < 0.3, "the order of rows enters nowhere"
    assert ranks["by_id"] > 0.7
    assert abs(ranks["drawn"]) < 0.3


def test_a_clustered_last_code_may_leave_gaps() -> None:
    vectors = torch.randn(20, 4, generator=torch.Generator().manual_seed(3))
    config = CodebooksConfig(
        kind="balanced_tree",
        num_codebooks=2,
        codebook_size=8,
        balanced_tree={"last_code": "clustered"},
    )
    tree = BalancedTree(config)
    tree.fit(vectors, seed=1)
    codes = torch.from_numpy(tree.codes(vectors).codes)
    assert codes[:, 1].max() > 2  # nodes of three items at most, numbered 0..2 otherwise
    torch.testing.assert_close(tree.decode(codes), vectors)
