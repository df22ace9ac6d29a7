"""What every quantizer promises; each kind of the config is run through it.

Where a promise differs by layout the test says so: a balanced tree gives every item of its own
catalogue a leaf, an autoencoder reconstructs only what it learnt, parallel codes have no order.
"""

from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.codebooks.base import Quantizer
from itemese.codebooks.config import CodebooksConfig, QuantizerKind
from itemese.codebooks.kinds import QUANTIZERS
from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, DataError

KINDS = get_args(QuantizerKind)
SMALL_VAE = {"steps": 120, "hidden_dim": 32, "latent_dim": 6}


def planted(num_items: int = 400, dim: int = 12, seed: int = 0) -> torch.Tensor:
    """Vectors in 20 groups, so that codes have something to find."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((20, dim))
    rows = centres[rng.integers(0, 20, num_items)] + rng.standard_normal((num_items, dim))
    return torch.tensor(rows, dtype=torch.float32)


def make(kind: str, **changes: object) -> Quantizer:
    values = {"kind": kind, "num_codebooks": 3, "codebook_size": 8, **changes}
    if kind == "rq_vae":
        values["rq_vae"] = SMALL_VAE | dict(changes.get("rq_vae", {}))  # type: ignore[call-overload]
    return QUANTIZERS[kind](CodebooksConfig.parse(values))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@cache
def fitted_once(kind: str) -> Quantizer:
    quantizer = make(kind)
    quantizer.fit(planted(), seed=3)
    return quantizer


@pytest.fixture
def fitted(kind: str) -> Quantizer:
    return fitted_once(kind)


def error(quantizer: Quantizer, vectors: torch.Tensor, codes: torch.Tensor) -> float:
    return float((vectors - quantizer.decode(codes)).square().sum(dim=1).mean())


def test_every_kind_has_a_quantizer() -> None:
    assert len(KINDS) > 0
    assert set(KINDS) == set(QUANTIZERS)


def test_codes_are_in_range_and_typed(fitted: Quantizer) -> None:
    codes = fitted.codes(planted())
    assert codes.codes.shape == (400, 3)
    assert codes.codes.dtype == np.int32
    assert codes.codes.min() >= 0
    assert (codes.codes < np.array(codes.code_sizes)).all()
    assert codes.code_sizes == (8, 8, 8)


def test_collision_rate_is_the_share_of_items_with_a_twin(fitted: Quantizer) -> None:
    codes = fitted.codes(planted())
    rows = [tuple(row) for row in codes.codes.tolist()]
    assert codes.collision_rate == pytest.approx(np.mean([rows.count(row) > 1 for row in rows]))
    assert (codes.collision_rate == 0) == (codes.layout == "tree")


def test_decoding_beats_the_mean_vector(fitted: Quantizer) -> None:
    vectors = planted()
    around_mean = float((vectors - vectors.mean(dim=0)).square().sum(dim=1).mean())
    assert error(fitted, vectors, fitted.encode(vectors)) < 0.3 * around_mean


def test_each_further_code_lowers_the_error(fitted: Quantizer) -> None:
    vectors = planted()
    codes = fitted.encode(vectors)
    errors = [error(fitted, vectors, codes[:, :length]) for length in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < errors[0]


@pytest.mark.parametrize("kind", ["residual_kmeans"])
def test_more_codebooks_never_raise_the_training_error(kind: str) -> None:
    vectors = planted()
    errors = []
    for number in range(1, 6):
        quantizer = make(kind, num_codebooks=number)
        quantizer.fit(vectors, seed=3)
        errors.append(error(quantizer, vectors, quantizer.encode(vectors)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0]


def test_the_first_codebook_is_used(fitted: Quantizer) -> None:
    assert len(np.unique(fitted.codes(planted()).codes[:, 0])) == 8


def test_distances_to_next_codes_are_those_of_their_decodings(fitted: Quantizer) -> None:
    vectors = planted()[:5]
    prefixes = fitted.encode(vectors)[:, :2]
    found = fitted.code_distances(vectors, prefixes)
    for item, code in ((0, 0), (3, 5), (4, 7)):
        whole = torch.tensor([[*prefixes[item].tolist(), code]])
        apart = (fitted.prepare(vectors[item : item + 1]) - fitted.decode(whole)).square().sum()
        assert float(found[item, code]) == pytest.approx(float(apart), rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), cut=st.integers(1, 399), seed=st.integers(0, 99))
def test_a_catalogue_in_blocks_is_the_catalogue(kind: str, cut: int, seed: int) -> None:
    quantizer, vectors = fitted_once(kind), planted(seed=seed)
    parts = [quantizer.encode(part) for part in (vectors[:cut], vectors[cut:])]
    assert torch.equal(torch.cat(parts), quantizer.encode(vectors))


def test_permuting_items_permutes_codes(fitted: Quantizer) -> None:
    vectors = planted()
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(1))
    assert torch.equal(fitted.encode(vectors[order]), fitted.encode(vectors)[order])


def test_each_row_is_encoded_by_itself(fitted: Quantizer) -> None:
    vectors = planted()[:20]
    alone = torch.cat([fitted.encode(vector[None]) for vector in vectors])
    assert torch.equal(alone, fitted.encode(vectors))


def test_same_seed_same_codebook_other_seed_another(kind: str) -> None:
    states = []
    for seed in (3, 3, 4):
        quantizer = make(kind)
        quantizer.fit(planted(), seed=seed)
        states.append(quantizer.state())
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_survives_saving(fitted: Quantizer, tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    fitted.save(folder)
    loaded = type(fitted).load(folder, fitted.config)
    fresh = planted(seed=9)
    assert torch.equal(loaded.encode(fresh), fitted.encode(fresh))
    assert (loaded.codes(planted()).codes == fitted.codes(planted()).codes).all()
    for name, tensor in fitted.state().items():
        assert torch.equal(loaded.state()[name], tensor)
    codes = fitted.encode(fresh)
    assert torch.equal(loaded.decode(codes), fitted.decode(codes))


def test_codebook_of_another_recipe_is_refused(fitted: Quantizer, tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    fitted.save(folder)
    other = fitted.config.model_copy(update={"codebook_size": 16})
    with pytest.raises(ArtifactError, match=r"must be a .* of code sizes"):
        type(fitted).load(folder, other)


def test_codebook_of_another_kind_is_refused(fitted: Quantizer, tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    other = "rq_vae" if fitted.config.kind == "residual_kmeans" else "residual_kmeans"
    fitted.save(folder)
    with pytest.raises(ArtifactError, match=f"must be a {other} of code sizes"):
        QUANTIZERS[other].load(folder, make(other).config)


def test_the_global_generator_is_left_alone(kind: str) -> None:
    torch.manual_seed(5)
    quantizer = make(kind, rq_vae={"steps": 2})
    quantizer.fit(planted(), seed=0)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_fit_on_a_sample_encodes_all(kind: str) -> None:
    quantizer = make(kind, fit_sample=100)
    vectors = planted()
    quantizer.fit(vectors, seed=0)
    codes = quantizer.encode(vectors)
    assert codes.shape == (400, 3)
    around_mean = float((vectors - vectors.mean(dim=0)).square().sum(dim=1).mean())
    assert error(quantizer, vectors, codes) < 0.6 * around_mean


def test_normalize_codes_directions_only(kind: str) -> None:
    vectors = planted()
    lengths = torch.rand(len(vectors), 1, generator=torch.Generator().manual_seed(0)) + 0.5
    quantizer = make(kind, normalize=True)
    quantizer.fit(vectors, seed=0)
    assert torch.equal(quantizer.encode(vectors), quantizer.encode(vectors * lengths.round()))
    assert float(quantizer.prepare(vectors).norm(dim=1).max()) == pytest.approx(1)


def test_duplicate_vectors_share_codes_and_spare_codes_stay_unused(kind: str) -> None:
    four = torch.eye(4).repeat(5, 1)
    quantizer = make(kind, num_codebooks=2, codebook_size=8)
    quantizer.fit(four, seed=0)
    alone = quantizer.encode(four)
    assert (alone[:4] == alone[4:8]).all()
    assert len(torch.unique(alone, dim=0)) == 4
    codes = quantizer.codes(four)
    if quantizer.layout == "tree":  # a leaf an item, equal or not
        assert codes.collision_rate == 0
    else:
        assert codes.collision_rate == 1
        assert (codes.codes[:4] == codes.codes[4:8]).all()
    if kind != "rq_vae":
        assert error(quantizer, four, alone) < 1e-10


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (torch.ones(20, 4), "must differ between items; got 20 equal ones"),
        (torch.eye(7), "at most the number of items, 7; got 8. Set a smaller one"),
        (torch.eye(1), "Semantic IDs need 2 items"),
        (torch.cat([torch.eye(9), torch.full((2, 9), float("nan"))]), "2 rows, first 9"),
        (torch.cat([torch.eye(9), torch.full((1, 9), float("inf"))]), "1 rows, first 9"),
        (torch.ones(20), "dim"),
    ],
)
def test_unusable_vectors_are_refused(kind: str, vectors: torch.Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        make(kind).fit(vectors, seed=0)
