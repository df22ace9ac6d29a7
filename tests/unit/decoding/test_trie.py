"""The CSR trie against a trie of nested dicts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.core.errors import DataError
from itemese.decoding.trie import PrefixTrie


def random_codes(num_items: int, depth: int, size: int, seed: int) -> tuple[torch.Tensor, tuple]:
    """Distinct rows in random order, sizes that differ by level."""
    rng = np.random.default_rng(seed)
    sizes = tuple(int(s) for s in rng.integers(1, size + 1, depth))
    rows = np.unique(rng.integers(0, sizes, (num_items, depth)), axis=0)
    return torch.tensor(rng.permutation(rows)), sizes


def dict_trie(codes: torch.Tensor) -> dict[tuple, list[int]]:
    """Prefix -> sorted next codes; the slow, obvious twin."""
    children: dict[tuple, set[int]] = {}
    for row in codes.tolist():
        for place, code in enumerate(row):
            children.setdefault(tuple(row[:place]), set()).add(code)
    return {prefix: sorted(codes) for prefix, codes in children.items()}


def prefixes_of(trie: PrefixTrie) -> list[tuple]:
    """Walk from the root; return each node's prefix by node number."""
    prefixes: list[tuple] = [()] * trie.num_nodes
    for node in range(trie.num_nodes):
        for child in range(int(trie.child_start[node]), int(trie.child_start[node + 1])):
            prefixes[child] = (*prefixes[node], int(trie.code[child]))
    return prefixes


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.one_of(st.integers(1, 60), st.integers(60, 10_000)),
    depth=st.integers(1, 6),
    size=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_equals_dict_trie(num_items: int, depth: int, size: int, seed: int) -> None:
    codes, sizes = random_codes(num_items, depth, size, seed)
    trie = PrefixTrie.from_codes(codes, sizes)
    slow = dict_trie(codes)
    prefixes = prefixes_of(trie)
    assert trie.num_nodes == len(slow) + len(codes)
    assert len(set(prefixes)) == trie.num_nodes
    for node, prefix in enumerate(prefixes):
        children = trie.code[trie.child_start[node] : trie.child_start[node + 1]].tolist()
        assert children == slow.get(prefix, [])
        assert trie.depth_start[len(prefix)] <= node < trie.depth_start[len(prefix) + 1]
        item = int(trie.item[node])
        assert (item >= 0) == (len(prefix) == depth)
        if item >= 0:
            assert tuple(codes[item].tolist()) == prefix
    assert sorted(trie.items_of.tolist()) == list(range(len(codes)))
    assert trie.item[trie.depth_start[depth] :].tolist() == trie.items_of.tolist()
    for level in range(depth):
        most = max(len(c) for p, c in slow.items() if len(p) == level)
        assert trie.most_children[level] == most
    assert trie.most_children[depth] == 0


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.integers(1, 300),
    depth=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
)
def test_allowed_nodes_are_prefixes_of_allowed_items(
    num_items: int, depth: int, seed: int, share: float
) -> None:
    codes, sizes = random_codes(num_items, depth, 6, seed)
    trie = PrefixTrie.from_codes(codes, sizes)
    masks = torch.tensor(np.random.default_rng(seed).random((3, len(codes))) < share)
    result = trie.allowed(masks)
    prefixes = prefixes_of(trie)
    for mask, nodes in zip(masks, result, strict=True):
        rows = [tuple(row) for row in codes[mask].tolist()]
        open_prefixes = {row[:length] for row in rows for length in range(depth + 1)}
        assert nodes.tolist() == [p in open_prefixes for p in prefixes]
        assert torch.equal(trie.allowed(mask), nodes)


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.integers(1, 300),
    depth=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    share=st.sampled_from([None, 0.0, 0.02, 0.5, 1.0]),
    num_hidden=st.sampled_from([None, 1, 40]),
)
def test_open_nodes_are_those_above_an_item_left(
    num_items: int, depth: int, seed: int, share: float | None, num_hidden: int | None
) -> None:
    codes, sizes = random_codes(num_items, depth, 6, seed)
    trie = PrefixTrie.from_codes(codes, sizes)
    rng = np.random.default_rng(seed)
    allowed = None if share is None else torch.tensor(rng.random(len(codes)) < share)
    # Twins and padding among the hidden items; hidden items that are not allowed anyway.
    hidden = None
    if num_hidden is not None:
        hidden = torch.tensor(rng.integers(-1, len(codes), (3, num_hidden)))
    open_nodes = trie.open_nodes(allowed, hidden)
    if open_nodes is None:
        assert share is None
        assert num_hidden is None
        return
    left = torch.ones(3, len(codes), dtype=torch.bool)
    if allowed is not None:
        left &= allowed
    if hidden is not None:
        for row, items in enumerate(hidden.tolist()):
            left[row, [i for i in items if i >= 0]] = False
    nodes = torch.arange(-1, trie.num_nodes).expand(3, -1)
    below = open_nodes.below(nodes)
    assert not below[:, 0].any()
    assert torch.equal(below[:, 1:], trie.allowed(left))


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.one_of(st.integers(1, 60), st.integers(1000, 3000)),
    depth=st.integers(1, 6),
    size=st.integers(1, 20),
    seed=st.integers(0, 10**6),
)
def test_children_are_those_of_the_dict(num_items: int, depth: int, size: int, seed: int) -> None:
    codes, sizes = random_codes(num_items, depth, size, seed)
    trie = PrefixTrie.from_codes(codes, sizes)
    slow, prefixes = dict_trie(codes), prefixes_of(trie)
    assert len(trie.dense) >= 1 or 2 * len(slow[()]) < sizes[0]
    for level in range(depth):
        first, last = trie.depth_start[level], trie.depth_start[level + 1]
        assert trie.num_nodes_at(level) == last - first
        nodes = torch.arange(first, last)
        child, code = trie.children(nodes[None], level)
        for row, node in enumerate(nodes.tolist()):
            real = child[0, row] >= 0
            assert code[0, row][real].tolist() == slow[prefixes[node]]
            found = [prefixes[c] for c in child[0, row][real].tolist()]
            assert found == [(*prefixes[node], c) for c in slow[prefixes[node]]]
        if level:
            assert (trie.children(torch.tensor([[-1, first]]), level)[0][0, 0] == -1).all()


