"""What only the RQ-VAE has: revival of codes, and an initialisation that survives loading."""

from pathlib import Path

import numpy as np
import pytest
import torch

from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.rq_vae import RqVae
from itemese.core.artifacts import Folder


def groups(num_items: int = 600, seed: int = 0) -> torch.Tensor:
    """A few tight groups far apart: the first codebook collapses onto them if nothing is done."""
    rng = np.random.default_rng(seed)
    centres = 4 * rng.standard_normal((6, 16))
    rows = centres[rng.integers(0, 6, num_items)] + 0.5 * rng.standard_normal((num_items, 16))
    return torch.tensor(rows, dtype=torch.float32)


def fitted(vectors: torch.Tensor, **options: object) -> RqVae:
    section = {"steps": 120, "hidden_dim": 32, "latent_dim": 8, **options}
    values = {"kind": "rq_vae", "num_codebooks": 2, "codebook_size": 32, "rq_vae": section}
    quantizer = RqVae(CodebooksConfig.parse(values))
    quantizer.fit(vectors, seed=1)
    return quantizer


def use(quantizer: RqVae, vectors: torch.Tensor) -> float:
    return len(np.unique(quantizer.codes(vectors).codes[:, 0])) / 32


def test_reviving_dead_codes_keeps_the_first_codebook_in_use() -> None:
    vectors = groups()
    revived = use(fitted(vectors), vectors)
    left_alone = use(fitted(vectors, dead_code_threshold=0.0), vectors)
    assert revived >= 0.95
    assert left_alone < revived


def test_a_loaded_quantizer_does_not_start_its_codebooks_again(tmp_path: Path) -> None:
    vectors = groups()
    quantizer = fitted(vectors, steps=5)
    folder = Folder.at(tmp_path)
    quantizer.save(folder)
    loaded = RqVae.load(folder, quantizer.config)
    assert loaded.module is not None
    assert quantizer.module is not None
    state = loaded.state()
    assert all(bool(v) for name, v in state.items() if name.endswith("initted"))
    loaded.module.train()
    with torch.no_grad():  # were it not initialised, k-means of other vectors would replace it
        loaded.module.quantizer(loaded.module.latent(groups(seed=7))[None], freeze_codebook=True)
    assert torch.equal(loaded.module.codebooks(), quantizer.module.codebooks())


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"gradient": "rotation"}, "rotation_trick", True),
        ({}, "rotation_trick", False),
        ({"diversity_weight": 0.5}, "codebook_diversity_loss_weight", 0.5),
        ({"commitment_weight": 2.0}, "commitment_weight", 2.0),
    ],
)
def test_options_reach_the_quantizer_that_they_name(options: dict, name: str, value: float) -> None:
    vectors = groups(200)
    plain, other = fitted(vectors, steps=10), fitted(vectors, steps=10, **options)
    assert other.module is not None
    for level in other.module.quantizer.layers:
        assert getattr(level, name) == value
    same = torch.equal(plain.state()["encoder.0.weight"], other.state()["encoder.0.weight"])
    assert same == (not options)
