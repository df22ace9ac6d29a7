"""Ways to give items distinct codes, each against a slow twin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.codebooks.base import Quantizer, collision_rate
from itemese.codebooks.collisions import reassigned, with_suffix
from itemese.codebooks.config import CodebooksConfig
from itemese.core.errors import DataError
from itemese.core.vectors import Codes


def make(rows: np.ndarray, size: int) -> Codes:
    return Codes(rows.astype(np.int32), (size,) * rows.shape[1], "residual", collision_rate(rows))


def test_by_hand() -> None:
    ids = with_suffix(make(np.array([[1, 2], [0, 0], [1, 2], [1, 2]]), 3), np.arange(4))
    assert ids.codes.tolist() == [[1, 2, 0], [0, 0, 0], [1, 2, 1], [1, 2, 2]]
    assert ids.code_sizes == (3, 3, 3)


@settings(max_examples=50, deadline=None)
@given(num_items=st.integers(1, 300), width=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_counts_each_tuple_in_catalogue_order(num_items: int, width: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 3, (num_items, width))
    ids = with_suffix(make(rows, 3), np.arange(num_items))
    ids.validate(num_items)
    seen: dict[tuple, int] = {}
    for row, got in zip(rows.tolist(), ids.codes.tolist(), strict=True):
        assert got == [*row, seen.get(tuple(row), 0)]
        seen[tuple(row)] = got[-1] + 1
    assert ids.code_sizes[-1] == max(seen.values())
    repeated = sum(count for count in seen.values() if count > 1)
    assert collision_rate(rows) == repeated / num_items


def test_shared_ids_are_numbered_by_rank_and_may_not_be_predicted() -> None:
    rows = np.array([[1, 2], [0, 0], [1, 2], [1, 2], [1, 2]])
    ids = with_suffix(make(rows, 3), np.array([2, 1, 0, 3, 4]), predicted=False)
    assert ids.codes[:, 2].tolist() == [1, 0, 0, 2, 3]
    assert ids.num_predicted == 2
    assert with_suffix(make(rows, 3), np.arange(5)).num_predicted is None


class Grid(Quantizer):
    """Codes are coordinates: vector ``[a, b, ...]`` is decoded from the codes a, b, ..."""

    layout = "residual"

    def fit(self, vectors: torch.Tensor, *, seed: int) -> None: ...
    def encode(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.round().long()

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        # What a prefix leaves open stands in the middle of the codebook.
        width = self.config.num_codebooks
        whole = torch.full((len(codes), width), (self.config.codebook_size - 1) / 2)
        whole[:, : codes.shape[1]] = codes.float()
        return whole

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, state: dict[str, torch.Tensor]) -> None: ...


def grid(width: int, size: int) -> Grid:
    return Grid(CodebooksConfig(num_codebooks=width, codebook_size=size))


def test_reassigning_by_hand() -> None:
    # All five are nearest to (1, 1); below code 1 there are 3 places, so two go one level up.
    vectors = torch.tensor([[1.0, 1.3], [1.0, 1.0], [1.0, 1.1], [1.4, 1.45], [0.6, 1.4]])
    quantizer = grid(2, 3)
    ids = reassigned(quantizer.codes(vectors), quantizer, vectors)
    ids.validate(5)
    assert ids.codes.tolist() == [[1, 0], [1, 1], [1, 2], [2, 1], [0, 1]]
    assert ids.code_sizes == (3, 3)


def slow_reassigned(rows: list[tuple], quantizer: Grid, vectors: torch.Tensor) -> list[tuple]:
    """Search over every tuple of codes, level by level, for each item in turn."""
    size, width = quantizer.config.codebook_size, quantizer.config.num_codebooks
    every = [tuple(t) for t in np.ndindex(*(size,) * width)]

    def apart(item: int, prefix: tuple) -> float:
        decoded = quantizer.decode(torch.tensor([prefix]).view(1, -1))
        return float((vectors[item : item + 1] - decoded).square().sum())

    result, taken, kept = list(rows), set(rows), set()
    sharing = [i for i, row in enumerate(rows) if rows.count(row) > 1]
    for item in sorted(sharing, key=lambda i: (apart(i, rows[i]), i)):
        if rows[item] not in kept:
            kept.add(rows[item])
            continue
        free = [t for t in every if t not in taken]
        prefix = rows[item][:-1]
        while not [t for t in free if t[: len(prefix)] == prefix]:
            prefix = prefix[:-1]
        while len(prefix) < width:
            here = {t[: len(prefix) + 1] for t in free if t[: len(prefix)] == prefix}
            prefix = min(here, key=lambda p: (apart(item, p), p))
        result[item] = prefix
        taken.add(prefix)
    return result


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 3),
    size=st.integers(2, 4),
    share=st.floats(0.1, 1),
    seed=st.integers(0, 10**6),
)
def test_reassigning_against_a_search_over_all_tuples(
    width: int, size: int, share: float, seed: int
) -> None:
    num_items = max(1, int(share * size**width))
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, size, width)
    scatter = centre + 0.8 * rng.standard_normal((num_items, width))
    vectors = torch.tensor(scatter.clip(0, size - 1)).float()
    quantizer = grid(width, size)
    codes = quantizer.codes(vectors)
    ids = reassigned(codes, quantizer, vectors)
    ids.validate(num_items)
    rows = [tuple(row) for row in codes.codes.tolist()]
    assert [tuple(r) for r in ids.codes.tolist()] == slow_reassigned(rows, quantizer, vectors)


def test_more_items_than_tuples_cannot_be_reassigned() -> None:
    quantizer, vectors = grid(1, 2), torch.zeros(3, 1)
    with pytest.raises(DataError, match=r"each of 3 items to reassign them; got 2\. Raise"):
        reassigned(quantizer.codes(vectors), quantizer, vectors)