def test_ten_thousand_items_by_hand_checked_counts() -> None:
    # Each of 10 x 10 x 10 x 10 tuples once: the full tree.
    grid = torch.cartesian_prod(*[torch.arange(10)] * 4)
    codes = grid[torch.randperm(10_000, generator=torch.Generator().manual_seed(1))]
    trie = PrefixTrie.from_codes(codes.int(), (10, 10, 10, 10))
    assert trie.depth_start == (0, 1, 11, 111, 1111, 11111)
    assert torch.equal(codes[trie.items_of], grid)
    assert trie.leaf_start[1:11].tolist() == list(range(0, 10_000, 1000))
    assert trie.leaf_stop[0] == 10_000
    assert trie.to("cpu") is trie
    assert [table.shape for table in trie.dense] == [(1, 10), (10, 10), (100, 10), (1000, 10)]


def test_small_trie_by_hand() -> None:
    trie = PrefixTrie.from_codes(torch.tensor([[2, 1], [0, 1], [2, 0]]), (3, 2))
    assert trie.code.tolist() == [-1, 0, 2, 1, 0, 1]
    assert trie.child_start.tolist() == [1, 3, 4, 6, 6, 6, 6]
    assert trie.item.tolist() == [-1, -1, -1, 1, 2, 0]
    assert trie.code_length == 2


@pytest.mark.parametrize(
    ("codes", "sizes", "says"),
    [
        ([[0, 1], [0, 1]], (2, 2), "unique"),
        ([[0, 2]], (2, 2), "below"),
        ([[0, -1]], (2, 2), "below"),
        ([[0, 1]], (2,), "num_items"),
    ],
)
def test_bad_codes_are_refused(codes: list, sizes: tuple, says: str) -> None:
    with pytest.raises(DataError, match=says):
        PrefixTrie.from_codes(torch.tensor(codes), sizes)


def test_no_items_and_foreign_mask_are_refused() -> None:
    with pytest.raises(DataError, match="num_items"):
        PrefixTrie.from_codes(torch.empty(0, 2, dtype=torch.long), (2, 2))
    trie = PrefixTrie.from_codes(torch.tensor([[0], [1]]), (2,))
    with pytest.raises(DataError, match="item_mask"):
        trie.allowed(torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match="allowed"):
        trie.open_nodes(torch.ones(3, dtype=torch.bool), None)
