"""Principal components that parallel codes keep."""

import pytest
import torch

from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.kinds import QUANTIZERS
from itemese.codebooks.subspaces import SubspaceQuantizer
from itemese.core.errors import DataError

VARIANCES = torch.tensor([9.0, 0.04, 4.0, 1.0, 0.01, 0.02])


def vectors() -> torch.Tensor:
    """Six numbers of known variances, turned."""
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    return 5 + torch.randn(600, 6, generator=generator) * VARIANCES.sqrt() @ turned


def fitted(kind: str = "parallel_kmeans", **settings: object) -> SubspaceQuantizer:
    values = {"kind": kind, "num_codebooks": 1, "codebook_size": 600, **settings}
    quantizer = QUANTIZERS[kind](CodebooksConfig.parse(values))
    quantizer.fit(vectors(), seed=0)
    assert isinstance(quantizer, SubspaceQuantizer)
    return quantizer


def test_what_is_cut_off_is_what_varies_least() -> None:
    """With a code an item nothing is lost but the components that are not kept."""
    points = vectors()
    scatter = torch.linalg.eigvalsh((points - points.mean(dim=0)).T.cov(correction=0)).flip(0)
    for kept in range(1, 7):
        quantizer = fitted(principal=kept)
        assert quantizer.rotation.shape == (kept, 6)
        assert quantizer.centres.shape[2] == kept
        error = (points - quantizer.decode(quantizer.encode(points))).square().sum(dim=1).mean()
        assert float(error) == pytest.approx(float(scatter[kept:].sum()), abs=1e-4)


@pytest.mark.parametrize("kind", ["parallel_kmeans", "product_quantizer"])
def test_codes_see_nothing_of_what_was_cut_off(kind: str) -> None:
    settings = {"num_codebooks": 2, "codebook_size": 8, "principal": 3}
    quantizer, again = fitted(kind, **settings), fitted(kind, **settings)
    assert all(torch.equal(t, again.state()[name]) for name, t in quantizer.state().items())
    points = vectors()
    _, size, directions = torch.linalg.svd(quantizer.rotation)
    torch.testing.assert_close(size[:3], torch.ones(3))
    assert (size[3:] < 1e-5).all()
    cut = torch.eye(6) - directions[:3].T @ directions[:3]
    noise = 30 * torch.randn(600, 6, generator=torch.Generator().manual_seed(1)) @ cut

    def unmoved(by: SubspaceQuantizer) -> float:
        return float((by.encode(points + noise) == by.encode(points)).float().mean())

    assert unmoved(quantizer) > 0.995  # but for rounding on a border
    assert unmoved(fitted(kind, **{**settings, "principal": None})) < 0.9


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"principal": 7}, "`codebooks.principal` must be at most .* 6,.* got 7"),
        ({"principal": 2, "num_codebooks": 3}, "`codebooks.num_codebooks` must be .* 2,.* got 3"),
    ],
)
def test_more_than_there_is_cannot_be_kept(settings: dict[str, object], says: str) -> None:
    with pytest.raises(DataError, match=says):
        fitted(**settings)
