"""k-means against hand-made clusters and a slow assignment."""

import numpy as np
import pytest
import torch

from itemese.codebooks import kmeans as module
from itemese.codebooks.kmeans import assign, kmeans


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(num_blobs: int, each: int, dim: int = 6) -> torch.Tensor:
    rng = np.random.default_rng(5)
    centres = 20 * rng.standard_normal((num_blobs, dim))
    rows = np.repeat(centres, each, axis=0) + 0.1 * rng.standard_normal((num_blobs * each, dim))
    return torch.tensor(rows, dtype=torch.float32)


def test_assign_equals_the_slow_twin_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, centres = (
        torch.randn(50, 5, generator=generator()),
        torch.randn(7, 5, generator=generator(1)),
    )
    slow = [[float(((v - c) ** 2).sum()) for c in centres] for v in vectors]
    for block in (1, 7 * 9, 2**24):
        monkeypatch.setattr(module, "_SCORES_AT_ONCE", block)
        nearest, distance = assign(vectors, centres)
        assert nearest.tolist() == [int(np.argmin(row)) for row in slow]
        assert distance.tolist() == pytest.approx([min(row) for row in slow], rel=1e-4)


def test_finds_separate_blobs_and_their_means() -> None:
    vectors = blobs(8, 30)
    for seed in range(5):
        centres = kmeans(vectors, 8, generator=generator(seed), rounds=50)
        nearest, _ = assign(vectors, centres)
        groups = nearest.view(8, 30)
        assert (groups == groups[:, :1]).all()
        assert len(torch.unique(groups[:, 0])) == 8
        means = vectors.view(8, 30, -1).mean(dim=1)
        torch.testing.assert_close(centres[groups[:, 0]], means, atol=1e-4, rtol=1e-4)


def test_as_many_centres_as_distinct_vectors_leave_no_error() -> None:
    vectors = torch.randn(40, 3, generator=generator())
    centres = kmeans(vectors, 40, generator=generator(), rounds=50)
    assert float(assign(vectors, centres)[1].max()) < 1e-6


def test_spare_centres_serve_nobody_and_are_finite() -> None:
    vectors = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).repeat(6, 1)
    centres = kmeans(vectors, 5, generator=generator(), rounds=10)
    nearest, distance = assign(vectors, centres)
    assert torch.isfinite(centres).all()
    assert len(torch.unique(nearest)) == 2
    assert float(distance.max()) == 0


def test_never_worse_than_the_origin() -> None:
    for seed in range(10):
        vectors = torch.randn(60, 8, generator=generator(seed))
        centres = kmeans(vectors, 4, generator=generator(seed), rounds=1)
        assert float(assign(vectors, centres)[1].mean()) <= float(vectors.square().sum(1).mean())


def test_idle_centre_moves_to_the_vector_worst_served() -> None:
    vectors = torch.tensor([[0.0], [1.0], [9.0]])
    centres = torch.tensor([[0.5], [100.0]])
    nearest, distance = assign(vectors, centres)
    moved = module._averaged(vectors, centres, nearest, distance)
    assert moved.flatten().tolist() == pytest.approx([10 / 3, 9.0])


def test_nearly_orthogonal_vectors_use_codes_evenly() -> None:
    # Started by distance, one centre gathers most of these and the others stay single vectors.
    vectors = torch.randn(1000, 200, generator=generator())
    centres = kmeans(vectors, 50, generator=generator(), rounds=25)
    count = torch.bincount(assign(vectors, centres)[0], minlength=50)
    assert int(count.max()) < 100
    assert int((count > 1).sum()) == 50


def test_seeds_spread_over_far_groups() -> None:
    # 60 vectors lie together and 4 far away: a uniform draw of 2 would mostly miss those.
    vectors = torch.randn(64, 2, generator=generator())
    vectors[:4] += 1000
    for seed in range(10):
        assert float(module._spread(vectors, 2, generator(seed)).max()) > 500
