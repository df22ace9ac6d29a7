"""One optimiser step: weighted loss terms, accumulation, precision, gradient sync, clipping.

Shapes: N loss terms.
"""

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from itemese.core.errors import ConfigError, TrainingError
from itemese.core.randomness import derive_seed
from itemese.core.schema import Request
from itemese.core.tensors import to_device
from itemese.methods.base import Batch, Method, Stage
from itemese.training.config import TrainingConfig
from itemese.training.data import EpochPlan
from itemese.training.sharding import gathered, shard, write_back


@dataclass(frozen=True)
class StepFacts:
    """Record of one step, the same on every worker.

    Attributes:
        loss: Weighted sum of the terms.
        terms: Unweighted terms, mean over the step's targets.
        targets: How many those are, by term; see `Method.count_targets`.
        tokens: History events of the step over all workers; padding is not counted.
        learning_rate: That the step was taken with.
    """

    loss: float
    terms: dict[str, float]
    targets: dict[str, float]
    tokens: int
    learning_rate: float


class Objective(nn.Module):
    """A module together with its weighted loss, so that gradient sync sees the loss itself.

    A term that is off takes no part in the result; a parameter that only it would reach is then
    known to be unused, where a wrapper around the module alone would wait for its gradient.
    """

    def __init__(self, method: Method, module: nn.Module, weights: dict[str, float]) -> None:
        super().__init__()
        self.method = method
        self.module = module
        self.weights = weights

    def forward(
        self, batch: Batch, mean_targets: Mapping[str, float] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the weighted loss of a micro-batch.

        Args:
            batch: From `Method.collate`.
            mean_targets: As in `EpochPlan`.

        Returns:
            The loss, a scalar; each term's sum over its targets and their number, both
            ``[N] float32`` and detached.
        """
        found = self.method.losses(self.module, batch)
        absent = sorted(set(self.weights) - set(found))
        assert not absent, f"{type(self.method).__name__}.losses lacks the declared terms {absent}"
        terms = [found[name] for name in self.weights]
        shares: list[Tensor | float] = [1.0] * len(terms)
        if mean_targets is not None:
            shares = [found[n].targets / mean_targets.get(n, 1.0) for n in self.weights]
        weighted = [
            weight * term.value * share
            for weight, term, share in zip(self.weights.values(), terms, shares, strict=True)
        ]
        values = torch.stack([term.value.detach().float() for term in terms])
        targets = torch.stack([torch.as_tensor(term.targets).to(values) for term in terms])
        return torch.stack(weighted).sum(), values * targets, targets


def make_accelerator(config: TrainingConfig, *, use_gpu: bool) -> Accelerator:
    """Return accelerate's view of this process: device, precision, process group.

    Args:
        config: Its `precision`.
        use_gpu: Whether a CUDA device may be used.

    Raises:
        ConfigError: bf16 was asked of a GPU without it.
    """
    cuda = use_gpu and torch.cuda.is_available()
    has_bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if config.precision == "bf16" and cuda and not has_bf16:
        message = (
            "`training.precision` must be one that the GPU has; got 'bf16' on "
            f"{torch.cuda.get_device_name()}. Set `training.precision` to auto or fp32."
        )
        raise ConfigError(message)
    bf16 = config.precision == "bf16" or (config.precision == "auto" and has_bf16)
    # accelerate keeps its state for the whole process and refuses another precision later.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        cpu=not cuda,
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True
            )
        ],
    )


def active_weights(method: Method, stage: Stage) -> dict[str, float]:
    """Return the non-zero loss weights active in this stage.

    Raises:
        ConfigError: None is left.
    """
    given = method.config.loss_weights
    weights = {name: float(getattr(given, name)) for name in type(given).model_fields}
    unknown = sorted(set(stage.terms) - set(weights))
    assert not unknown, f"stage {stage.name!r} names the unknown terms {unknown}"
    active = {n: w for n, w in weights.items() if w != 0 and (not stage.terms or n in stage.terms)}
    if not active:
        message = (
            f"`method.loss_weights` must have a term above 0 in stage {stage.name!r}; got "
            f"{weights}. Raise one of {list(stage.terms) or list(weights)}."
        )
        raise ConfigError(message)
    return active


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the trained parameters: weight decay on matrices only.

    Biases, norms and embedding tables (also tied ones) shrink without a reason when decayed.
    """
    tables = {
        id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    trained = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2 and id(p) not in tables]
    kept = [p for p in trained if p.ndim < 2 or id(p) in tables]
    groups = [(decayed, weight_decay), (kept, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def learning_rate(config: TrainingConfig, step: int, total: int) -> float:
    """Return the rate of a stage's step, counted from 0, of `total`.

    It rises linearly from 0 over the first `warmup_share` of the steps, and then stays
    (``constant``) or falls along half a cosine towards 0 (``cosine``).
    """
    warmup = round(config.warmup_share * total)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - warmup) / max(1, total - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Stepper:
    """Takes the optimiser steps of one stage."""

    def __init__(
        self,
        method: Method,
        module: nn.Module,
        *,
        stage: Stage,
        config: TrainingConfig,
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.method = method
        self.stage = stage
        self.seed = seed
        self.weights = active_weights(method, stage)
        self.whole = module
        if config.sharded:
            module = copy.deepcopy(module)
        objective = Objective(method, module, self.weights).train()
        if config.sharded:
            shard(objective, accelerator.device, accelerator.num_processes)
        # One process needs no gradient sync, and parts have their own: `evaluation_mode` leaves
        # the DDP wrapper out.
        alone = config.sharded or accelerator.num_processes == 1
        self.objective = accelerator.prepare_model(objective, evaluation_mode=alone)
        self.module = module
        self.optimizer = torch.optim.AdamW(
            parameter_groups(module, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]

    def step(
        self,
        micro_batches: Sequence[tuple[int, list[Request]]],
        *,
        plan: EpochPlan,
        step: int,
        rate: float,
    ) -> StepFacts:
        """Add up the micro-batches' gradients and update the weights once.

        Args:
            micro_batches: This worker's, with their numbers in the epoch.
            plan: Of the epoch.
            step: Of the run, for messages.
            rate: Learning rate.

        Raises:
            TrainingError: A loss term or the gradient is not finite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        device = self.accelerator.device
        names = list(self.weights)
        seen = torch.zeros(2 + 2 * len(names), dtype=torch.float32, device=device)
        tokens = 0
        for number, (place, requests) in enumerate(micro_batches):
            tokens += sum(len(request.history) for request in requests)
            last = number == len(micro_batches) - 1
            repeated = plan.mean_targets is not None and place >= plan.num_batches
            counted = 0.0 if repeated else 1.0  # a repeated one is computed: gradients are synced
            seed = derive_seed(self.seed, f"training/noise/{plan.epoch}/{place}")
            sync = nullcontext() if last else self.accelerator.no_sync(self.objective)
            with seeded(seed, device), sync:
                batch = to_device(self.method.collate(requests), device)
                loss, sums, targets = self.objective(batch, plan.mean_targets)
                self.accelerator.backward(loss * counted / len(micro_batches))
            seen[0] += loss.detach().float()
            seen[2:] += counted * torch.cat([sums, targets])
        seen[1] = tokens
        seen = self.accelerator.reduce(seen, "sum") if self.accelerator.num_processes > 1 else seen
        norm = self._clip()
        grad_norm, loss_sum, tokens_seen, *rest = torch.cat([norm[None], seen]).tolist()  # one sync
        counts = dict(zip(names, rest[len(names) :], strict=True))
        sums_seen = dict(zip(names, rest[: len(names)], strict=True))
        terms = {name: total / (counts[name] or 1.0) for name, total in sums_seen.items()}
        self._check({**terms, "weighted loss": loss_sum, "gradient norm": grad_norm}, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        loss_seen = sum(self.weights[name] * value for name, value in terms.items())
        return StepFacts(loss_seen, terms, counts, round(tokens_seen), rate)

    def write_back(self) -> None:
        """Copy the trained weights to the module given at first; every worker must call it."""
        if self.module is not self.whole:
            write_back(self.module, self.whole)

    def _clip(self) -> Tensor:
        """Scale the gradients down if asked; return their norm before that, a scalar."""
        device = self.accelerator.device
        if not self.config.max_grad_norm:
            return torch.zeros((), device=device)
        norm = nn.utils.clip_grad_norm_(self.trained, self.config.max_grad_norm)
        return gathered(norm).float().to(device)

    def _check(self, values: dict[str, float], step: int) -> None:
        """Stop at the first value that is not finite, before it reaches the weights."""
        for name, value in values.items():
            if not math.isfinite(value):
                what = f"loss term {name}" if name in self.weights else name
                message = (
                    f"`{what}` must be finite; got {value} at step {step} of stage "
                    f"{self.stage.name!r}. Lower `training.learning_rate` (now "
                    f"{self.config.learning_rate:g}) or its weight in `method.loss_weights`."
                )
                raise TrainingError(message)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed all generators for one micro-batch, and restore them afterwards.

    Dropout and sampled negatives then depend on the batch's place in the epoch only: not on how
    batches are assigned to workers, and not on whether the run was interrupted before it. The
    generators of the calling process continue as if nothing had been drawn.

    Args:
        seed: Of the micro-batch.
        device: Whose generator is seeded beside the CPU's.
    """
    # Libraries inside a method may draw from any of the three.
    python, numpy = random.getstate(), np.random.get_state()
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
            for place in cuda:
                with torch.cuda.device(place):
                    torch.cuda.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
