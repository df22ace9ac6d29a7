"""RQ-VAE: residual codebooks on the latents of an autoencoder that is trained with them.

As TIGER names items (S. Rajput et al., arXiv 2305.05065v3, section 3.1), but with codebooks that
are moving averages, start from k-means, and revive unused codes; on item text that last point
decides whether the first codebook collapses. The quantizer in training is `ResidualVQ` of
vector-quantize-pytorch.

Shapes: N vectors, D vector size, Z latent size, C number of codebooks, K codebook size.
"""

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from itemese.codebooks.base import Quantizer, fitting_sample, require_usable
from itemese.codebooks.config import CodebooksConfig, RqVaeConfig
from itemese.codebooks.kmeans import residual_codes
from itemese.codebooks.rows import Rows
from itemese.core.randomness import derive_seed, torch_generator

_INIT_ROUNDS = 10
"""Rounds of the k-means that the codebooks start from."""

_INIT_SHARE = 32
"""They start from at most so many latents a code."""


class RqVae(Quantizer):
    """Codes from coarse to fine; a vector is nearly the decoding of the sum of its codes.

    Attributes:
        module: The autoencoder and its codebooks; None before `fit`.
    """

    layout: ClassVar[str] = "residual"

    def __init__(self, config: CodebooksConfig) -> None:
        super().__init__(config)
        self.module: _Autoencoder | None = None

    def fit(self, vectors: Rows, *, seed: int) -> None:
        """Train autoencoder and codebooks together; see `Quantizer.fit`."""
        sample = fitting_sample(vectors, self.config, seed=seed)
        require_usable(sample, self.config.codebook_size)
        targets = self.prepare(sample)
        # The library and the layers draw from PyTorch's global generator.
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(derive_seed(seed, "codebooks/rq_vae"))
            module = _Autoencoder(targets.shape[1], self.config)
            module.standardize(targets)
            _train(module, targets, self.config.rq_vae, seed=seed)
        self.module = module.eval().requires_grad_(requires_grad=False)

    def encode(self, vectors: Tensor) -> Tensor:
        """Return codes ``[N, C] int64``, each the nearest to what is left of the latent."""
        module = self._fitted()
        return residual_codes(module.latent(self.prepare(vectors)), module.codebooks())[0]

    def decode(self, codes: Tensor) -> Tensor:
        """Return what the decoder makes of the sum of the codes' latents, ``[N, D]``."""
        module = self._fitted()
        picked = [module.codebooks()[level][code] for level, code in enumerate(codes.long().T)]
        return module.reconstruct(torch.stack(picked).sum(dim=0))

    def state(self) -> dict[str, Tensor]:
        """Return weights, codebooks, moving averages, and whether the codebooks are initialised."""
        return dict(self._fitted().state_dict())

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take it all back; ValueError if it is of another size."""
        module = _Autoencoder(len(state["shift"]), self.config)
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[-1].strip()) from None
        self.module = module.eval().requires_grad_(requires_grad=False)

    def _fitted(self) -> "_Autoencoder":
        assert self.module is not None, "fit or load the quantizer first"
        return self.module


class _Autoencoder(nn.Module):
    """Encoder, residual codebooks and decoder."""

    shift: Tensor
    scale: Tensor

    def __init__(self, dim: int, config: CodebooksConfig) -> None:
        super().__init__()
        # Importing it takes a second, which every other job need not wait for.
        from vector_quantize_pytorch import ResidualVQ

        options = config.rq_vae
        widths = [options.hidden_dim] * options.num_layers
        self.encoder = _layers([dim, *widths, options.latent_dim])
        self.decoder = _layers([options.latent_dim, *widths, dim])
        self.quantizer = ResidualVQ(
            dim=options.latent_dim,
            num_quantizers=config.num_codebooks,
            codebook_size=config.codebook_size,
            kmeans_init=True,
            kmeans_iters=_INIT_ROUNDS,
            decay=options.decay,
            threshold_ema_dead_code=options.dead_code_threshold,
            commitment_weight=options.commitment_weight,
            codebook_diversity_loss_weight=options.diversity_weight,
            rotation_trick=options.gradient == "rotation",
        )
        self.register_buffer("shift", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    def standardize(self, vectors: Tensor) -> None:
        """Remember mean and spread of ``vectors [N, D]``: any scale trains alike."""
        self.shift = vectors.mean(dim=0)
        self.scale = (vectors - self.shift).square().mean().sqrt()

    def latent(self, vectors: Tensor) -> Tensor:
        """Return ``[N, Z]`` for ``vectors [N, D]``."""
        return self.encoder((vectors - self.shift) / self.scale)  # type: ignore[no-any-return]

    def reconstruct(self, latents: Tensor) -> Tensor:
        """Return ``[N, D]`` for ``latents [N, Z]``."""
        return self.decoder(latents) * self.scale + self.shift  # type: ignore[no-any-return]

    def codebooks(self) -> Tensor:
        """Return ``[C, K, Z]``."""
        return torch.stack([level._codebook.embed[0] for level in self.quantizer.layers])

    def loss(self, vectors: Tensor) -> Tensor:
        """Return the scalar that training lowers, for ``vectors [N, D]``; codebooks move too."""
        latents = self.latent(vectors)
        quantized, _, codebook_losses = self.quantizer(latents[None])
        error = (vectors - self.reconstruct(quantized[0])) / self.scale
        total: Tensor = error.square().mean() + codebook_losses.sum()
        return total


def _layers(widths: list[int]) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for into, out in pairwise(widths):
        layers += [nn.Linear(into, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _train(module: _Autoencoder, vectors: Tensor, options: RqVaeConfig, *, seed: int) -> None:
    """Take the optimiser's steps over shuffled ``vectors [N, D]``."""
    generator = torch_generator(seed, "codebooks/rq_vae/order")
    batch_size = min(options.batch_size, len(vectors))
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.0)
    order = torch.randperm(len(vectors), generator=generator)
    with torch.no_grad():  # the first call starts the codebooks from k-means of its latents
        first = order[: _INIT_SHARE * module.quantizer.codebook_size]
        module.quantizer(module.latent(vectors[first])[None])
    place = 0
    for _ in range(options.steps):
        if place + batch_size > len(order):
            order, place = torch.randperm(len(vectors), generator=generator), 0
        batch = vectors[order[place : place + batch_size]]
        place += batch_size
        loss = module.loss(batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
